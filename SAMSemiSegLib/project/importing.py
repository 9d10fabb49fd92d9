"""Bringing scans and labels into a project, all of them or none."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.case import Case, Role, case_id, matching_stem
from SAMSemiSegLib.project.inferred_labels import inferred_labels
from SAMSemiSegLib.project.label_set import LabelSet
from SAMSemiSegLib.project.matching import Found, choose, in_order, match_files
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.project.review import forget

ReportProgress = Callable[[int, int, str], None]
"""Called with (cases done, cases in all, name of the case)."""

WHOLE_CHECK_BYTES = 256 * 1024**2
WHOLE_CHECK_CASES = 300
"""Sets of at most this many bytes and cases have their voxels checked on import; of larger ones the
headers are, and the voxels when the cases are preprocessed."""


PATIENT_NAMED = "The folder's name holds the patient's name, so the case is called"


@dataclass(frozen=True)
class ImportSummary:
    """What an import did; ``notes`` are sentences for the user."""

    imported: int
    labeled: int
    unlabeled: int
    evaluation: int
    references: int
    copied: bool
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def import_cases(
    project: Project,
    images: Path,
    labels: Path | None = None,
    labeled: int | Sequence[str] | None = None,
    order: Path | None = None,
    evaluate: int | Sequence[str] | None = None,
    copy: bool = False,
    keep_references: bool = False,
    progress: ReportProgress | None = None,
) -> ImportSummary:
    """Import a folder of images and one of labels, matched by their file names.

    Images that are in the project already stay as they are, so that a folder that has grown can be
    imported once more; those without a label get one that has been drawn since.

    Args:
        images: a folder of image files, a folder of folders of DICOM slices, or a series' folder.
        labels: a folder of label files, or ``None``.
        labeled: the first N cases of the order (evaluation cases not counted), or names; ``None``:
            all that have a label.
        order: a text file of case names, one a line: the order of the cases. Images that it does
            not name are left out. Without it the order is by name.
        evaluate: the last N cases of the order, or names: scored, never trained on.
        copy: copy the files into the project folder instead of referring to them.
        keep_references: keep the labels of unlabeled cases, to score pseudo-labels by.

    Raises:
        InputError: one sentence; the project and its folder are as before.
    """
    found, notes = match_files(images, labels)
    if order is not None:
        found, note = in_order(found, order, images)
        notes += note
    found, late, note = _new(project, found, labeled, images)
    notes += note
    if isinstance(labeled, Sequence):
        named = {matching_stem(item.image.name) for _, item in late}
        labeled = [name for name in labeled if matching_stem(name) not in named]
    choose(found, labeled, evaluate, labels)

    label_set = project.label_set
    if not label_set.labels:
        drawn = [f.label for f in found if f.use != "unlabeled" and f.label]
        label_set = inferred_labels(drawn + [item.label for _, item in late if item.label])
        if label_set.labels:
            notes.append(
                "The label set was taken from the label files: "
                + ", ".join(f"{x.name} = {x.value}" for x in label_set.labels)
                + "."
            )

    size = sum(f.image.stat().st_size for f in found if f.image.is_file())
    whole = size <= WHOLE_CHECK_BYTES and len(found) <= WHOLE_CHECK_CASES
    taken = {case.id for case in project.cases}
    cases: list[Case] = []
    made: list[Path] = []
    try:
        for done, item in enumerate(found):
            case = _case(project, item, label_set, taken, keep_references, whole, copy, made)
            taken.add(case.id)
            cases.append(case)
            if progress is not None:
                progress(done + 1, len(found) + len(late), case.id)
        labeled_late = []
        for done, (case, item) in enumerate(late, len(found)):
            assert item.label is not None
            labeled_late.append(_labeled(project, case, item.label, label_set, copy, made))
            if progress is not None:
                progress(done + 1, len(found) + len(late), case.id)
        _commit(project, cases, label_set, labeled_late)
    except BaseException:
        _remove(made, project.folder)
        raise

    notes += [case.note for case in [*cases, *labeled_late] if case.note]
    return ImportSummary(
        imported=len(cases),
        labeled=sum(f.use == "labeled" for f in found),
        unlabeled=sum(f.use == "unlabeled" for f in found),
        evaluation=sum(f.use == "evaluation" for f in found),
        references=sum(case.reference is not None for case in cases),
        copied=copy,
        notes=notes,
    )


def add_case(
    project: Project,
    image: Path,
    label: Path | None = None,
    name: str | None = None,
    role: Role = "training",
    copy: bool = False,
) -> Case:
    """Add one scan, wholly checked, or give one that the project has its first label.

    Args:
        label: trains if ``role`` is training, only scores if it is evaluation.
        name: the case's id; by default made from the file name.

    Raises:
        InputError: one sentence; the project and its folder are as before.
    """
    known = _case_finder(project)(image)
    is_first_label = (
        known is not None
        and label is not None
        and role == "training"
        and name in (None, known)
        and _lacks_label(project.case(known))
    )
    if known is not None and not is_first_label:
        raise InputError(f"'{image}' is in the project already, as the case '{known}'.")
    taken = {case.id for case in project.cases}
    if known is None and name is not None and case_id(name, taken) != name:
        safe = case_id(name) == name
        why = "is taken (in capitals or not)" if safe else "has characters that ids do not have"
        raise InputError(f"The case id '{name}' {why}; '{case_id(name, taken)}' would do (--id).")
    use = "evaluation" if role == "evaluation" else "labeled" if label else "unlabeled"
    label_set = project.label_set
    if label is not None and not label_set.labels:
        label_set = inferred_labels([label])
    made: list[Path] = []
    try:
        if known is not None:
            assert label is not None
            case = _labeled(project, project.case(known), label, label_set, copy, made)
            _commit(project, [], label_set, [case])
        else:
            item = Found(image, label, use)
            case = _case(project, item, label_set, taken, False, True, copy, made, name)
            _commit(project, [case], label_set)
    except BaseException:
        _remove(made, project.folder)
        raise
    return case


def _new(
    project: Project, found: list[Found], labeled: int | Sequence[str] | None, images: Path
) -> tuple[list[Found], list[tuple[Case, Found]], list[str]]:
    """Those that the project does not have yet; its cases that had no label and now have one, of
    all or of the names in ``labeled``; and what the user should be told.

    Raises:
        InputError: there are none of either.
    """
    find = _case_finder(project)
    named = {matching_stem(name) for name in labeled} if isinstance(labeled, Sequence) else set()
    new, late = [], []
    for item in found:
        known = find(item.image)
        if known is None:
            new.append(item)
            continue
        case = project.case(known)
        # A label that is kept to score pseudo-labels by was not to be learned from, unless named.
        wanted = matching_stem(item.image.name) in named or (
            labeled is None and case.reference is None
        )
        if wanted and item.label is not None and _lacks_label(case):
            late.append((case, item))
    if not new and not late:
        raise InputError(
            f"Every image of '{images}' is in the project already, and none of them got its first "
            "label; choose a folder with new images, or check the names of the labels."
        )
    notes = []
    if late:
        notes.append(
            f"In the project already, and labeled now: {len(late)} of {len(found)} images."
        )
    if left := len(found) - len(new) - len(late):
        notes.append(f"In the project already and left as they are: {left} of {len(found)} images.")
    return new, late, notes


def _lacks_label(case: Case) -> bool:
    return case.role == "training" and not case.trainable


def _case_finder(project: Project) -> Callable[[Path], str | None]:
    """A function that names the case which has an image already: the same file, or a copy of it
    in the project's folder under its name."""
    files = {project.path(case.image).resolve(): case.id for case in project.cases}
    copies = {
        case.id: project.path(case.image)
        for case in project.cases
        if not Path(case.image).is_absolute()
    }

    def find(image: Path) -> str | None:
        if (known := files.get(image.resolve())) is not None:
            return known
        name = case_id(image.name)
        copy = copies.get(name)
        if copy is None or not (copy.is_file() and image.is_file()):
            return None
        return name if filecmp.cmp(image, copy, shallow=False) else None

    return find


