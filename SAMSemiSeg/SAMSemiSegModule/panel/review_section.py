"""Section 4: looking through the pseudo-labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from SAMSemiSegModule.panel.drawing import checkInScene, mayLeave, saveDrawing
from SAMSemiSegModule.panel.section import Section
from SAMSemiSegModule.panel.showing import showCase
from SAMSemiSegModule.review.queue import neighbor, reason, waitingCases
from SAMSemiSegModule.scene.case_view import FILE, isUnsaved
from SAMSemiSegModule.scene.content import segmentCount
from SAMSemiSegModule.scene.views import showVolume

SHORTCUTS = {
    "acceptButton": "Ctrl+Shift+A",
    "correctButton": "Ctrl+Shift+C",
    "rejectButton": "Ctrl+Shift+R",
    "previousButton": "Ctrl+Shift+Left",
    "nextButton": "Ctrl+Shift+Right",
    "undoButton": "Ctrl+Shift+Z",
}


class ReviewSection(Section):
    """Accept, correct, reject, undo; the least certain case first."""

    uiFile = "Review.ui"

    def setup(self) -> None:
        ui = self.ui
        self.editCase: Callable[[], None] = lambda: None
        self.trainAgain: Callable[[], None] = lambda: None
        actions = {
            "acceptButton": self.accept,
            "correctButton": self.correct,
            "rejectButton": self.reject,
            "previousButton": self.previous,
            "nextButton": self.next,
            "undoButton": self.undo,
        }
        self._reviewed = ""
        self._shortcuts = []
        for name, action in actions.items():
            button = getattr(ui, name)
            self.onClick(button, action)
            button.toolTip = f"{button.toolTip} ({SHORTCUTS[name]})"
            self._shortcuts.append(self._shortcut(name, button))
        self.onClick(ui.editButton, self._edit)
        self.onClick(ui.trainAgainButton, self._trainAgain)
        ui.opacitySlider.valueChanged.connect(self._onOpacity)

    def isValid(self) -> tuple[bool, str]:
        isValid, why = self.store.isValid()
        if not isValid:
            return False, why
        touched = any(c.status in ("pseudo", "accepted", "rejected") for c in self.store.cases)
        if not touched and not self.store.decisions:
            return False, _("Train first: then the unlabeled cases can be reviewed here.")
        return True, ""

    def update(self) -> None:
        ui = self.ui
        waiting = waitingCases(self.store.cases)
        case = self.store.case(self.parameters.caseId)
        isWaiting = case is not None and case.status == "pseudo"
        hasInput = self.isValid()[0]
        ui.leftLabel.visible = ui.caseLabel.visible = ui.whyLabel.visible = hasInput
        ui.leftLabel.text = (
            _("{count} left to review").format(count=len(waiting))
            if waiting
            else _("All pseudo-labels are reviewed.")
        )
        if isWaiting:
            ui.caseLabel.text = case.id
            ui.whyLabel.text = " ".join((reason(case, waiting), self._whyNotAccepted(case))).strip()
        elif waiting:
            ui.caseLabel.text = ""
            ui.whyLabel.text = _("Click 'Next' to see the case that the model is least sure of.")
        else:
            ui.caseLabel.text = ""
            ui.whyLabel.text = self._whatNext()
        for button in (ui.rejectButton, ui.editButton):
            button.enabled = isWaiting
        hasDrawing = self.parameters.caseSegmentation is not None
        ui.correctButton.enabled = isWaiting and (hasDrawing or not self.store.hasLostLabel(case))
        # An empty label teaches nothing, and no training would start with it.
        ui.acceptButton.enabled = isWaiting and not self._whyNotAccepted(case)
        ui.nextButton.enabled = bool(waiting)
        ui.previousButton.enabled = isWaiting and neighbor(waiting, case.id, -1) is not None
        ui.undoButton.enabled = self.store.decisions > 0
        isTraining = self.services.trainer.isRunning()
        ui.trainAgainButton.enabled = self._hasReviewed() and not isTraining

    def setShortcutsEnabled(self, enabled: bool) -> None:
        """Shortcuts work while the module is on screen only."""
        for shortcut in self._shortcuts:
            shortcut.enabled = enabled

    def next(self) -> None:
        """Show the next case of the queue, from its start where the case on screen came there by
        another way."""
        waiting = waitingCases(self.store.cases)
        isInQueue = self.parameters.caseId == self._reviewed
        following = neighbor(waiting, self.parameters.caseId if isInQueue else "", 1)
        if following is None and waiting:
            following = waiting[0].id
        self._show(following)

    def previous(self) -> None:
        """Show the case before."""
        self._show(neighbor(waitingCases(self.store.cases), self.parameters.caseId, -1))

    def accept(self) -> None:
        """The pseudo-label is right: it trains like an expert's from now on."""
        question = _(
            "You have drawn on the pseudo-label of '{case}'. 'Save' makes it your correction, "
            "'Discard' accepts the pseudo-label as it was."
        )
        if self._isPseudoLabelMeant(question):
            self._decide(self.store.accept)

    def reject(self) -> None:
        """The pseudo-label is wrong: the case is unlabeled again."""
        question = _(
            "You have drawn on the pseudo-label of '{case}'. 'Save' makes it your correction, "
            "'Discard' throws it away with the pseudo-label."
        )
        if self._isPseudoLabelMeant(question):
            self._decide(self.store.reject)

    def correct(self) -> None:
        """What is on screen, corrected in the editor, becomes the label."""
        self._decide(lambda caseId: saveDrawing(self.services))

    def undo(self) -> None:
        """Take the latest decision back and show its case again."""
        case = self.store.undo()
        self._show(case.id)

    def cleanup(self) -> None:
        self.setShortcutsEnabled(False)

    def _isPseudoLabelMeant(self, question: str) -> bool:
        """Whether to decide about the pseudo-label on screen as the model made it: what was drawn
        on it would make it a correction, and one that came meanwhile was seen by nobody."""
        parameters = self.parameters
        if not self._isLost():
            checkInScene(parameters, parameters.caseSegmentation)
        if isUnsaved(parameters.caseSegmentation):
            answer = self.services.dialogs.saveDrawing(question.format(case=parameters.caseId))
            if answer:
                self.correct()
            if answer is not False:
                return False
        self.store.refresh()
        case, shown = self.store.case(parameters.caseId), parameters.caseSegmentation
        isSeen = (
            case is None
            or self._isLost()
            or (shown is not None and shown.GetAttribute(FILE) == str(self.store.labelPath(case)))
        )
        if not isSeen:
            self.services.view.leave(parameters)
            self._show(case.id)
            self.services.tell(
                _(
                    "'{case}' was changed meanwhile, for example by a training. Its label of now "
                    "is on screen; look at it, then decide."
                ).format(case=case.id)
            )
        return isSeen

    def _isLost(self) -> bool:
        """Whether the pseudo-label of the case on screen is gone, so that there is none to see."""
        case = self.store.case(self.parameters.caseId)
        return case is not None and self.store.hasLostLabel(case)

    def _decide(self, decide: Callable[[str], bool | None]) -> None:
        caseId = self.parameters.caseId
        waiting = waitingCases(self.store.cases)
        if caseId not in [case.id for case in waiting]:
            raise ValueError(_("This case has no pseudo-label to review; click 'Next'."))
        if decide(caseId) is False:
            return
        # Its drawing is decided about too: the next case comes without a question.
        self.services.view.leave(self.parameters)
        following = neighbor(waiting, caseId, 1) or neighbor(waiting, caseId, -1)
        if following is None:
            self.services.changed()
        else:
            self._show(following)

    def _show(self, caseId: str | None) -> None:
        if caseId is None:
            return
        try:
            if mayLeave(self.services, caseId):
                self._reviewed = caseId
                showCase(self.services, self.store.case(caseId))
        finally:
            self.services.changed()

    def _hasReviewed(self) -> bool:
        """Whether the review gave labels to train on."""
        return any(case.status in ("accepted", "corrected") for case in self.store.cases)

    def _whatNext(self) -> str:
        """What can be done where nothing waits."""
        if self.services.trainer.isRunning():
            return _("A training is under way; what it makes of the unlabeled cases comes here.")
        if self._hasReviewed():
            return _("Train again with your corrections, or go on to 'Model' to use the result.")
        return _(
            "You have kept none of them: label some of the cases in 'Labels', then train again in "
            "'Train'."
        )

    def _whyNotAccepted(self, case: Any) -> str:
        """Why the pseudo-label on screen cannot be accepted, "" where it can."""
        segmentation = self.parameters.caseSegmentation
        if self.store.hasLostLabel(case):
            return _("Its file is gone: reject it, or click 'Edit', draw it and click 'Correct'.")
        if segmentation is None:  # it came while the case was on screen, or was deleted there
            return _("The pseudo-label is not on screen; double-click the case in 'Project'.")
        if segmentCount(segmentation):
            return ""
        return _("The pseudo-label is empty: reject it, or draw it and click 'Correct'.")

    def _edit(self) -> None:
        self.editCase()

    def _trainAgain(self) -> None:
        self.trainAgain()

    def _onOpacity(self, value: float) -> None:
        parameters = self.parameters
        if parameters is not None and parameters.caseUncertainty is not None:
            showVolume(parameters.caseVolume, parameters.caseUncertainty, value, fit=False)

    def _shortcut(self, name: str, button: Any) -> Any:
        shortcut = qt.QShortcut(qt.QKeySequence(SHORTCUTS[name]), self.widget)
        shortcut.setContext(qt.Qt.ApplicationShortcut)
        shortcut.activated.connect(button.click)
        shortcut.enabled = False
        return shortcut
