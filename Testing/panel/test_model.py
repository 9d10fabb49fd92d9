"""Section 5: which model is used, and applying it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest.importorskip("pydantic", reason="the library's packages are not installed")
import numpy as np
import slicer
from actions import aScan, pump
from SAMSemiSegModule.process.outcome import outcomeOf
from SAMSemiSegModule.process.runner import Update
from SAMSemiSegModule.scene.candidates import segmentationsOf


def finishedRun(store) -> Path:
    """A run as the library leaves it, with a model of a few bytes."""
    run = store.runFolder("run-1")
    (run / "model").mkdir(parents=True)
    for name in ("config.json", "manifest.json", "model/model.ts"):
        (run / name).write_text("{}")
    return run


def test_an_imported_model_is_used_until_the_user_goes_back(openProject, tmp_path):
    ui = openProject.model.ui
    openProject.ui.modelButton.collapsed = False
    assert not ui.body.enabled and "Finish a training" in ui.reasonLabel.text
    assert not ui.ownModelButton.visible
    made = tmp_path / "elsewhere" / "bundle" / "configs"
    made.mkdir(parents=True)
    (made / "metadata.json").write_text("{}")
    openProject.services.dialogs.files = [made / "metadata.json"]
    ui.importButton.click()
    assert ui.body.enabled and openProject.model._model() == made.parent
    assert ui.ownModelButton.visible
    run = finishedRun(openProject.services.store)
    openProject.refresh()
    assert openProject.model._model() == made.parent
    ui.ownModelButton.click()
    assert openProject.model._model() == run / "model" / "model.ts"
    assert ui.modelLabel.text == "Model of the run 'run-1': runs/run-1/model/model.ts"
    openProject.services.parameters.modelPath = str(tmp_path / "gone.ts")
    openProject.refresh()
    assert "gone.ts' is not there" in ui.reasonLabel.text


class PreparedPredictor:
    """A runner that writes what it is told to and ends at the next poll."""

    def __init__(self, code: int | None, log: str = "", result: Any = None) -> None:
        self._code, self._log, self._result = code, log, result
        self.started: list[list[str]] = []
        self.folder: Path | None = None
        self._running = False

    def isRunning(self) -> bool:
        return self._running

    def start(self, arguments, folder) -> None:
        self.started.append([str(word) for word in arguments])
        self.folder, self._running = folder, True
        (folder / "console.log").write_text(self._log)
        if self._result is not None:
            self._result(folder)

    def poll(self) -> Update:
        if not self._running or self._code is None:
            return Update()
        self._running = False
        last = self._log.splitlines()[-1] if self._log else ""
        return Update(outcome=outcomeOf(self._code, self._code == 0, last))

    def cancel(self) -> None:
        self._code = 5

    def stopNow(self) -> None:
        self._running = False


@pytest.fixture
def apply(openProject):
    """The model section with a predictor that is told what to do."""
    finishedRun(openProject.services.store)

    def prepared(*arguments):
        openProject.services.predictor = PreparedPredictor(*arguments)
        openProject.model.ui.applyVolumeSelector.setCurrentNode(slicer.util.getNode("second"))
        openProject.refresh()
        return openProject.model, openProject.services.predictor

    return prepared


def test_the_model_goes_to_many_files_and_says_which_failed(apply, tmp_path):
    """The command line that ``samsemiseg predict`` gets, and an outcome with one result of two."""
    answer = [{"image": "one.nrrd", "output": "x"}, {"image": "two.nrrd", "error": "'two' is 2D."}]
    log = "'two' is 2D.\n" + json.dumps({"results": answer}, indent=2) + "\n"
    model, predictor = apply(2, log)
    dialogs = model.services.dialogs
    dialogs.files = [tmp_path / "one.nrrd", tmp_path / "two.nrrd"]
    model.ui.applyFilesButton.click()
    assert model.ui.cancelApplyButton.enabled
    pump(lambda: not predictor.isRunning() and model._job is None)
    (words,) = predictor.started
    assert words[0] == "predict" and words[1].endswith("model.ts")
    assert words[2:4] == [str(path) for path in dialogs.files] and "--overwrite" not in words
    assert model.ui.applyStatusLabel.text == "1 of 2 volumes are segmented. 'two' is 2D."
    asked = []
    dialogs.confirm = lambda question: asked.append(question) is not None
    (dialogs.folder / "two.seg.nrrd").write_text("drawn by hand")
    model.ui.applyFilesButton.click()
    assert "two.seg.nrrd" in asked[0] and len(predictor.started) == 1
    dialogs.confirm = lambda question: True
    model.ui.applyFilesButton.click()
    assert "--overwrite" in predictor.started[1]


@pytest.mark.parametrize(
    ("code", "words"), [(5, "Stopped."), (3, "Close other programs"), (4, "Free some space")]
)
def test_applying_ends_in_its_own_words_and_leaves_no_scan(apply, code, words):
    model, predictor = apply(code)
    model.ui.applyButton.click()
    scan = predictor.folder / "volume.nrrd"
    assert scan.is_file()
    pump(lambda: model._job is None)
    assert words in model.ui.applyStatusLabel.text
    assert "Continue" not in model.ui.applyStatusLabel.text
    assert not scan.parent.exists() and not (model.store.folder / "predictions").exists()


def test_closing_slicer_leaves_no_scan_that_the_model_was_applied_to(apply):
    model, predictor = apply(None)
    model.ui.applyButton.click()
    assert (predictor.folder / "volume.nrrd").is_file()
    slicer.app.quit()
    assert not predictor.isRunning() and not predictor.folder.exists()


def eraseAVoxel(segmentation) -> None:
    segmentId = segmentation.GetSegmentation().GetNthSegmentID(0)
    volume = slicer.util.getNode("second")
    voxels = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentId, volume)
    voxels[tuple(np.argwhere(voxels)[0])] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, segmentation, segmentId, volume)


def segment(folder: Path) -> None:
    """What the model makes of the volume, written as the library writes it."""
    from SAMSemiSegLib.volumes.reading import read_image
    from SAMSemiSegLib.volumes.volume import Volume
    from SAMSemiSegLib.volumes.writing import write_labels

    image = read_image(folder / "volume.nrrd")
    found = Volume((image.array > 100).astype(np.uint8), image.geometry)
    target = folder / "volume.seg.nrrd"
    write_labels(target, found, ["liver"], [1], [(200, 80, 50)], predicted=True)


def test_the_result_is_in_the_scene_alone_so_that_slicer_asks_to_save_it(apply):
    model, predictor = apply(0, "", segment)
    model.ui.applyButton.click()
    pump(lambda: model._job is None)
    result = slicer.util.getNode("second segmentation")
    assert result.GetSegmentation().GetNumberOfSegments() == 1
    assert result.GetStorageNode() is None and not predictor.folder.exists()


def test_the_result_for_a_volume_that_is_gone_is_dropped(apply):
    model, _ = apply(0, "", segment)
    model.ui.applyButton.click()
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("second"))
    before = slicer.mrmlScene.GetNumberOfNodes()
    pump(lambda: model._job is None)
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    assert "'second' is not in the scene any more" in model.ui.applyStatusLabel.text


def test_closing_the_scene_stops_the_segmenting_of_its_volume_but_not_of_files(apply, tmp_path):
    model, predictor = apply(None)
    model.services.dialogs.files = [tmp_path / "one.nrrd"]
    model.ui.applyFilesButton.click()
    slicer.mrmlScene.Clear(0)
    pump(seconds=0.7, mustHappen=False)
    assert predictor.isRunning()
    predictor.cancel()
    pump(lambda: model._job is None)

    aScan("second")
    model, predictor = apply(None)
    model.ui.applyButton.click()
    assert predictor.isRunning()
    slicer.mrmlScene.Clear(0)
    pump(lambda: model._job is None)
    assert not predictor.isRunning()


@pytest.mark.parametrize("isCorrected", [False, True])
def test_the_result_passes_for_a_label_once_a_person_has_corrected_it(
    apply, openProject, isCorrected
):
    model, _ = apply(0, "", segment)
    model.ui.applyButton.click()
    pump(lambda: model._job is None)
    if isCorrected:
        eraseAVoxel(slicer.util.getNode("second segmentation"))
    openProject.services.dialogs.folder = model.store.folder.parent / "other"
    openProject.project.ui.newProjectButton.click()
    openProject.project.ui.addSceneButton.click()
    told = "'second segmentation' was made by a model" in openProject.ui.messageLabel.text
    assert model.store.counts() == ((2, 1, 0) if isCorrected else (1, 2, 0))
    assert told == (not isCorrected)


def test_a_result_belongs_to_its_own_scan_whatever_others_are_called(apply, openProject):
    """ "second" is the beginning of "second segmentation"; here it is another patient's."""
    model, _ = apply(0, "", segment)
    model.ui.applyButton.click()
    pump(lambda: model._job is None)
    eraseAVoxel(slicer.util.getNode("second segmentation"))
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("second"))
    other = aScan("second")
    assert segmentationsOf(other, set()) == []


