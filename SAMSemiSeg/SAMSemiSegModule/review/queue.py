"""Which pseudo-label comes next: the one that the model is least sure of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slicer.i18n import tr as _


def waitingCases(cases: Sequence[Any]) -> list[Any]:
    """Cases with a pseudo-label to review, the least certain first; one without a score leads."""
    waiting = [case for case in cases if case.status == "pseudo"]
    return sorted(waiting, key=lambda c: (-1.0 if c.confidence is None else c.confidence, c.id))


def neighbor(waiting: Sequence[Any], caseId: str, step: int) -> str | None:
    """The id ``step`` places on in the queue, None at its ends; the first where ``caseId`` is not
    in it."""
    ids = [case.id for case in waiting]
    if caseId not in ids:
        return ids[0] if ids else None
    place = ids.index(caseId) + step
    return ids[place] if 0 <= place < len(ids) else None


def reason(case: Any, waiting: Sequence[Any]) -> str:
    """Why this case is shown, in a sentence."""
    if case.status != "pseudo":
        return _("This case has no pseudo-label to review.")
    if case.confidence is None:
        return _("No confidence is known of this pseudo-label.")
    place = [other.id for other in waiting].index(case.id) + 1
    return _(
        "Confidence {confidence:.2f}: number {place} of {count} from the least certain."
    ).format(confidence=case.confidence, place=place, count=len(waiting))
