"""Section 5: the model: scores, report, use and export."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from SAMSemiSegModule.panel.section import Section
from SAMSemiSegModule.process.arguments import predictArguments
from SAMSemiSegModule.process.outcome import End
from SAMSemiSegModule.process.prediction import expect, messageOf, resultOf
from SAMSemiSegModule.runs import finishedRun, readScores
from SAMSemiSegModule.scene.candidates import RESULT
from SAMSemiSegModule.scene.hierarchy import placeBeside
from SAMSemiSegModule.scene.views import showOnly, showVolume
from SAMSemiSegModule.scene.volumes import exportVolume

MODELS = {"TorchScript": "model.ts", "ONNX": "model.onnx", "MONAI bundle": "bundle"}
VOLUME = "volume.nrrd"
POLL_MILLISECONDS = 300
MOST_NAMED = 5


@dataclass
class Job:
    """What is being segmented.

    Attributes:
        folder: of this job alone; it holds the scan and goes with the job, as patients' scans must
            not gather where nobody looks for them.
        results: files to come.
        volume: the node that is segmented, None for files.
    """

    folder: TemporaryDirectory
    results: list[Path]
    volume: Any

    @property
    def path(self) -> Path:
        return Path(self.folder.name)


class ModelSection(Section):
    """Scores of a finished run; applying and exporting its V-Net, or one made elsewhere."""

    uiFile = "Model.ui"

    def setup(self) -> None:
        ui = self.ui
        self._job: Job | None = None
        self._shownRun: Path | None = Path()  # none so far, not even "no run"
        header = ui.scoreTable.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        for name in MODELS:
            ui.formatBox.addItem(name, name)
        self.onClick(ui.reportButton, self._openReport)
        self.onClick(ui.exportButton, self.export)
        self.onClick(ui.importButton, self._import)
        self.onClick(ui.ownModelButton, self._useOwn)
        self.onClick(ui.applyButton, self.applyToVolume)
        self.onClick(ui.applyFilesButton, self.applyToFiles)
        self.onClick(ui.cancelApplyButton, self.services.predictor.cancel)
        ui.applyVolumeSelector.currentNodeChanged.connect(self._onVolumeChosen)
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MILLISECONDS
        self._timer.timeout.connect(self._poll)
        self._timer.start()

    def isValid(self) -> tuple[bool, str]:
        if self._model() is not None:
            return True, ""
        if self.parameters is not None and self.parameters.modelPath:
            return False, _("The imported model '{path}' is not there any more.").format(
                path=self.parameters.modelPath
            )
        return False, _("Finish a training, or import a model made elsewhere.")

    def refresh(self) -> None:
        super().refresh()
        self.ui.importButton.enabled = self.services.installer.isValid()[0]
        hasImported = self.parameters is not None and bool(self.parameters.modelPath)
        self.ui.ownModelButton.visible = hasImported

    def update(self) -> None:
        ui = self.ui
        run, model = self._run(), self._model()
        ui.modelLabel.text = "" if model is None else self._aboutModel(model)
        ui.reportButton.enabled = run is not None and (run / "report.html").is_file()
        ui.exportButton.enabled = run is not None and self._model() is not None
        if run != self._shownRun:
            self._showScores(run)
        running = self.services.predictor.isRunning()
        canApply = model is not None and not running
        ui.applyButton.enabled = canApply and ui.applyVolumeSelector.currentNode() is not None
        ui.applyFilesButton.enabled = canApply
        ui.cancelApplyButton.enabled = running
        ui.applyBar.visible = running

    def export(self) -> None:
        """Copy the chosen form of the V-Net, with its model card, to a folder."""
        from SAMSemiSegLib.atomic import replacing

        run = self._run()
        name = MODELS[self.ui.formatBox.currentText]
        source = run / "model" / name
        if not source.exists():
            raise ValueError(
                _("The run made no {kind}; add it to the run's 'export' setting.").format(
                    kind=self.ui.formatBox.currentText
                )
            )
        folder = self.services.dialogs.pickFolder(_("Folder for the model"))
        if folder is None:
            return
        target = folder / f"{self.store.project.name}-{run.name}{Path(name).suffix}"
        if target.exists():
            raise FileExistsError(
                _("'{path}' exists already; choose another folder.").format(path=target)
            )
        with replacing(target) as unfinished:
            if source.is_dir():
                shutil.copytree(source, unfinished)
            else:
                shutil.copyfile(source, unfinished)
        self.services.tell(_("The model is at {path}").format(path=target))

    def applyToVolume(self) -> None:
        """Segment the chosen volume in the background; the result comes into the scene."""
        volume = self.ui.applyVolumeSelector.currentNode()
        folder = _newFolder()
        image = Path(folder.name) / VOLUME
        exportVolume(volume, image)
        self._start(Job(folder, [resultOf(image, image.parent)], volume), [image], image.parent)

    def applyToFiles(self) -> None:
        """Segment many files in the background; the results lie in a folder."""
        from SAMSemiSegLib.volumes.formats import PATTERNS

        images = self.services.dialogs.pickFiles(_("Volumes to segment"), PATTERNS)
        if not images:
            return
        folder = self.services.dialogs.pickFolder(_("Folder for the segmentations"))
        if folder is None:
            return
        results = [resultOf(image, folder) for image in images]
        there = [path.name for path in results if path.exists()]
        question = _("Replace {count} segmentations that the folder holds already? {names}")
        question = question.format(count=len(there), names=", ".join(there[:MOST_NAMED]))
        if not there or self.services.dialogs.confirm(question):
            self._start(Job(_newFolder(), results, None), images, folder, overwrite=bool(there))

    def leaveScene(self) -> None:
        """The scene closes, and with it goes a volume that is being segmented; files do not."""
        if self._job is not None and self._job.volume is not None:
            self.services.predictor.cancel()

    def cleanup(self) -> None:
        self._timer.stop()
        self.endWithSlicer()

    def endWithSlicer(self) -> None:
        """Slicer closes: what is under way stops."""
        if self.services.predictor.isRunning():
            self.services.predictor.stopNow()
        if self._job is not None:
            self._job.folder.cleanup()
            self._job = None

    def _import(self) -> None:
        title = _("A model: .ts, .onnx, or the configs/metadata.json of a MONAI bundle")
        files = self.services.dialogs.pickFiles(title, "*.ts *.onnx metadata.json")
        if files:
            isBundle = files[0].name == "metadata.json"
            self.parameters.modelPath = str(files[0].parents[1] if isBundle else files[0])
            self.services.changed()

    def _useOwn(self) -> None:
        """Back from an imported model to the project's own."""
        self.parameters.modelPath = ""
        self.services.changed()

    def _aboutModel(self, model: Path) -> str:
        if self.parameters.modelPath:
            return _("Imported model: {path}").format(path=model)
        return _("Model of the run '{run}': {path}").format(
            run=model.parents[1].name, path=model.relative_to(self.store.folder)
        )

    def _run(self) -> Path | None:
        """The run of the project that was finished last."""
        return finishedRun(self.store.runs())

    def _model(self) -> Path | None:
        """The imported model where there is one, else that of the latest run."""
        if self.parameters is not None and self.parameters.modelPath:
            imported = Path(self.parameters.modelPath)
            return imported if imported.exists() else None
        run = self._run()
        models = [] if run is None else [run / "model" / name for name in MODELS.values()]
        return next((path for path in models if path.exists()), None)

    def _showScores(self, run: Path | None) -> None:
        self._shownRun = run
        table = self.ui.scoreTable
        table.setRowCount(0)
        for row, score in enumerate([] if run is None else readScores(run)):
            table.insertRow(row)
            figures = score.get("figures", {})
            cells = (
                f"{score.get('row')}: {score.get('label')}",
                _figure(figures, "dice", 3),
                _figure(figures, "hd95_mm", 1),
                _("{failures} of {cases}").format(
                    failures=score.get("failures"), cases=score.get("cases")
                ),
            )
            for column, text in enumerate(cells):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        hasScores = table.rowCount > 0
        table.visible = hasScores
        self.ui.scoreLabel.text = (
            ""
            if run is None or hasScores
            else _("No scores: the project has no cases that are kept for scoring only.")
        )

    def _openReport(self) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._run() / "report.html")))

    def _start(self, job: Job, images: list[Path], output: Path, overwrite: bool = False) -> None:
        device = self.parameters.device
        arguments = predictArguments(self._model(), images, output, device, overwrite)
        expect(job.path, job.results)
        self.services.predictor.start(arguments, job.path)
        self._job = job
        self.ui.applyStatusLabel.text = _("Segmenting ...")
        self.services.changed()

    def _poll(self) -> None:
        outcome = self.services.predictor.poll().outcome
        if outcome is None or self._job is None:
            return
        job, self._job = self._job, None
        message = messageOf(outcome, job.path)
        with self.services.errorsShown(clear=False):
            if job.volume is not None:
                name = job.volume.GetName()
                message = message.replace(str(job.path / VOLUME), name).replace(VOLUME, name)
                # A volume of the next scene may have its id, but is another patient's.
                if not slicer.mrmlScene.IsNodePresent(job.volume):
                    message = _(
                        "'{name}' is not in the scene any more, so its segmentation was dropped; "
                        "load it and apply the model again."
                    ).format(name=name)
                elif outcome.end is End.SUCCEEDED and not self._show(job):
                    message += _(
                        " The segmentation of '{name}' is in the data tree, hidden, as a case is "
                        "on screen."
                    ).format(name=name)
        self.ui.applyStatusLabel.text = message
        job.folder.cleanup()
        self.services.changed()

    def _show(self, job: Job) -> bool:
        """Bring the segmentation of a volume into the scene, beside it.

        Returns:
            Whether it is on screen: what is drawn or reviewed meanwhile stays there.
        """
        result = slicer.util.loadSegmentation(
            str(job.results[0]), {"name": f"{job.volume.GetName()} segmentation", "show": False}
        )
        # The file goes with the job; without it Slicer asks where to save the node.
        slicer.mrmlScene.RemoveNode(result.GetStorageNode())
        result.SetAttribute(RESULT, "1")
        result.SetReferenceImageGeometryParameterFromVolumeNode(job.volume)
        placeBeside(result, job.volume)
        isBusy = self.parameters.caseVolume is not None and (
            self.parameters.caseVolume is not job.volume
            or self.parameters.caseSegmentation is not None
        )
        if isBusy:
            result.CreateDefaultDisplayNodes()
            result.GetDisplayNode().SetVisibility(False)
            return False
        showOnly(result, slicer.util.getNodesByClass("vtkMRMLSegmentationNode"))
        showVolume(job.volume)
        return True

    def _onVolumeChosen(self, node: Any) -> None:
        if self.parameters is not None:
            self.update()


def _newFolder() -> TemporaryDirectory:
    return TemporaryDirectory(prefix="SAMSemiSeg", ignore_cleanup_errors=True)


def _figure(figures: dict[str, Any], name: str, digits: int) -> str:
    mean = (figures.get(name) or {}).get("mean")
    return "" if mean is None else f"{mean:.{digits}f}"
