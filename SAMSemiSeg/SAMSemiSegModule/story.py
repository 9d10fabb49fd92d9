"""The whole story through the panel's own buttons, for tests: inside Slicer and on the host.

New project, six cases of which two are labeled, train, cancel, continue, review, correct one,
train again, apply, export.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import slicer

from SAMSemiSegModule.panel.dialogs import GoOn
from SAMSemiSegModule.pauses import Pauses
from SAMSemiSegModule.process.outcome import End
from SAMSemiSegModule.scene.segmentations import createSegmentation

CASES, LABELED = 6, 2
LABELS = (("anterior", 1, (230, 97, 76)), ("posterior", 2, (78, 162, 206)))
# A few steps only: the story is about the panel, not about the result.
SETTINGS = "finetuning.budget.steps=20 retraining.budget.steps=8"


class Label:
    """An entry of the label set before there is a project."""

    def __init__(self, name: str, value: int, color: tuple[int, int, int]) -> None:
        self.name, self.value, self.color = name, value, color


class StoryDialogs:
    """Answers all questions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[Path] = []

    def pickFolder(self, title: str) -> Path | None:
        return self.folder

    def pickFiles(self, title: str, kinds: str) -> list[Path]:
        return self.files

    def pickColor(self, color: tuple[int, int, int]) -> tuple[int, int, int] | None:
        return color

    def confirm(self, question: str) -> bool:
        return True

    def saveDrawing(self, question: str) -> bool | None:
        return True

    def goOnAfterSlicer(self) -> bool:
        return False

    @contextmanager
    def progress(self, title: str) -> Iterator[GoOn]:
        yield lambda done, count, name: True


