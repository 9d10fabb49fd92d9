"""How a run ended, in words for the user: what happened, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from slicer.i18n import tr as _


class End(Enum):
    """The ways a run can end; the numbers of the library's exit codes are in ``END_OF_CODE``."""

    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    USER_ERROR = "user error"
    OUT_OF_MEMORY = "out of memory"
    DISK_FULL = "disk full"
    DIVERGED = "diverged"
    INCOMPLETE = "incomplete"
    KILLED = "killed"
    CRASHED = "crashed"


END_OF_CODE = {
    2: End.USER_ERROR,
    3: End.OUT_OF_MEMORY,
    4: End.DISK_FULL,
    5: End.CANCELLED,
    6: End.DIVERGED,
}
# The system ends a process that takes too much memory by SIGKILL; it cannot say so itself.
RETRY_LOWER = {End.OUT_OF_MEMORY, End.KILLED}


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        end: how it ended.
        code: exit code, None where nobody knows it.
        detail: the library's own sentence, or the last line of its output.
    """

    end: End
    code: int | None = None
    detail: str = ""

    @property
    def canRetryLower(self) -> bool:
        """Whether lower settings may help."""
        return self.end in RETRY_LOWER

    def message(self) -> str:
        """What happened and what to do."""
        sentence = {
            End.SUCCEEDED: _("Finished."),
            End.CANCELLED: _("Stopped. 'Continue' goes on from the last checkpoint."),
            End.USER_ERROR: _("The run could not start."),
            End.OUT_OF_MEMORY: _(
                "There was not enough memory. 'Retry with less memory' starts again with smaller "
                "batches and canvases; closing other programs helps too."
            ),
            End.DISK_FULL: _("The disk is full. Free some space, then click 'Continue'."),
            End.DIVERGED: _(
                "The training went astray (its loss is no longer a number). Start again with a "
                "lower learning rate, or with another preset."
            ),
            End.INCOMPLETE: _(
                "The run ended without a complete result. 'Continue' makes what is missing."
            ),
            End.KILLED: _(
                "The run was ended from outside, perhaps because the machine ran out of memory. "
                "'Continue' goes on from the last checkpoint; 'Retry with less memory' starts "
                "again with smaller batches and canvases."
            ),
            End.CRASHED: _(
                "The run ended by an error of the program. The log tells more; 'Continue' tries "
                "again from the last checkpoint."
            ),
        }[self.end]
        return f"{sentence} {self.detail}".strip() if self.end is not End.SUCCEEDED else sentence

    def messageBeforeBegin(self) -> str:
        """The same of a run that has left nothing to go on from."""
        if self.end in (End.USER_ERROR, End.OUT_OF_MEMORY):
            return self.message()
        sentence = {
            End.CANCELLED: _("Stopped before the training began."),
            End.DISK_FULL: _("The disk is full. Free some space, then click 'Train' again."),
        }.get(self.end, _("The run ended before the training began. Click 'Train' to try again."))
        return f"{sentence} {self.detail}".strip()


def outcomeOf(code: int | None, isComplete: bool, lastLine: str = "") -> Outcome:
    """The outcome of a process by its exit code and whether its result is all there.

    Args:
        code: exit code; negative is the number of a signal; None: nobody saw it.
        isComplete: whether the result's manifest is present.
        lastLine: the last line that the process wrote.
    """
    if code == 0 or (code is None and isComplete):
        return Outcome(End.SUCCEEDED if isComplete else End.INCOMPLETE, code)
    if code is None or code < 0 or code in (128 + 9, 128 + 15):
        return Outcome(End.KILLED, code)
    end = END_OF_CODE.get(code, End.CRASHED)
    detail = lastLine if end in (End.USER_ERROR, End.DIVERGED, End.CRASHED) else ""
    return Outcome(end, code, detail)
