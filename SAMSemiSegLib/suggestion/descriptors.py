"""What a volume looks like to a foundation model, in two thousand numbers.

A volume is made small, its slices are laid out on one canvas, and the model's embedding of that
canvas is averaged over parts of the volume: about a second a volume on one core, reading apart.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from SAMSemiSegLib.atomic import write_json
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.foundation.model import FoundationModel
from SAMSemiSegLib.preprocessing.orientation import Orientation
from SAMSemiSegLib.preprocessing.plan import IntensityRule
from SAMSemiSegLib.preprocessing.preprocessor import normalize
from SAMSemiSegLib.preprocessing.resampling import resample
from SAMSemiSegLib.project.case import Case
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.run.settings import StitchingSettings
from SAMSemiSegLib.stitching.layout import plan_layout
from SAMSemiSegLib.stitching.stitch import stitch
from SAMSemiSegLib.volumes.reading import read_image
from SAMSemiSegLib.volumes.volume import Shape, Volume

log = logging.getLogger(__name__)

FOLDER = "suggestion"
"""Of a project: descriptors already made, a file for each case and model."""

SLICES = 16
SIDE = 64
"""A volume is brought to at most so many axial slices with at most so many pixels a side."""

INNER = (1, 2)
"""Of the quarters of each axis, those that are described, each by itself: where something lies
counts as well as what it is, and a scan has in its middle what it was made for. The distance so
found follows how unlike two volumes' labels are better than that of one mean over the whole canvas
(docs/experiments.md)."""

VERSION = 1
"""Of the descriptor; files of another one are made anew."""

Descriptor = NDArray[np.float32]

Progress = Callable[[int, int], None]
"""Called with (cases done, cases in all)."""


def descriptors_of(
    project: Project,
    cases: Sequence[Case],
    load: Callable[[], FoundationModel],
    model_name: str,
    progress: Progress | None = None,
) -> tuple[dict[str, Descriptor], dict[str, str]]:
    """The descriptor of each case, from the project's ``suggestion`` folder where it is there.

    Args:
        project: of the cases.
        cases: to be described.
        load: gives the model; called only if a descriptor has to be made.
        model_name: which the files are named after.
        progress: is told of each case.

    Returns:
        Descriptors by case id, and by case id why a volume could not be read.
    """
    found: dict[str, Descriptor] = {}
    left_out: dict[str, str] = {}
    model: FoundationModel | None = None
    for number, case in enumerate(cases, 1):
        image = project.path(case.image)
        kept = project.folder / FOLDER / f"{case.id}.{model_name}.json"
        stamp = _stamp(image)
        descriptor = _read(kept, stamp)
        if descriptor is None:
            try:
                volume = read_image(image)
            except InputError as error:
                left_out[case.id] = str(error)
            else:
                model = model or load()
                descriptor = describe(volume, model)
                values = [round(float(value), 5) for value in descriptor]
                write_json(kept, {"of": stamp, "descriptor": values})
        if descriptor is not None:
            found[case.id] = descriptor
        if progress is not None:
            progress(number, len(cases))
    return found, left_out


@torch.inference_mode()
def describe(volume: Volume, model: FoundationModel) -> Descriptor:
    """The embedding of a volume, averaged over the pixels of each part of its inner half.

    Gray values are clipped and brought to zero mean and unit spread volume by volume, so that
    scanners' scales do not count.

    Args:
        volume: as read.
        model: in evaluation mode.

    Returns:
        (8 · 256,), part by part.
    """
    gray = torch.from_numpy(normalize(_shrink(volume), IntensityRule(kind="zscore")))
    x, y, z = gray.shape
    layout = plan_layout((x, y, z), StitchingSettings(), model.multiple)
    canvas = stitch(gray, layout, float(gray.min()))[None, None]
    device = next(model.parameters()).device
    embedding = model.encode(canvas.to(device)).float().cpu()[0]
    # An embedding pixel counts for a part by the share of it that lies in the part's slices.
    parts = stitch(_parts((x, y, z)), layout, 0.0)[None]
    share = F.interpolate(parts, embedding.shape[-2:], mode="area")[0]
    mean = torch.einsum("phw,chw->pc", share, embedding) / share.sum((1, 2))[:, None]
    return mean.flatten().numpy().astype(np.float32)


def _parts(shape: Shape) -> torch.Tensor:
    """(8, X, Y, Z): 1 where a voxel lies in a part, else 0; no part is empty."""
    masks = []
    for quarters in itertools.product(INNER, repeat=3):
        mask = torch.zeros(shape)
        where = []
        for n, quarter in zip(shape, quarters, strict=True):
            start = n * quarter // 4
            where.append(slice(start, max(n * (quarter + 1) // 4, start + 1)))
        mask[tuple(where)] = 1
        masks.append(mask)
    return torch.stack(masks)


def _shrink(volume: Volume) -> NDArray[np.float32]:
    """The volume (X, Y, Z) in RAS with few voxels; the proportions of a slice stay."""
    orientation = Orientation.of(volume.geometry)
    array = np.asarray(orientation.forward(volume.array), dtype=np.float32)
    spacing = orientation.spacing(volume.geometry)
    width, height = (n * step for n, step in zip(array.shape[:2], spacing[:2], strict=True))
    pixel = max(width, height) / SIDE
    size = (
        max(1, round(width / pixel)),
        max(1, round(height / pixel)),
        min(SLICES, array.shape[2]),
    )
    return resample(array, size, antialias=True)


def _stamp(image: Path) -> dict[str, str | int]:
    """Tells whether a descriptor is of this image as it is now."""
    try:
        found = image.stat()
        size, changed = found.st_size, found.st_mtime_ns
    except OSError:
        size, changed = 0, 0
    return {"image": str(image), "bytes": size, "changed_ns": changed, "version": VERSION}


def _read(kept: Path, stamp: dict[str, str | int]) -> Descriptor | None:
    if not kept.is_file():
        return None
    try:
        record = json.loads(kept.read_text(encoding="utf-8"))
        if record["of"] == stamp:
            return np.array(record["descriptor"], dtype=np.float32)
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("'%s' is damaged; it is made anew.", kept)
    return None
