"""Phantoms laid out as the published sets are."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from SAMSemiSegLib.project.phantoms import make_phantom
from SAMSemiSegLib.volumes.volume import Volume
from SAMSemiSegLib.volumes.writing import write_image, write_labels

SHAPE = (20, 18, 12)


CASES = {
    "la2018": [f"{c}ABCDEFGH1234567890" for c in "UZ06B3"],
    "brats2019": [f"BraTS19_{c}_1" for c in ("TCIA02_370", "CBICA_ASA", "X", "Y", "A", "B")],
    "btcv": [f"{i:04}" for i in (31, 7, 9, 5, 26, 39)],
    "mact": [f"{i:04}" for i in range(1, 7)],
    "abdomenct1k": [f"Case_{i:05}" for i in range(1, 7)],
    "acdc": [f"patient{p:03}_frame{f:02}" for p in (99, 3, 11) for f in (1, 2)],
}


def small(published: ModuleType, name: str, training: int = 4, evaluation: int = 2) -> Any:
    """The configuration for so few cases; lists and layout stay."""
    configuration = published.load_configuration(name)
    return configuration.model_copy(
        update={
            "training": configuration.training.model_copy(update={"first": training}),
            "evaluation": configuration.evaluation.model_copy(
                update={
                    key: evaluation
                    for key in ("first", "last")
                    if getattr(configuration.evaluation, key) is not None
                }
            ),
        }
    )


def arrays(seed: int, labels: int) -> tuple[Volume, np.ndarray]:
    """A phantom whose voxel (i, 0, 0) holds the value i + 1 for each label i."""
    image, label = make_phantom(SHAPE, seed)
    values = np.array(label.array, dtype=np.uint8)
    values[:labels, 0, 0] = np.arange(1, labels + 1)
    return image, values


def write_set(
    configuration: Any, folder: Path, names: list[str], image_file: str = ""
) -> dict[str, np.ndarray]:
    """Write phantoms where the configuration's set has its files; their labels by name."""
    files, written = configuration.files, {}
    highest = max(max(values) for values in configuration.labels.values())
    for seed, name in enumerate(names):
        image, values = arrays(seed, min(highest, SHAPE[0]))
        written[name] = values
        pattern = image_file or files.image.replace("**", "Images, part 1")
        path = folder / pattern.format(case=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if files.format == "hdf5":
            h5py = pytest.importorskip("h5py")
            order = (2, 1, 0) if files.axes == "zyx" else (0, 1, 2)
            with h5py.File(path, "w") as file:
                file["image"] = image.array.transpose(order).astype(np.float32)
                file["label"] = values.transpose(order)
        else:
            write_image(path, image)
            label = folder / files.label.replace("**", "Mask").format(case=name)
            ids = list(range(1, highest + 1))
            write_labels(
                label,
                Volume(values, image.geometry),
                [str(i) for i in ids],
                ids,
                [(255, 0, 0)] * highest,
            )
    return written


def write_lists(configuration: Any, folder: Path, names: list[str]) -> None:
    """Training cases first; BTCV has both parts in one file, each line the name of a file."""
    line = "case{}.npy.h5" if configuration.name == "btcv" else "{}"
    lists: dict[str, list[str]] = {}
    for part, own in ((configuration.training, names[:4]), (configuration.evaluation, names[4:])):
        if part.list is not None:
            lists.setdefault(part.list, []).extend(map(line.format, own))
    for name, lines in lists.items():
        (folder / name).write_text("\n".join(lines) + "\n")
