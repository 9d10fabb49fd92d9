"""Bringing scans and labels into a project, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.case import Case, Role, case_id
from SAMSemiSegLib.project.case_files import gives_label, new_case, remove_copies, update_of
from SAMSemiSegLib.project.inferred_labels import inferred_labels
from SAMSemiSegLib.project.known_scans import (
    is_missing,
    known_case_finder,
    lacks_label,
    moved_case_finder,
)
from SAMSemiSegLib.project.label_set import LabelSet
from SAMSemiSegLib.project.matching import Found, choose, in_order, match_files
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.project.review import forget
from SAMSemiSegLib.project.sorting_out import sort_out

ReportProgress = Callable[[int, int, str], None]
"""Called with (cases done, cases in all, name of the case)."""

WHOLE_CHECK_BYTES = 256 * 1024**2
WHOLE_CHECK_CASES = 300
"""Sets of at most this many bytes and cases have their voxels checked on import; of larger ones the
headers are, and the voxels when the cases are preprocessed."""


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
    imported once more; those without a label get one that has been drawn since, and cases whose
    scans are missing where they were are found again (:func:`moved_case_finder`).

    Args:
        images: a folder of image files, a folder of folders of DICOM slices, or a series' folder.
        labels: a folder of label files, or ``None``.
        labeled: the first N new cases of the order (evaluation cases not counted), or names;
            ``None``: all that have a label.
        order: a text file of case names, one a line: the order of the cases. Images that it does
            not name are left out. Without it the order is by name.
        evaluate: the last N new cases of the order, or names: scored, never trained on.
        copy: copy the files into the project folder instead of referring to them.
        keep_references: keep the labels of unlabeled cases, to score pseudo-labels by.

    Raises:
        InputError: one sentence; the project and its folder are as before.
    """
    found, notes = match_files(images, labels)
    if order is not None:
        found, note = in_order(found, order, images)
        notes += note
    parts = sort_out(project, found, labeled, evaluate, images)
    new, late = parts.new, parts.late
    notes += parts.notes
    choose(new, parts.labeled, parts.evaluate, labels)

    label_set = project.label_set
    if not label_set.labels:
        drawn = [f.label for f in new if f.use != "unlabeled" and f.label]
        label_set = inferred_labels(drawn + [item.label for _, item in late if item.label])
        if label_set.labels:
            notes.append(
                "The label set was taken from the label files: "
                + ", ".join(f"{x.name} = {x.value}" for x in label_set.labels)
                + "."
            )

    unseen = [*new, *(item for case, item in late if is_missing(project, case))]
    size = sum(item.image.stat().st_size for item in unseen if item.image.is_file())
    whole = size <= WHOLE_CHECK_BYTES and len(unseen) <= WHOLE_CHECK_CASES
    taken = {case.id for case in project.cases}
    cases: list[Case] = []
    updates: dict[str, dict[str, Any]] = {}
    made: list[Path] = []
    try:
        for done, item in enumerate(new):
            case = new_case(project, item, label_set, taken, keep_references, whole, copy, made)
            taken.add(case.id)
            cases.append(case)
            if progress is not None:
                progress(done + 1, len(new) + len(late), case.id)
        for done, (case, item) in enumerate(late, len(new)):
            updates[case.id] = update_of(project, case, item, label_set, whole, copy, made)
            if progress is not None:
                progress(done + 1, len(new) + len(late), case.id)
        _commit(project, cases, label_set, updates)
    except BaseException:
        remove_copies(made, project.folder)
        raise

    notes += [case.note for case in cases if case.note]
    notes += [
        update["note"] for update in updates.values() if gives_label(update) and update["note"]
    ]
    return ImportSummary(
        imported=len(cases),
        labeled=sum(f.use == "labeled" for f in new),
        unlabeled=sum(f.use == "unlabeled" for f in new),
        evaluation=sum(f.use == "evaluation" for f in new),
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
    """Add one scan, wholly checked. One that the project has already can get its first label, and
    one whose file is missing where it was is found again (:func:`moved_case_finder`).

    Args:
        label: trains if ``role`` is training, only scores if it is evaluation.
        name: the case's id; by default made from the file name.

    Returns:
        The case; its note says what the user should know.

    Raises:
        InputError: one sentence; the project and its folder are as before.
    """
    known = known_case_finder(project)(image)
    if known is None:
        known = moved_case_finder(project)(image, label)
        if known is not None and name not in (None, known.id):
            known = None
    if known is not None:
        _check_joins(project, known, image, label, name, role)
    elif role == "evaluation" and label is None:
        raise InputError(
            f"There is no label for '{image}', which only scores; give it by --label, or add the "
            "scan without --evaluate."
        )
    taken = {case.id for case in project.cases}
    if known is None and name is not None and case_id(name, taken) != name:
        safe = case_id(name) == name
        why = "is taken (in capitals or not)" if safe else "has characters that ids do not have"
        raise InputError(f"The case id '{name}' {why}; '{case_id(name, taken)}' would do (--id).")
    use = "evaluation" if role == "evaluation" else "labeled" if label else "unlabeled"
    item = Found(image, label, use)
    label_set = project.label_set
    if label is not None and not label_set.labels:
        label_set = inferred_labels([label])
    made: list[Path] = []
    try:
        if known is not None:
            update = update_of(project, known, item, label_set, True, copy, made)
            _commit(project, [], label_set, {known.id: update})
            return project.case(known.id)
        case = new_case(project, item, label_set, taken, False, True, copy, made, name)
        _commit(project, [case], label_set, {})
        return case
    except BaseException:
        remove_copies(made, project.folder)
        raise


def _check_joins(
    project: Project, known: Case, image: Path, label: Path | None, name: str | None, role: Role
) -> None:
    """Refuse what would change nothing of a case that the project has, or more than it should."""
    moved, lacking = is_missing(project, known), lacks_label(project, known)
    is_another_use = role == "evaluation" and known.role == "training"
    if (
        is_another_use
        or name not in (None, known.id)
        or not (moved or (label is not None and lacking))
    ):
        raise InputError(f"'{image}' is in the project already, as the case '{known.id}'.")
    if label is not None and not lacking:
        raise InputError(
            f"'{image}' is in the project already, as the case '{known.id}', which has a label; "
            "leave --label out, and the scan is found again."
        )


def _commit(
    project: Project,
    cases: list[Case],
    label_set: LabelSet,
    updates: Mapping[str, Mapping[str, Any]],
) -> None:
    """Put new cases, and what changes of others (by their ids), into the project as its file is by
    now, and save; take them out again if it cannot be saved.

    Reading many scans takes minutes, in which a training may end and offer its pseudo-labels.
    """
    with project.saved():
        taken = {case.id.casefold() for case in project.cases}
        for case in cases:
            if case.id.casefold() in taken:
                raise InputError(f"A case '{case.id}' was added meanwhile; import once more.")
        for id, update in updates.items():
            case = project.case(id)
            is_labeled = gives_label(update) and not lacks_label(project, case)
            if is_labeled or ("image" in update and not is_missing(project, case)):
                raise InputError(f"The case '{id}' was changed meanwhile; import once more.")
            project.replace(case.model_copy(update=update))
        forget(project, updates)
        project.cases += cases
        if not project.label_set.labels:
            project.label_set = label_set
