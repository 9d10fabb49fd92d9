"""Which case has a scan already: at the same place, as a copy, or at the place it was moved to."""

from __future__ import annotations

import filecmp
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.case import Case, case_id, matching_stem
from SAMSemiSegLib.project.project import Project

HEADER_BYTES = 1 << 16
"""A smaller file may be a header, whose voxels lie in a second file."""


def known_case_finder(project: Project) -> Callable[[Path], Case | None]:
    """A function that gives the case which has an image already: the same file or folder of slices,
    or another one of its name with the same content."""
    at_place = {project.path(case.image).resolve(): case for case in project.cases}
    by_stem: dict[str, list[Case]] = defaultdict(list)
    copied_folders: list[Case] = []
    for case in project.cases:
        stem = _stem(_file_name(case.image))
        by_stem[stem].append(case)
        if Path(case.image).is_absolute():
            continue
        # A copy in the project is called after its case, which may have got a number; of a folder
        # that is named after its patient it has another name.
        if numbered := re.fullmatch(r"(.+)_\d+", stem):
            by_stem[numbered[1]].append(case)
        if project.path(case.image).is_dir():
            copied_folders.append(case)

    def find(image: Path) -> Case | None:
        if (known := at_place.get(image.resolve())) is not None:
            return known
        alike = by_stem.get(_stem(image.name), []) + (copied_folders if image.is_dir() else [])
        return next((c for c in alike if _is_copy(image, project.path(c.image))), None)

    return find


def moved_case_finder(project: Project) -> Callable[[Path, Path | None], Case | None]:
    """A function that gives the case which an image, with its label or ``None``, is by the image's
    file name and grid; the case's own image is missing, so that it was moved.

    The grid is that of the case's label. Where a label that trains is missing too, the label beside
    the image must have its file name; a case without a label is known by the image's name. Where
    several cases would do, none is given.
    """
    missing: dict[str, list[Case]] = defaultdict(list)
    for case in project.cases:
        if is_missing(project, case):
            missing[_file_name(case.image)].append(case)

    def find(image: Path, label: Path | None) -> Case | None:
        fitting = [c for c in missing.get(image.name, []) if _fits(project, c, image, label)]
        return fitting[0] if len(fitting) == 1 else None

    return find


def is_missing(project: Project, case: Case) -> bool:
    """Whether the case's image is no longer where it was."""
    return not project.path(case.image).exists()


def lacks_label(project: Project, case: Case) -> bool:
    """Whether it has no label to train by (to score by, if it is for that), or its file is gone."""
    stored = case.reference if case.role == "evaluation" else case.label
    if stored is None or not (case.trainable or case.role == "evaluation"):
        return True
    return not project.path(stored).exists()


def _file_name(stored: str) -> str:
    """Of a path that another system may have written."""
    return PureWindowsPath(stored).name


def _stem(name: str) -> str:
    return matching_stem(case_id(name))


def _is_copy(one: Path, other: Path) -> bool:
    if one.is_dir() and other.is_dir():
        names, others = ({p.name for p in d.iterdir() if p.is_file()} for d in (one, other))
        return names == others and all(
            filecmp.cmp(one / name, other / name, shallow=False) for name in names
        )
    if not (one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)):
        return False
    return one.stat().st_size > HEADER_BYTES or _has_same_voxels(one, other)


def _has_same_voxels(one: Path, other: Path) -> bool:
    import numpy as np

    from SAMSemiSegLib.volumes.reading import read_image

    try:
        return np.array_equal(read_image(one).array, read_image(other).array)
    except InputError:
        return False


def _fits(project: Project, case: Case, image: Path, label: Path | None) -> bool:
    from SAMSemiSegLib.volumes.reading import check_label_geometry, read_image_geometry

    stored = case.label or case.reference
    if stored is not None and project.path(stored).is_file():
        try:
            return check_label_geometry(project.path(stored), read_image_geometry(image)) is None
        except InputError:
            return False
    if case.trainable and case.label is not None:
        return label is not None and label.name == _file_name(case.label)
    return True