@pytest.mark.parametrize("isDrawing", [False, True])
def test_a_result_leaves_what_is_drawn_meanwhile_on_screen(apply, openProject, isDrawing):
    model, _ = apply(0, "", segment)
    if isDrawing:
        openProject.project._openCase("third")
        openProject.labels.ui.labelCaseButton.click()
    model.ui.applyButton.click()
    pump(lambda: model._job is None)
    isVisible = slicer.util.getNode("second segmentation").GetDisplayNode().GetVisibility()
    assert bool(isVisible) == (not isDrawing)
    assert ("hidden" in model.ui.applyStatusLabel.text) == isDrawing
    if isDrawing:
        assert openProject.services.parameters.caseSegmentation.GetDisplayNode().GetVisibility()


def test_an_export_that_fails_leaves_nothing_that_passes_for_a_model(
    openProject, tmp_path, monkeypatch
):
    from SAMSemiSegModule.panel import model_section

    def fail(source, target):
        Path(target).write_bytes(b"half a mo")
        raise OSError(28, "No space left on device")

    run = finishedRun(openProject.services.store)
    openProject.refresh()
    openProject.services.dialogs.folder = tmp_path / "models"
    with monkeypatch.context() as patched:
        patched.setattr(model_section.shutil, "copyfile", fail)
        openProject.model.ui.exportButton.click()
    assert "disk is full" in openProject.ui.messageLabel.text
    assert not list((tmp_path / "models").iterdir())
    openProject.model.ui.exportButton.click()
    (exported,) = (tmp_path / "models").iterdir()
    assert exported.read_bytes() == (run / "model" / "model.ts").read_bytes()
