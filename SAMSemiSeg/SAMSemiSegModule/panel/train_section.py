"""Section 3: training, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from SAMSemiSegModule.panel.catalog import Catalog
from SAMSemiSegModule.panel.curves import Curves
from SAMSemiSegModule.panel.drawing import mayTrain
from SAMSemiSegModule.panel.section import Choice, Section
from SAMSemiSegModule.process.arguments import (
    chosenSettings,
    resumeArguments,
    runSettings,
    trainArguments,
    warmStartMinutes,
)
from SAMSemiSegModule.process.lower import lowerStill
from SAMSemiSegModule.process.outcome import End, Outcome
from SAMSemiSegModule.process.progress import RunProgress, inWords
from SAMSemiSegModule.process.query import NoAnswer
from SAMSemiSegModule.review.queue import waitingCases
from SAMSemiSegModule.runs import startedWith, stoppedRun

POLL_MILLISECONDS = 200
# Of a flood of output only the end is shown; the log file in the run's folder has it all.
MOST_TEXT = 8000
# Drawing the curves costs most of a poll; once a second is live enough.
POLLS_PER_PLOT = 5


class TrainSection(Section):
    """Choices, Train / Cancel / Continue, progress, curves, log."""

    uiFile = "Train.ui"

    def setup(self) -> None:
        ui = self.ui
        self.progress = RunProgress()
        self.outcome: Outcome | None = None
        self._run: Path | None = None
        self._catalog = Catalog(self.services.ask)
        self._polls = 0
        self.curves = Curves(ui.plotWidget)
        self._choices = {
            "preset": Choice(ui.presetBox, self._setter("preset")),
            "foundation": Choice(ui.foundationBox, self._setter("foundation")),
            "strategy": Choice(ui.strategyBox, self._setter("strategy")),
            "method": Choice(ui.methodBox, self._setter("method")),
            "device": Choice(ui.deviceBox, self._setter("device")),
        }
        self.onClick(ui.trainButton, self.train)
        self.onClick(ui.cancelButton, self.cancel)
        self.onClick(ui.continueButton, self.resume)
        self.onClick(ui.retryButton, self.retryLower)
        self.onClick(ui.copyLogButton, self._copyLog)
        self.onClick(ui.removeWeightsButton, self._removeWeights)
        ui.extraSettingsEdit.editingFinished.connect(self._showWeights)
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MILLISECONDS
        self._timer.timeout.connect(self._poll)
        self._timer.start()

    def isValid(self) -> tuple[bool, str]:
        if self.runner.isRunning():
            return True, ""
        isValid, reason = self.store.isValid()
        if not isValid:
            return False, reason
        labeled = self.store.counts()[0]
        if not self.store.labels:
            return False, _("Say in 'Labels' what is to be segmented.")
        if not labeled:
            return False, _("Label at least one case, or add one with its segmentation.")
        return True, ""

    @property
    def runner(self):
        return self.services.trainer

    def enter(self) -> None:
        """Ask the library what it offers, the first time that all is installed."""
        if self.services.installer.isValid()[0]:
            self._catalog.request("methods", "weights")
            self._catalog.request("doctor", again=True)  # free memory changes

    def update(self) -> None:
        ui, parameters, catalog = self.ui, self.parameters, self._catalog
        self._choices["preset"].fill(catalog.presets(), parameters.preset)
        self._choices["foundation"].fill(catalog.foundations(), parameters.foundation)
        self._choices["strategy"].fill(catalog.strategies(), parameters.strategy)
        self._choices["method"].fill(catalog.methods(), parameters.method)
        self._choices["device"].fill(catalog.devices(), parameters.device)
        self._showWeights()
        labeled, unlabeled, _scored = self.store.counts()
        ui.countsLabel.text = (
            _("{labeled} labeled and {unlabeled} unlabeled cases").format(
                labeled=labeled, unlabeled=unlabeled
            )
            if unlabeled or not labeled
            else _(
                "{labeled} labeled cases; without unlabeled ones the training is supervised only"
            ).format(labeled=labeled)
        )
        running = self.runner.isRunning()
        ui.settingsBody.enabled = not running
        ui.trainButton.enabled = not running
        ui.cancelButton.enabled = running
        self._showStoppedRun()
        hasEnded = self.outcome is not None and self._isOfProject()
        ui.retryButton.visible = hasEnded and self.outcome.canRetryLower
        ui.progressBody.visible = running or hasEnded

    def train(self) -> None:
        """Start a new run."""
        if mayTrain(self.services):
            self._start(self.parameters, self._settings(), self.parameters.device)

    def retryLower(self) -> None:
        """Start again with settings that need less memory than those of the run that has ended,
        whatever is chosen in the panel by now."""
        chosen, settings = startedWith(self._run) or (self.parameters, self._settings())
        self._start(chosen, *lowerStill(settings, chosen.device))

    def resume(self) -> None:
        """Go on with the run that was stopped."""
        run = self._stoppedRun()
        if run is None:
            raise ValueError(_("There is no run to continue; click 'Train'."))
        self._begin(run)
        self.runner.start(resumeArguments(self.store.folder, run.name), run)
        self.services.changed()

    def cancel(self) -> None:
        """Ask the run to stop; it can be continued."""
        self.runner.cancel()
        self.ui.stageLabel.text = _("Stopping ...")
        self.ui.cancelButton.enabled = False

    def reconnect(self) -> None:
        """Follow a run of this project that went on without Slicer."""
        if self.runner.isRunning() or self.store.folder is None:
            return
        for run in self.store.runs():
            if self.runner.attach(run):
                self._begin(run)
                self.services.tell(
                    _("The run '{name}' is still at work; it is followed again.").format(
                        name=run.name
                    )
                )
                return

    def endWithSlicer(self) -> None:
        """Slicer closes: stop the run or let it go on, as the user says."""
        self._catalog.end()
        if self.runner.isRunning():
            if self.services.dialogs.goOnAfterSlicer():
                self.runner.letGoOn()
            else:
                self.runner.stopNow()

    def cleanup(self) -> None:
        """The panel is taken down: a run goes on, and the next panel finds it again."""
        self._timer.stop()
        self._catalog.end()
        self.curves.forget()
        self.runner.letGoOn()

    def _setter(self, name: str) -> Any:
        def changed(value: str) -> None:
            if self.parameters is not None:
                setattr(self.parameters, name, value)
                self._showWeights()

        return changed

    def _settings(self) -> dict[str, str]:
        """What is set on top of the preset; a strategy that is guided by a V-Net gets one, also
        where the preset trains none before."""
        chosen = chosenSettings(self.parameters)
        settings = runSettings(self.parameters, chosen)
        isGuided = self._catalog.isGuided(settings.finetuning.strategy)
        if isGuided and settings.retraining.warm_start is None:
            chosen["retraining.warm_start.minutes"] = warmStartMinutes()
        return chosen

    def _foundation(self) -> tuple[str, bool]:
        """The foundation model of the next run, and whether its file is named in the settings."""
        from SAMSemiSegLib.errors import UserError

        try:
            settings = runSettings(self.parameters, self._settings())
        except (UserError, ValueError):  # told when the training is started
            return "", False
        return self._catalog.foundation(settings), settings.foundation.weights is not None

    def _showWeights(self) -> None:
        if self.parameters is not None:
            self.ui.weightsLabel.text = self._catalog.weightsSentence(*self._foundation())

    def _start(self, chosen: Any, settings: dict[str, str], device: str) -> None:
        name = self.store.newRunName()
        arguments = trainArguments(self.store.folder, name, chosen, settings, device)
        run = self.store.runFolder(name)
        self._begin(run)
        self.runner.start(arguments, run)
        self.services.changed()

    def _begin(self, run: Path) -> None:
        self._run = run
        self.outcome = None
        self.progress = RunProgress()
        self.ui.logBox.clear()
        self.ui.stageLabel.text = _("Starting ...")
        self.ui.stageBar.value = 0
        self.ui.totalBar.value = 0
        self.ui.totalLabel.text = ""
        self._showBars(True)
        self.curves.forget()  # they are of another run

    def _stoppedRun(self) -> Path | None:
        """The run that can be continued. The folder says so, not the scene: it can be continued
        from any scene, also after Slicer was closed."""
        return None if self.runner.isRunning() else stoppedRun(self.store.runs())

    def _showStoppedRun(self) -> None:
        button, stopped = self.ui.continueButton, self._stoppedRun()
        button.enabled = stopped is not None
        button.text = _("Continue")
        if stopped is None:
            return
        tip = _("Go on with '{run}' from its last checkpoint.").format(run=stopped.name)
        latest = self.store.runs()[0]
        if latest != stopped:
            button.text = _("Continue earlier run")  # its name, in the tooltip, may be long
            tip += " " + _(
                "It was begun before '{latest}': once it is finished, 'Review' has its "
                "segmentations of all cases that you have not accepted or corrected, in place of "
                "those of '{latest}', and 'Model' its network."
            ).format(latest=latest.name)
        button.toolTip = tip

    def _poll(self) -> None:
        try:
            if self._catalog.poll() and self.parameters is not None:
                self.update()
        except NoAnswer as error:
            self.services.tell(str(error))
        update = self.runner.poll()
        if update.text:
            self.ui.logBox.appendPlainText(update.text[-MOST_TEXT:].rstrip("\n"))
        for event in update.events:
            self.progress.take(event)
        if update.events:
            self._showProgress()
        self._polls += 1
        if self.progress.curves and (self._polls % POLLS_PER_PLOT == 0 or update.outcome):
            self.curves.show(self.progress)
        if update.outcome is not None:
            self._finish(update.outcome)

    def _showProgress(self) -> None:
        ui, progress = self.ui, self.progress
        left = inWords(progress.stageSecondsLeft)
        ui.stageLabel.text = f"{progress.stageTitle()}: {left}"
        ui.stageBar.value = round(100 * progress.stageFraction)
        ui.totalLabel.text = _("Whole run: {left}").format(left=inWords(progress.secondsLeft))
        ui.totalBar.value = round(100 * progress.fraction)

    def _showBars(self, visible: bool) -> None:
        for widget in (self.ui.stageBar, self.ui.totalBar, self.ui.totalLabel):
            widget.visible = visible

    def _isOfProject(self) -> bool:
        """Whether the latest run is of the open project: another may have been opened meanwhile."""
        folder = self.store.folder
        return folder is not None and self._run is not None and folder in self._run.parents

    def _finish(self, outcome: Outcome) -> None:
        self.outcome = outcome
        hasBegun = (self._run / "config.json").is_file()
        words = outcome.message() if hasBegun else outcome.messageBeforeBegin()
        self.ui.stageLabel.text = words
        self._showBars(False)
        with self.services.errorsShown(clear=False):
            self.store.refresh()
            if not self._isOfProject():
                project = self._run.parent.parent.name
                self.services.tell(
                    _("The training of the project '{project}' has ended. {words}").format(
                        project=project, words=words
                    )
                )
            elif outcome.end is End.SUCCEEDED:
                self.ui.stageLabel.text = " ".join([words, *self._whatNext()])
            # A run that went on from a checkpoint may say a thing twice.
            if warnings := dict.fromkeys(self.progress.warnings):
                self.services.tell("\n".join(warnings))
        if self.parameters is None or self._catalog.hasToDownload(self._foundation()[0]):
            self._catalog.request("weights", again=True)
        self.services.changed()

    def _whatNext(self) -> list[str]:
        """How good the network of a finished run is, where that is known, and where to go."""
        sentences = []
        if self.progress.scores:
            dice = list(self.progress.scores.values())[-1]
            sentences.append(_("Dice {dice:.2f} on the 'Score only' cases.").format(dice=dice))
        waiting = len(waitingCases(self.store.cases))
        sentences.append(
            _("{count} of its segmentations wait in 'Review'.").format(count=waiting)
            if waiting
            else _("Its network is in 'Model'.")
        )
        return sentences

    def _copyLog(self) -> None:
        slicer.app.clipboard().setText(self.ui.logBox.plainText)

    def _removeWeights(self) -> None:
        question = _("Remove all downloaded weights from this machine? They can be fetched again.")
        if self.services.dialogs.confirm(question):
            from SAMSemiSegLib.foundation import cache

            removed = len(cache.remove_all())
            self.services.tell(_("{count} weights removed.").format(count=removed))
            self._catalog.request("weights", again=True)
