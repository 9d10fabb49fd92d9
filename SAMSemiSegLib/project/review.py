"""What a person decides about pseudo-labels, and how to take it back.

Every function saves the project but where it says otherwise.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from SAMSemiSegLib.atomic import replacing
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.case import Case
from SAMSemiSegLib.project.project import Decision, Project

MOST_DECISIONS = 1000
"""Older ones can no longer be undone."""


def offer(
    project: Project, case_id: str, label: Path, confidence: float | None, save: bool = True
) -> bool:
    """Give a case a pseudo-label to be reviewed.

    Args:
        save: ``False`` while offering many, within one :meth:`Project.saved`.

    Returns:
        Whether it was taken: a label that a person drew, corrected or accepted is kept.
    """
    if save:
        with project.saved():
            return offer(project, case_id, label, confidence, save=False)
    case = project.case(case_id)
    if case.trainable or case.role == "evaluation":
        return False
    project.replace(
        case.model_copy(
            update={
                "label": project.stored(label),
                "origin": "pseudo",
                "status": "pseudo",
                "confidence": None if confidence is None else min(max(float(confidence), 0), 1),
            }
        )
    )
    # To undo what was decided about an earlier one would put that in its place.
    forget(project, [case_id])
    return True


def forget(project: Project, case_ids: Collection[str]) -> None:
    """Decisions on these cases can no longer be undone: something else has changed the cases since.
    Does not save."""
    project.history[:] = [d for d in project.history if d.before.id not in case_ids]


def accept(project: Project, case_id: str) -> Case:
    """Take the pseudo-label as it is: it trains like an expert's from now on, and is copied into
    the project's labels, for its run may be deleted.

    Raises:
        InputError: the case has no pseudo-label, or it is gone with its run.
    """
    case = project.case(case_id)
    if case.label is None or case.origin != "pseudo":
        raise InputError(f"The case '{case_id}' has no pseudo-label to accept; train first.")
    label = project.path(case.label)
    if not label.is_file():
        raise InputError(
            f"The pseudo-label of the case '{case_id}' is gone with its run; train again for a new "
            "one."
        )
    return _decide_with_copy(project, "accept", case, {"status": "accepted"}, label)


def correct(project: Project, case_id: str, label: Path) -> Case:
    """Replace the label by a corrected one, which is checked, then copied into the project unless
    it lies there.

    Raises:
        InputError: the label does not fit the image or the label set.
    """
    from SAMSemiSegLib.volumes.reading import read_image_geometry, read_labels

    case = project.case(case_id)
    labels = project.label_set
    grid = read_image_geometry(project.path(case.image))
    _, note = read_labels(label, labels.values, grid, labels.names)
    update = {"origin": "corrected", "status": "corrected", "confidence": None, "note": note}
    if Path(stored := project.stored(label)).is_absolute():
        return _decide_with_copy(project, "correct", case, update, label)
    return _decide(project, "correct", case, {**update, "label": stored})


def reject(project: Project, case_id: str) -> Case:
    """Throw the pseudo-label away: the case is unlabeled again. Its file stays, for undo.

    Raises:
        InputError: the case has no pseudo-label.
    """
    case = project.case(case_id)
    if case.label is None or case.origin != "pseudo":
        raise InputError(f"The case '{case_id}' has no pseudo-label to reject.")
    update = {"label": None, "origin": "none", "status": "rejected", "confidence": None}
    return _decide(project, "reject", case, update)


def undo(project: Project) -> Case:
    """Take back the latest decision, also one made before the project was last opened.

    Returns:
        The case as it is again.

    Raises:
        InputError: nothing was decided.
    """
    with project.saved():
        while project.history:
            decision = project.history.pop()
            if any(case.id == decision.before.id for case in project.cases):
                project.replace(decision.before)
                return decision.before
        raise InputError(f"There is no decision to undo in the project '{project.name}'.")


def next_case(project: Project) -> tuple[Case, str] | None:
    """The pseudo-label to look at next, and why; ``None`` when all are reviewed."""
    waiting = [case for case in project.cases if _waits(project, case)]
    if not waiting:
        return None
    # One without a score comes first: nothing speaks for it.
    case = min(waiting, key=lambda c: (-1.0 if c.confidence is None else c.confidence, c.id))
    left = f"{len(waiting)} left to review" if len(waiting) > 1 else "the last one to review"
    if case.confidence is None:
        return case, f"'{case.id}' has no confidence yet ({left})."
    return case, f"'{case.id}' has the lowest confidence, {case.confidence:.3f} ({left})."


def _waits(project: Project, case: Case) -> bool:
    """Whether there is a pseudo-label to review: one whose run was deleted can be seen no more, and
    its case is as good as unlabeled."""
    return case.status == "pseudo" and case.label is not None and project.path(case.label).is_file()


def _decide(
    project: Project,
    action: Literal["accept", "correct", "reject"],
    case: Case,
    update: Mapping[str, str | float | None],
) -> Case:
    changed = case.model_copy(update=update)
    with project.saved():
        if project.case(case.id) != case:
            raise InputError(f"'{case.id}' was changed meanwhile; look at it, then decide.")
        project.history.append(Decision(action=action, before=case))
        del project.history[:-MOST_DECISIONS]
        project.replace(changed)
    return changed


def _decide_with_copy(
    project: Project,
    action: Literal["accept", "correct"],
    case: Case,
    update: Mapping[str, str | float | None],
    label: Path,
) -> Case:
    """Decide for a copy of the label in the project, under a name that no file had: what an undo
    leaves behind is no other decision's."""
    from SAMSemiSegLib.volumes.formats import suffix_of

    number = 1
    while True:
        name = f"{case.id}-{update['status']}-{number}{suffix_of(label)}"
        if not (copy := project.folder / "labels" / name).exists():
            break
        number += 1
    with replacing(copy) as temporary:
        shutil.copyfile(label, temporary)
    try:
        return _decide(project, action, case, {**update, "label": project.stored(copy)})
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
