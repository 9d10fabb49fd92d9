"""The papers' benchmarks: sets of scans as their authors hand them out, and what was published.

A configuration (``configurations/NAME.json``) says where the files of a set lie, which cases are
for what, which values are which label, and the settings of the published rows. Whoever has the data
runs a row with

    python benchmarks/accuracy.py run --dataset btcv --data FOLDER --labels 7 \
        --methods magicnet --variants sfr+

Sets come as the semi-supervised literature's HDF5 files (arrays ``image`` and ``label``, already
cropped and scaled, without a spacing, so that distances are in voxels) or as NIfTI files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from SAMSemiSegLib.atomic import write_json, write_text
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.importing import import_cases
from SAMSemiSegLib.project.label_set import LabelSet
from SAMSemiSegLib.project.matching import read_list
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.volumes.volume import Geometry, Volume, shape_of

CONFIGURATIONS = Path(__file__).parent / "configurations"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Files(_Strict):
    """Where a case's files lie in the set's folder; ``{case}`` is its name, ``*`` and ``**`` stand
    for anything.

    Attributes:
        format: ``hdf5``: one file with the arrays ``image`` and ``label``; ``nifti``: two files.
        image, label: patterns; HDF5 has no ``label``.
        axes: order of the arrays' axes in HDF5 files.
        strip: beginnings and endings that the names in the lists have and the cases have not.
    """

    format: Literal["hdf5", "nifti"]
    image: str
    label: str | None = None
    axes: Literal["xyz", "zyx"] = "xyz"
    strip: tuple[str, ...] = ()


class Part(_Strict):
    """Some of the cases.

    Attributes:
        list: text file of names in the set's folder; None: all cases, by name.
        first, last: so many of them.
    """

    list: str | None = None
    first: int | None = None
    last: int | None = None


class Configuration(_Strict):
    """A benchmark.

    Attributes:
        title, source: of the set and of the protocol.
        labels: values in the files by the label's name; all others are background.
        labeled: published numbers of labeled cases.
        metrics: as published; all are in the results.
        settings: of a run, as in a preset's file.
        method_settings: further settings by the method's name.
        published: Dice in percent by ``method/variant`` and number of labeled cases.
        notes: what is not published, or differs here, and why.
    """

    name: str
    title: str
    source: str
    labels: dict[str, tuple[int, ...]]
    files: Files
    training: Part
    evaluation: Part
    labeled: tuple[int, ...]
    metrics: tuple[
        Literal["dice", "jaccard", "asd_voxels", "hd95_voxels", "asd_mm", "hd95_mm"], ...
    ]
    settings: dict[str, Any]
    method_settings: dict[str, tuple[str, ...]] = {}
    published: dict[str, dict[int, float]] = {}
    notes: tuple[str, ...] = ()

    @property
    def label_set(self) -> LabelSet:
        """Values 1, 2, ... in the order of the labels."""
        return LabelSet.of(list(self.labels))

    def cases(self, data: Path) -> tuple[list[str], list[str]]:
        """Names of the cases for training and for evaluation, in the published order.

        Raises:
            InputError: a list is missing, or there are too few cases.
        """
        training, evaluation = (self._part(part, data) for part in (self.training, self.evaluation))
        both = sorted(set(training) & set(evaluation))
        if both:
            raise InputError(
                f"The case '{both[0]}' of {self.title} in '{data}' is for training and evaluation; "
                "check that the set is complete."
            )
        return training, evaluation

    def write_case(self, case: str, data: Path, folder: Path) -> None:
        """Write ``images/CASE.nii.gz`` and ``labels/CASE.nii.gz``, unless they are there.

        Raises:
            InputError: the case's files are missing, more than one, or not as expected.
        """
        from SAMSemiSegLib.volumes.writing import write_image, write_labels

        image_path, label_path = (folder / p / f"{case}.nii.gz" for p in ("images", "labels"))
        if image_path.exists() and label_path.exists():
            return
        source = _one(data, self.files.image.format(case=case))
        if self.files.format == "hdf5":
            image, values = _read_hdf5(source, self.files.axes)
        else:
            assert self.files.label is not None
            label = _one(data, self.files.label.format(case=case))
            image, values = _read_nifti(source, label)
        label_set = self.label_set
        labels = np.zeros(values.shape, np.uint8)
        for value, accepted in zip(label_set.values, self.labels.values(), strict=True):
            labels[np.isin(values, accepted)] = value
        write_image(image_path, image)
        write_labels(
            label_path,
            Volume(labels, image.geometry),
            label_set.names,
            tuple(label_set.values),
            tuple(label_set.colors),
        )

    def make_project(
        self, data: Path, labeled: int, first: int, unlabeled: int, folder: Path
    ) -> None:
        """A project with the published split; the ``labeled`` cases begin at line ``first``.

        Args:
            unlabeled: at most so many unlabeled cases; 0: all.
        """
        training, evaluation = self.cases(data)
        training = training[first:] + training[:first]
        if unlabeled:
            training = training[: labeled + unlabeled]
        cases = folder.parent / f"{self.name}-cases"
        for case in [*training, *evaluation]:
            self.write_case(case, data, cases)
        order = folder.parent / f"{folder.name}.txt"
        write_text(order, "\n".join([*training, *evaluation]) + "\n")
        project = Project.create(folder, self.label_set, folder.name)
        import_cases(
            project,
            cases / "images",
            cases / "labels",
            labeled=labeled,
            order=order,
            evaluate=len(evaluation),
        )

    def write_preset(self, folder: Path) -> Path:
        """The settings as a file for ``--preset``."""
        path = folder / f"{self.name}.json"
        write_json(path, self.settings)
        return path

    def _part(self, part: Part, data: Path) -> list[str]:
        if part.list is not None:
            names = [self._stripped(name) for name in read_list(_one(data, part.list))]
        else:
            names = self._all(data)
        wanted = part.first or part.last or len(names)
        if len(names) < wanted:
            raise InputError(
                f"{self.title} has {len(names)} cases in '{data}' where {wanted} are wanted; check "
                "that the set is complete."
            )
        return names[:wanted] if part.last is None else names[-wanted:]

    def _all(self, data: Path) -> list[str]:
        before, _, after = Path(self.files.image).name.partition("{case}")
        pattern = self.files.image.format(case="*")
        found = sorted(path.name for path in data.glob(pattern))
        return [name[len(before) : len(name) - len(after)] for name in found]

    def _stripped(self, name: str) -> str:
        name = name.split(",")[0].strip()
        for part in self.files.strip:
            name = name.removesuffix(part).removeprefix(part)
        return name


def configuration_names() -> list[str]:
    """Of the benchmarks there are."""
    return sorted(path.stem for path in CONFIGURATIONS.glob("*.json"))


def load_configuration(name: str) -> Configuration:
    """The configuration of that name.

    Raises:
        InputError: there is none, or it is not valid.
    """
    path = CONFIGURATIONS / f"{name}.json"
    if not path.exists():
        raise InputError(
            f"There is no benchmark '{name}'; choose one of {', '.join(configuration_names())}."
        )
    try:
        return Configuration.model_validate(
            {"name": name, **json.loads(path.read_text(encoding="utf-8"))}
        )
    except (ValidationError, ValueError) as error:
        raise InputError(f"'{path}' is not a benchmark's configuration: {error}") from error


def _one(data: Path, pattern: str) -> Path:
    paths = sorted(data.glob(pattern))
    if len(paths) != 1:
        problem = "is missing" if not paths else f"is there {len(paths)} times"
        raise InputError(f"'{pattern}' {problem} in '{data}'; give the folder of the set (--data).")
    return paths[0]


def _read_hdf5(path: Path, axes: str) -> tuple[Volume, np.ndarray[Any, Any]]:
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"Reading '{path}' needs h5py: pip install h5py.") from error
    try:
        with h5py.File(path, "r") as file:
            image, label = np.asarray(file["image"]), np.asarray(file["label"])
    except (OSError, KeyError) as error:
        raise InputError(f"'{path}' holds no arrays 'image' and 'label'.") from error
    if image.ndim != 3 or image.shape != label.shape:
        raise InputError(f"'{path}' holds no volume with a label of its size.")
    if axes == "zyx":
        image, label = image.transpose(2, 1, 0), label.transpose(2, 1, 0)
    geometry = Geometry.upright(shape_of(image))
    image = np.ascontiguousarray(image, dtype=np.float32)
    return Volume(image, geometry), np.rint(label).astype(np.int32)


def _read_nifti(image: Path, label: Path) -> tuple[Volume, np.ndarray[Any, Any]]:
    import SimpleITK as sitk

    from SAMSemiSegLib.volumes.reading import read_image

    volume = read_image(image)
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(label))).transpose(2, 1, 0)
    if values.shape != volume.array.shape:
        raise InputError(f"'{label}' has another size than its image '{image}'.")
    return volume, np.rint(values).astype(np.int32)
