"""The files of one case: checked, copied if asked, and described."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.case import Case, case_id
from SAMSemiSegLib.project.known_scans import is_missing
from SAMSemiSegLib.project.label_set import LabelSet
from SAMSemiSegLib.project.matching import Found
from SAMSemiSegLib.project.project import Project

PATIENT_NAMED = "The folder's name identifies the patient, so the case is called"
FOUND_AGAIN = "Its scan was missing and was found again at another place."


def new_case(
    project: Project,
    item: Found,
    label_set: LabelSet,
    taken: set[str],
    keep_references: bool,
    whole: bool,
    copy: bool,
    made: list[Path],
    name: str | None = None,
) -> Case:
    """Check the files of one case, copy them if asked (noted in ``made``), and describe it."""
    from SAMSemiSegLib.volumes.dicom import names_patient
    from SAMSemiSegLib.volumes.reading import (
        check_label_geometry,
        read_image,
        read_image_geometry,
        read_labels,
    )

    grid = read_image(item.image).geometry if whole else read_image_geometry(item.image)
    label = item.label
    note = None
    if item.use == "unlabeled" and not keep_references:
        label = None
    elif label is not None and item.use == "unlabeled":
        note = check_label_geometry(label, grid)
    elif label is not None:
        _, note = read_labels(label, label_set.values, grid, label_set.names)

    identity = name or case_id(item.image.name, taken)
    if name is None and item.image.is_dir() and names_patient(item.image):
        # Ids stand in logs, reports and file names, which leave the house more easily than scans.
        identity = case_id("case_1", taken)
        note = " ".join(filter(None, (note, f"{PATIENT_NAMED} '{identity}'.")))
    image = item.image
    if copy:
        image = _copied(image, project.folder / "images", identity, made)
        if label is not None:
            label = _copied(label, project.folder / "labels", identity, made)
    stored = project.stored(label) if label is not None else None
    trains = item.use == "labeled"
    return Case(
        id=identity,
        image=project.stored(image),
        label=stored if trains else None,
        origin="expert" if trains else "none",
        status="labeled" if trains else "unlabeled",
        role="evaluation" if item.use == "evaluation" else "training",
        reference=None if trains else stored,
        note=note,
    )


def update_of(
    project: Project,
    case: Case,
    item: Found,
    label_set: LabelSet,
    whole: bool,
    copy: bool,
    made: list[Path],
) -> dict[str, Any]:
    """What changes of a case that the project has: where its scan lies, if it was missing there,
    and its label, if ``item`` has one. Both are checked, and copied if asked (noted in ``made``).
    """
    from SAMSemiSegLib.volumes.reading import read_image, read_image_geometry, read_labels

    update: dict[str, Any] = {}
    note = case.note
    moved = is_missing(project, case)
    read_whole = whole and moved
    grid = read_image(item.image).geometry if read_whole else read_image_geometry(item.image)
    if (label := item.label) is not None:
        _, note = read_labels(label, label_set.values, grid, label_set.names)
        kept = None if case.reference is None else project.path(case.reference)
        if kept is not None and kept.is_file() and filecmp.cmp(label, kept, shallow=False):
            label = kept
        elif copy:
            label = _copied(label, project.folder / "labels", case.id, made)
        if case.role == "evaluation":
            update["reference"] = project.stored(label)
        else:
            update |= {"label": project.stored(label), "origin": "expert", "status": "labeled"}
            update["confidence"] = None
    if moved:
        image = item.image
        if copy:
            image = _copied(image, project.folder / "images", case.id, made)
        update["image"] = project.stored(image)
        if FOUND_AGAIN not in (note or ""):
            note = " ".join(filter(None, (note, FOUND_AGAIN)))
    return {**update, "note": note}


def gives_label(update: Mapping[str, Any]) -> bool:
    """Whether a case gets a label by it."""
    return "label" in update or "reference" in update


def _copied(source: Path, folder: Path, name: str, made: list[Path]) -> Path:
    from SAMSemiSegLib.volumes.formats import suffix_of

    if source.name.lower().endswith(".mhd"):
        raise InputError(
            f"'{source}' keeps its voxels in a second file, which cannot be copied along; import "
            "it without --copy, or save it as .mha."
        )
    target = folder / (name + suffix_of(source))
    if target.exists():
        raise InputError(f"'{target}' exists already; remove it, or import without --copy.")
    folder.mkdir(parents=True, exist_ok=True)
    made.append(target)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
    return target


def remove_copies(made: list[Path], folder: Path) -> None:
    """Take copied files back, and the folders made for them if they are empty now."""
    for path in made:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    for name in ("images", "labels"):
        if (folder / name).is_dir() and not any((folder / name).iterdir()):
            (folder / name).rmdir()
