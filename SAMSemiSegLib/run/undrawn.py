"""Labels of the label set that nobody has drawn: nothing can learn them, and the table has them."""

from __future__ import annotations

from collections.abc import Sequence

from SAMSemiSegLib.preprocessing.stage import PreparedCase


def undrawn_labels(cases: Sequence[PreparedCase], names: Sequence[str]) -> list[str]:
    """Names of the labels that no labeled case holds, as it is trained on.

    Args:
        cases: all of the run.
        names: of the label set, for the channels 1..C.
    """
    missing = list(range(1, len(names) + 1))
    for case in cases:
        if (labels := case.labels) is not None:
            missing = [channel for channel in missing if not (labels == channel).any()]
    return [names[channel - 1] for channel in missing]


def undrawn_sentence(labels: Sequence[str]) -> str:
    """What the user is told of such labels."""
    listed = ", ".join(f"'{name}'" for name in labels)
    them = "it" if len(labels) == 1 else "them"
    return (
        f"No labeled case holds {listed} at the resolution of the training, so that no network can "
        f"learn {them}; draw {them} in a case, or take {them} out of the label set."
    )