def _case(
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


def _labeled(
    project: Project, case: Case, label: Path, label_set: LabelSet, copy: bool, made: list[Path]
) -> Case:
    """The case with its first label, which is checked, and copied if asked (noted in ``made``)."""
    from SAMSemiSegLib.volumes.reading import read_image_geometry, read_labels

    grid = read_image_geometry(project.path(case.image))
    _, note = read_labels(label, label_set.values, grid, label_set.names)
    kept = None if case.reference is None else project.path(case.reference)
    if kept is not None and kept.is_file() and filecmp.cmp(label, kept, shallow=False):
        label = kept
    elif copy:
        label = _copied(label, project.folder / "labels", case.id, made)
    update = {"label": project.stored(label), "origin": "expert", "status": "labeled"}
    return case.model_copy(update={**update, "confidence": None, "note": note})


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


def _commit(
    project: Project, cases: list[Case], label_set: LabelSet, labeled: Sequence[Case] = ()
) -> None:
    """Put new cases, and those that are ``labeled`` now, into the project as its file is by now,
    and save; take them out again if it cannot be saved.

    Reading many scans takes minutes, in which a training may end and offer its pseudo-labels.
    """
    with project.saved():
        taken = {case.id.casefold() for case in project.cases}
        for case in cases:
            if case.id.casefold() in taken:
                raise InputError(f"A case '{case.id}' was added meanwhile; import once more.")
        for case in labeled:
            if not _lacks_label(project.case(case.id)):
                raise InputError(f"The case '{case.id}' was labeled meanwhile; import once more.")
            project.replace(case)
        forget(project, [case.id for case in labeled])
        project.cases += cases
        if not project.label_set.labels:
            project.label_set = label_set


def _remove(made: list[Path], folder: Path) -> None:
    """Take copied files back, and the folders made for them if they are empty now."""
    for path in made:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    for name in ("images", "labels"):
        if (folder / name).is_dir() and not any((folder / name).iterdir()):
            (folder / name).rmdir()
