"""What an import means for each image of its folder: new, known, or known and about to change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.case import Case, matching_stem
from SAMSemiSegLib.project.known_scans import (
    is_missing,
    known_case_finder,
    lacks_label,
    moved_case_finder,
)
from SAMSemiSegLib.project.matching import Found
from SAMSemiSegLib.project.project import Project

Choice = int | Sequence[str] | None
"""A number of cases, or their names."""

Known = dict[str, tuple[Case, Found]]
"""By what their names have in common, the images that the project has, each with its case."""


@dataclass(frozen=True)
class Parts:
    """The images of a folder by what is to be done with them.

    Attributes:
        new: those that the project does not have.
        late: its cases that had no label and get the image's, or whose scan was missing.
        labeled, evaluate: what was asked for, as far as it is about the new ones.
        notes: sentences for the user.
    """

    new: list[Found]
    late: list[tuple[Case, Found]]
    labeled: Choice
    evaluate: Choice
    notes: list[str]


def sort_out(
    project: Project, found: list[Found], labeled: Choice, evaluate: Choice, images: Path
) -> Parts:
    """Tell new images from those that the project has; the arguments are those of
    ``import_cases``.

    Raises:
        InputError: nothing is new or changes, or a case that is named is in the project for
            something else.
    """
    find, find_moved = known_case_finder(project), moved_case_finder(project)
    named = {matching_stem(name) for name in labeled} if isinstance(labeled, Sequence) else set()
    new: list[Found] = []
    late: list[tuple[Case, Found]] = []
    known: Known = {}
    for item in found:
        case = find(item.image) or find_moved(item.image, item.label)
        if case is None:
            new.append(item)
            continue
        stem = matching_stem(item.image.name)
        known[stem] = case, item
        # A label that is kept to score pseudo-labels by was not to be learned from, unless named;
        # one whose file is gone was.
        wanted = stem in named or (labeled is None and case.reference is None)
        wanted = wanted or case.trainable or case.role == "evaluation"
        label = item.label if wanted and lacks_label(project, case) else None
        if label is not None or is_missing(project, case):
            late.append((case, Found(item.image, label)))
    still_labeled = _still_labeled(project, labeled, known)
    still_evaluated = _still_evaluated(evaluate, known)
    # Names that no image has are refused by ``choose``.
    has_names = any(isinstance(c, list) and c for c in (still_labeled, still_evaluated))
    if not (new or late or has_names):
        why = _why_no_label(project, labeled, known)
        raise InputError(f"Every image of '{images}' is in the project already{why}")
    notes: list[str] = []
    labeled_late = sum(item.label is not None for _, item in late)
    moved = sum(is_missing(project, case) for case, _ in late)
    if labeled_late:
        notes.append(
            f"In the project already, and labeled now: {labeled_late} of {len(found)} images."
        )
    if moved:
        notes.append(
            f"In the project already, missing where they were, and found again: {moved} of "
            f"{len(found)} images."
        )
    if left := len(found) - len(new) - len(late):
        notes.append(f"In the project already and left as they are: {left} of {len(found)} images.")
    if not new and isinstance(evaluate, int):
        still_evaluated = None
        notes.append(f"No image is new, so that --evaluate {evaluate} holds none out.")
    if not new and isinstance(labeled, int):
        still_labeled = None
    return Parts(new, late, still_labeled, still_evaluated, notes)


def _still_labeled(project: Project, labeled: Choice, known: Known) -> Choice:
    """Without the names of cases that the project has: they are labeled, or about to be."""
    if not isinstance(labeled, Sequence):
        return labeled
    for case, item in _named(labeled, known):
        if case.role == "evaluation":
            raise InputError(
                f"The case '{case.id}', which --labeled names, is in the project already and only "
                "scores; take it out of --labeled."
            )
        if item.label is None and lacks_label(project, case):
            raise InputError(
                f"There is no label for the case '{case.id}', which --labeled names; add the label "
                "or leave the case out."
            )
    return [name for name in labeled if matching_stem(name) not in known]


def _still_evaluated(evaluate: Choice, known: Known) -> Choice:
    """Without the names of cases that are held out already."""
    if not isinstance(evaluate, Sequence):
        return evaluate
    for case, _ in _named(evaluate, known):
        if case.role == "training":
            raise InputError(
                f"The case '{case.id}', which --evaluate names, is in the project already, for "
                "training; take it out of --evaluate, or mark it 'Score only' in the panel."
            )
    return [name for name in evaluate if matching_stem(name) not in known]


def _named(names: Sequence[str], known: Known) -> list[tuple[Case, Found]]:
    return [known[stem] for name in names if (stem := matching_stem(name)) in known]


def _why_no_label(project: Project, labeled: Choice, known: Known) -> str:
    """Why none of the cases gets a label: the end of a sentence."""
    lacking = [item for case, item in known.values() if lacks_label(project, case)]
    if not lacking:
        return ", and none lacks a label; choose a folder with new images."
    if all(item.label is None for item in lacking):
        return (
            ", and none of them got its first label; choose a folder with new images, or check the "
            "names of the labels."
        )
    if isinstance(labeled, int):
        return (
            f", and --labeled {labeled} counts new images only; leave it out for all labels to "
            "join, or name the cases whose labels are to."
        )
    return "; name the cases whose labels are to join by --labeled."