class Story:
    """One user at the panel.

    Args:
        panel: of the module's widget.
        data: folder with ``images``, ``labels`` and ``train.list``.
        folder: an empty one for the project.
        note: told after each chapter, for screenshots and logs.

    ``pauses`` are those of the panel while a training runs.
    """

    def __init__(
        self, panel: Any, data: Path, folder: Path, note: Callable[[str], None] = lambda name: None
    ) -> None:
        self.panel = panel
        self.data = data
        self.note = note
        self.preset = "tiny"
        self.settings = SETTINGS
        self.clicks = 0
        self.pauses = Pauses()
        self.dialogs = StoryDialogs(folder)
        panel.services.dialogs = self.dialogs

    def run(self) -> None:
        """All chapters."""
        self.loadScans()
        self.createProject()
        self.train()
        self.cancelAndContinue()
        self.review()
        self.trainAgain()
        self.apply()
        self.export()

    def loadScans(self) -> None:
        """Six volumes in the scene, two of them segmented."""
        names = (self.data / "train.list").read_text(encoding="utf-8").split()[:CASES]
        for number, name in enumerate(names):
            volume = slicer.util.loadVolume(str(self.data / "images" / f"{name}.nii.gz"))
            if number < LABELED:
                self._segment(volume, self.data / "labels" / f"{name}.nii.gz")
        self.note("scans")

    def createProject(self) -> None:
        """From the loaded scans to a project, in two clicks."""
        ui = self.panel.project.ui
        self.click(ui.newProjectButton)
        self.note("new project")
        self.click(ui.addSceneButton)
        store = self.panel.services.store
        assert store.counts() == (LABELED, CASES - LABELED, 0), store.counts()
        assert [label.name for label in store.labels] == [name for name, _, _ in LABELS]
        self.wait(lambda: False, 1.0, mustHappen=False)
        self.note("cases")

    def train(self) -> None:
        """To a running training; at most eight clicks since the scans were loaded."""
        parameters = self.panel.services.parameters
        parameters.preset = self.preset
        parameters.extraSettings = self.settings
        self.panel.refresh()
        self.panel.ui.trainingButton.collapsed = False
        self.click(self.panel.train.ui.trainButton)
        assert self.panel.services.trainer.isRunning()
        assert self.clicks <= 8, f"{self.clicks} clicks to a running training"

    def cancelAndContinue(self) -> None:
        """Stop in the middle, then go on to the end."""
        train = self.panel.train
        self.wait(
            lambda: train.progress.stage == "finetuning" and train.progress.stageFraction > 0.2
        )
        self._lookAround()
        self.note("training")
        self.click(train.ui.cancelButton)
        began = time.monotonic()
        self.wait(lambda: train.outcome is not None)
        assert train.outcome.end is End.CANCELLED, train.outcome
        assert time.monotonic() - began < 5.5, "cancelling took more than five seconds"
        self.note("cancelled")
        self.click(train.ui.continueButton)
        self.finishTraining()
        said = train.ui.stageLabel.text
        assert said.endswith(f"{CASES - LABELED} of its segmentations wait in 'Review'."), said
        self.note("trained")

    def review(self) -> None:
        """Accept, take back, reject and correct."""
        panel, store = self.panel, self.panel.services.store
        panel.ui.reviewButton.collapsed = False
        ui = panel.review.ui
        self.click(ui.nextButton)
        first = panel.services.parameters.caseId
        assert store.case(first).confidence == min(
            case.confidence for case in store.cases if case.status == "pseudo"
        )
        self.note("review")
        self.click(ui.acceptButton)
        assert store.case(first).status == "accepted"
        self.click(ui.undoButton)
        assert store.case(first).status == "pseudo"
        assert panel.services.parameters.caseId == first
        self.click(ui.rejectButton)
        assert store.case(first).status == "rejected"
        corrected = panel.services.parameters.caseId
        self.click(ui.editButton)
        self._paint()
        self.note("correct")
        self.click(ui.correctButton)
        assert store.case(corrected).status == "corrected", panel.ui.messageLabel.text
        assert store.counts()[0] == LABELED + 1

    def trainAgain(self) -> None:
        """A second run, on the corrected label too."""
        self.click(self.panel.review.ui.trainAgainButton)
        self.finishTraining()
        assert len(self.panel.services.store.runs()) == 2
        self.note("trained again")

    def apply(self) -> None:
        """The model on a volume of the scene, in the background."""
        ui = self.panel.model.ui
        self.panel.ui.modelButton.collapsed = False
        count = len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"))
        volume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
        ui.applyVolumeSelector.setCurrentNode(volume)
        self.click(ui.applyButton)
        self.wait(lambda: not self.panel.services.predictor.isRunning())
        assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == count + 1, (
            ui.applyStatusLabel.text
        )
        self.note("applied")

    def export(self) -> None:
        """Each form of the model lands in the chosen folder."""
        ui = self.panel.model.ui
        for index in range(ui.formatBox.count):
            ui.formatBox.setCurrentIndex(index)
            self.click(ui.exportButton)
            assert "The model is at" in self.panel.ui.messageLabel.text
        assert len(list(self.dialogs.folder.glob("*-run-2*"))) == ui.formatBox.count
        self.note("exported")

    def finishTraining(self, seconds: float = 300.0) -> None:
        """Wait for the end of the run, which must be a good one."""
        train = self.panel.train
        assert self.panel.services.trainer.isRunning(), self.panel.ui.messageLabel.text
        self.wait(lambda: train.outcome is not None, seconds)
        assert train.outcome.end is End.SUCCEEDED, (train.outcome, train.ui.logBox.plainText)

    def click(self, button: Any) -> None:
        """A user's click; a button that is grey cannot be clicked."""
        assert button.enabled, f"the button '{button.text}' is grey: {self._reasons()}"
        self.clicks += 1
        with self._measured(button.text):
            button.click()
        with self._measured(button.text):
            slicer.app.processEvents()

    def wait(
        self, happened: Callable[[], bool], seconds: float = 300.0, mustHappen: bool = True
    ) -> None:
        """Let Slicer work until something has happened."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if happened():
                return
            with self._measured("waiting"):
                slicer.app.processEvents()
            time.sleep(0.01)
        assert not mustHappen, f"waited {seconds} s in vain: {self._reasons()}"

    def _measured(self, what: str) -> AbstractContextManager[None]:
        """Measures a pause of the panel if a training runs."""
        isRunning = self.panel.services.trainer.isRunning()
        return self.pauses.measured(what) if isRunning else nullcontext()

    def _lookAround(self) -> None:
        """What a user does while a training runs: other sections, other cases."""
        project = self.panel.project
        for button in (self.panel.ui.labelsButton, self.panel.ui.projectButton):
            with self._measured(button.text):
                button.collapsed = False
                slicer.app.processEvents()
        for text in ("00", ""):
            with self._measured("filtering"):
                project.ui.filterEdit.text = text
                slicer.app.processEvents()
        for case in self.panel.services.store.cases[:3]:
            project.selectCase(case.id)
            self.click(project.ui.showCaseButton)
            assert self.panel.services.parameters.caseId == case.id

    def _reasons(self) -> str:
        texts = [self.panel.ui.messageLabel.text]
        texts += [section.isValid()[1] for section in self.panel.sections]
        return " ".join(text for text in texts if text)

    def _segment(self, volume: Any, label: Path) -> None:
        labelMap = slicer.util.loadLabelVolume(str(label))
        labels = [Label(*entry) for entry in LABELS]
        node = createSegmentation(volume, labels, f"{volume.GetName()} segmentation")
        array = slicer.util.arrayFromVolume(labelMap)
        for entry in labels:
            segmentId = node.GetSegmentation().GetSegmentIdBySegmentName(entry.name)
            mask = (array == entry.value).astype("uint8")
            slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segmentId, volume)
        slicer.mrmlScene.RemoveNode(labelMap)

    def _paint(self) -> None:
        """What a brush would do: a block of the first label in the middle of the case."""
        parameters = self.panel.services.parameters
        node, volume = parameters.caseSegmentation, parameters.caseVolume
        segmentId = node.GetSegmentation().GetNthSegmentID(0)
        array = slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentId, volume)
        middle = tuple(slice(n // 2 - 3, n // 2 + 3) for n in array.shape)
        array[middle] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, segmentId, volume)


def runStory(widget: Any, data: str | None) -> None:
    """Run the story inside Slicer.

    Args:
        widget: the module's widget.
        data: folder of the scans (``images``, ``labels``, ``train.list``).

    Raises:
        AssertionError: something is not as it should be, or there are no scans.
    """
    import tempfile

    scans = scansIn(data)
    assert scans is not None, "set SAMSEMISEG_DATA to the folder of the hippocampus scans"
    with tempfile.TemporaryDirectory() as folder:
        Story(widget.panel, scans, Path(folder) / "project").run()


def scansIn(data: str | None) -> Path | None:
    """The folder of the hippocampus scans, itself or below ``data``; None where there is none."""
    places = [Path(data), Path(data) / "hippocampus"] if data else []
    return next((place for place in places if (place / "train.list").is_file()), None)
