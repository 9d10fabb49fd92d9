"""The panel's sections in each state, and what may happen to them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest.importorskip("pydantic", reason="the library's packages are not installed")
import numpy as np
import slicer

FAKE = Path(__file__).resolve().parents[1] / "module" / "fake_library"


def pump(until=lambda: False, seconds: float = 15.0, mustHappen: bool = True) -> None:
    """Let events happen until something is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not until():
        slicer.app.processEvents()
        time.sleep(0.005)
    assert until() or not mustHappen, "waited in vain"


def aScan(name: str, shape=(20, 22, 24)):
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    voxels = np.random.default_rng(len(name)).normal(100, 20, shape).astype(np.float32)
    slicer.util.updateVolumeFromArray(volume, voxels)
    volume.CreateDefaultDisplayNodes()
    return volume


def aSegmentation(volume, where=np.s_[5:9, 5:9, 5:9], name="liver"):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentId = node.GetSegmentation().AddEmptySegment(name, name, [0.8, 0.3, 0.2])
    mask = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    mask[where] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segmentId, volume)
    return node


@pytest.fixture
def openProject(panel):
    """A project of three scans, the first of them labeled."""
    first = aScan("first")
    aSegmentation(first)
    aScan("second")
    aScan("third")
    panel.project.ui.newProjectButton.click()
    panel.project.ui.addSceneButton.click()
    assert panel.services.store.counts() == (1, 2, 0), panel.ui.messageLabel.text
    return panel


@pytest.fixture
def fakeTraining(openProject, monkeypatch):
    """The panel with a library that behaves as it is told to."""
    from SAMSemiSegModule.process.command import ChildCommand
    from SAMSemiSegModule.process.runner import ProcessRunner

    def start(behavior: str):
        environment = {**os.environ, "FAKE_BEHAVIOR": behavior}
        openProject.services.trainer = ProcessRunner(
            lambda: ChildCommand(sys.executable, FAKE, environment)
        )
        openProject.ui.trainingButton.collapsed = False
        openProject.train.ui.trainButton.click()
        assert openProject.services.trainer.isRunning(), openProject.ui.messageLabel.text
        return openProject.train

    yield start
    openProject.services.trainer.stopNow()


def pretendPseudoLabels(panel, confidences=(0.9, 0.4)) -> None:
    """As if a training had offered its results."""
    from SAMSemiSegLib.project.review import offer

    store = panel.services.store
    folder = store.folder / "runs" / "run-1" / "proposals"
    folder.mkdir(parents=True)
    label = store.labelPath(store.case("first"))
    for caseId, confidence in zip(("second", "third"), confidences, strict=True):
        target = folder / f"{caseId}.nrrd"
        target.write_bytes(label.read_bytes())
        offer(store.project, caseId, target, confidence)
    panel.refresh()


def test_each_section_says_what_it_waits_for(panel):
    reasons = [section.isValid()[1] for section in panel.sections]
    assert "Create or open a project" in panel.project.ui.reasonLabel.text
    assert all(reasons[1:])
    for section in panel.sections[1:]:
        assert not section.ui.body.enabled
        assert section.ui.reasonLabel.text


def test_training_waits_for_a_label(panel):
    aScan("only")
    panel.project.ui.newProjectButton.click()
    panel.project.ui.addSceneButton.click()
    assert "Labels" in panel.train.ui.reasonLabel.text
    panel.labels.ui.addLabelButton.click()
    assert "Label at least one case" in panel.train.ui.reasonLabel.text
    assert not panel.train.ui.body.enabled


def test_label_set_comes_with_names_and_colors_of_the_segments(openProject):
    (label,) = openProject.services.store.labels
    assert label.name == "liver" and label.value == 1
    assert tuple(label.color) == (204, 76, 51)


def test_label_is_renamed_and_removed_in_the_table(openProject):
    table = openProject.labels.ui.labelTable
    openProject.labels.ui.addLabelButton.click()
    table.item(1, 1).setText("kidney")
    assert [label.name for label in openProject.services.store.labels] == ["liver", "kidney"]
    table.item(1, 1).setText("liver")
    assert "same name" in openProject.ui.messageLabel.text
    assert table.item(1, 1).text() == "kidney"
    table.setCurrentCell(1, 1)
    openProject.labels.ui.removeLabelButton.click()
    assert [label.name for label in openProject.services.store.labels] == ["liver"]


def test_sheared_volume_is_refused_in_a_sentence_and_nothing_is_left(panel, tmp_path):
    import vtk

    scan = aScan("tilted")
    matrix = vtk.vtkMatrix4x4()
    scan.GetIJKToRASMatrix(matrix)
    matrix.SetElement(1, 2, 0.4)
    scan.SetIJKToRASMatrix(matrix)
    panel.project.ui.newProjectButton.click()
    import qt

    panel.project.ui.addVolumeSelector.setCheckState(scan, qt.Qt.Checked)
    panel.project.ui.addSceneButton.click()
    assert "sheared" in panel.ui.messageLabel.text and panel.ui.messageFrame.visible
    assert not panel.services.store.cases
    assert not list((tmp_path / "project").rglob("*.nrrd"))


def test_double_click_shows_the_case_and_touches_nothing_else(openProject):
    bystander = aScan("bystander")
    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "model")
    openProject.project._openCase("first")
    parameters = openProject.services.parameters
    assert parameters.caseVolume.GetName() == "first"
    assert parameters.caseSegmentation.GetName() == "drawn"
    openProject.project._openCase("second")
    assert parameters.caseSegmentation is None
    for node in (bystander, model, slicer.util.getNode("first"), slicer.util.getNode("drawn")):
        assert slicer.mrmlScene.IsNodePresent(node)


def test_loaded_cases_go_when_the_next_one_comes(openProject):
    folder = openProject.services.store.folder
    slicer.mrmlScene.Clear(0)
    openProject.project.openFolder(folder)
    counts = []
    for caseId in ("first", "second", "third", "first"):
        openProject.project._openCase(caseId)
        assert openProject.services.parameters.caseId == caseId
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        counts.append(len(volumes))
    assert counts == [1, 1, 1, 1]


def test_missing_image_is_named(openProject):
    store = openProject.services.store
    store.imagePath(store.case("second")).unlink()
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("second"))
    openProject.project._openCase("second")
    assert "second.nrrd" in openProject.ui.messageLabel.text


def test_label_is_saved_only_by_its_button_and_trains_nothing(openProject):
    store, ui = openProject.services.store, openProject.labels.ui
    openProject.project._openCase("second")
    ui.labelCaseButton.click()
    assert ui.editor.visible
    assert ui.editor.sourceVolumeNode().GetName() == "second"
    node = openProject.services.parameters.caseSegmentation
    mask = np.zeros((20, 22, 24), np.uint8)
    mask[3:6, 3:6, 3:6] = 1
    segmentId = node.GetSegmentation().GetNthSegmentID(0)
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        mask, node, segmentId, openProject.services.parameters.caseVolume
    )
    assert store.case("second").status == "unlabeled"
    ui.saveLabelButton.click()
    assert store.case("second").status == "labeled", openProject.ui.messageLabel.text
    assert store.case("second").origin == "expert"
    assert not openProject.services.trainer.isRunning() and not store.runs()


def test_empty_drawing_is_not_saved(openProject):
    openProject.project._openCase("second")
    openProject.labels.ui.labelCaseButton.click()
    openProject.labels.ui.saveLabelButton.click()
    assert "holds no voxel" in openProject.ui.messageLabel.text
    assert openProject.services.store.case("second").status == "unlabeled"


def test_table_filters_and_sorts(openProject):
    table, ui = openProject.project._table, openProject.project.ui
    ui.filterEdit.text = "ir"
    assert table.visibleIds() == ["first", "third"]
    ui.filterEdit.text = ""
    ui.stateBox.setCurrentIndex(ui.stateBox.findData("labeled"))
    assert table.visibleIds() == ["first"]
    ui.stateBox.setCurrentIndex(0)
    pretendPseudoLabels(openProject)
    import qt

    ui.caseTable.sortByColumn(2, qt.Qt.DescendingOrder)
    assert table.visibleIds() == ["second", "third", "first"]


def test_labeled_case_is_kept_for_scoring_and_comes_back(openProject):
    store, ui = openProject.services.store, openProject.project.ui
    openProject.project._table.select(["first"])
    ui.scoreOnlyButton.click()
    assert store.counts() == (0, 2, 1), openProject.ui.messageLabel.text
    openProject.project._table.select(["first"])
    ui.scoreOnlyButton.click()
    assert store.counts() == (1, 2, 0)
    openProject.project._table.select(["second"])
    ui.scoreOnlyButton.click()
    assert "'second' has no label of yours" in openProject.ui.messageLabel.text


def test_a_thousand_cases_open_within_two_seconds(panel, tmp_path):
    from SAMSemiSegLib.project.case import Case
    from SAMSemiSegLib.project.label_set import LabelSet
    from SAMSemiSegLib.project.project import Project

    project = Project.create(tmp_path / "large", LabelSet.of(["liver"]))
    project.cases += [
        Case(id=f"case_{n:04}", image=f"images/{n}.nrrd", confidence=n / 1000, status="pseudo")
        for n in range(1000)
    ]
    project.save()
    began = time.monotonic()
    panel.project.openFolder(tmp_path / "large")
    slicer.app.processEvents()
    assert time.monotonic() - began < 2.0
    import qt

    began = time.monotonic()
    panel.project.ui.caseTable.sortByColumn(2, qt.Qt.DescendingOrder)
    panel.project.ui.filterEdit.text = "99"
    slicer.app.processEvents()
    assert time.monotonic() - began < 0.2
    assert panel.project._table.visibleIds()[0] == "case_0999"


def test_review_goes_from_the_least_certain_to_a_clear_end(openProject):
    panel, ui = openProject, openProject.review.ui
    pretendPseudoLabels(panel)
    assert ui.body.enabled and ui.leftLabel.text == "2 left to review"
    ui.nextButton.click()
    assert ui.caseLabel.text == "third"
    assert "Confidence 0.40" in ui.whyLabel.text
    ui.acceptButton.click()
    assert ui.caseLabel.text == "second" and ui.leftLabel.text == "1 left to review"
    ui.undoButton.click()
    assert ui.caseLabel.text == "third" and ui.leftLabel.text == "2 left to review"
    ui.rejectButton.click()
    ui.acceptButton.click()
    assert ui.leftLabel.text == "All pseudo-labels are reviewed."
    assert not ui.acceptButton.enabled and not ui.nextButton.enabled
    assert ui.trainAgainButton.enabled


def test_review_starts_with_the_least_certain_whatever_is_on_screen(openProject):
    panel, ui = openProject, openProject.review.ui
    pretendPseudoLabels(panel)
    panel.project._openCase("second")
    ui.nextButton.click()
    assert ui.caseLabel.text == "third"
    ui.nextButton.click()
    assert ui.caseLabel.text == "second"


def test_a_bad_case_does_not_hold_up_the_others(openProject):
    panel, ui = openProject, openProject.review.ui
    pretendPseudoLabels(panel)
    store = panel.services.store
    store.labelPath(store.case("third")).unlink()
    ui.nextButton.click()
    assert "third.nrrd" in panel.ui.messageLabel.text
    panel.project._openCase("second")
    ui.acceptButton.click()
    assert store.case("second").status == "accepted"


def test_a_change_by_the_training_process_is_seen(openProject):
    from SAMSemiSegLib.project.project import Project

    store = openProject.services.store
    other = Project.load(store.folder)
    other.name = "changed by another process"
    other.save()
    openProject.enter()
    assert store.project.name == "changed by another process"


def test_training_is_followed_and_cancelled(fakeTraining):
    train = fakeTraining("obey")
    pump(lambda: len(train.progress.curves.get("loss", [])) > 5)
    assert train.ui.cancelButton.enabled and not train.ui.trainButton.enabled
    train.ui.cancelButton.click()
    pump(lambda: train.outcome is not None)
    assert "Continue" in train.ui.stageLabel.text
    assert train.ui.continueButton.enabled


def test_out_of_memory_offers_one_click_with_less(fakeTraining):
    import json

    train = fakeTraining("out_of_memory")
    pump(lambda: train.outcome is not None)
    assert "not enough memory" in train.ui.stageLabel.text
    assert train.ui.retryButton.visible
    train.ui.retryButton.click()
    pump(lambda: train.outcome is not None)
    store = train.services.store
    arguments = json.loads((store.runFolder("run-2") / "config.json").read_text())["arguments"]
    assert "retraining.labeled_batch=1" in arguments
    assert "finetuning.gradient_checkpointing=true" in arguments


def test_crash_shows_what_happened_and_leaves_the_log(fakeTraining):
    train = fakeTraining("crash")
    pump(lambda: train.outcome is not None)
    assert "no such tensor" in train.ui.stageLabel.text
    assert "Traceback" in train.ui.logBox.plainText
    train.ui.copyLogButton.click()
    assert "Traceback" in slicer.app.clipboard().text()


def test_panel_answers_within_100_ms_while_a_training_floods_it(fakeTraining):
    """The panel's own time between two turns of its event loop; see test_story.py."""
    from SAMSemiSegModule.pauses import Pauses

    train = fakeTraining("flood")
    pump(lambda: bool(train.progress.curves), seconds=20)
    pauses, deadline = Pauses(), time.monotonic() + 3
    while time.monotonic() < deadline:
        with pauses.measured("a flood"):
            slicer.app.processEvents()
        time.sleep(0.005)
    assert len(pauses.all) > 50
    assert pauses.longest.busy < 0.1, pauses.report()


def test_a_pause_holds_what_the_panel_waits_for_and_not_what_holds_it_up():
    from SAMSemiSegModule.pauses import Pauses

    pauses = Pauses()
    with pauses.measured("waiting"):
        time.sleep(0.15)
    with pauses.measured("computing"):
        began = time.thread_time()
        while time.thread_time() - began < 0.05:
            pass
    waiting, computing = pauses.all
    assert waiting.busy > 0.1 and computing.busy > 0.045
    assert waiting.busy <= waiting.wall and computing.busy <= computing.wall
    assert pauses.longest is waiting and "waiting: 1" in pauses.report()


def test_closing_slicer_stops_the_training(fakeTraining):
    train = fakeTraining("obey")
    pump(lambda: bool(train.progress.curves))
    began = time.monotonic()
    slicer.app.quit()
    assert time.monotonic() - began < 5
    assert not train.runner.isRunning()


def test_reconnect_after_slicer_was_closed(openProject, fakeTraining):
    train = fakeTraining("outlive")
    pump(lambda: train.progress.stage == "retraining")
    openProject.services.dialogs.goOnAfterSlicer = lambda: True
    slicer.app.quit()
    assert not train.runner.isRunning()
    openProject.enter()
    assert train.runner.isRunning()
    assert "still at work" in openProject.ui.messageLabel.text
    pump(lambda: train.outcome is not None)
    assert train.outcome.end.name == "SUCCEEDED"


def test_state_is_saved_with_the_scene(openProject, tmp_path):
    openProject.project._openCase("second")
    openProject.services.parameters.preset = "balanced"
    openProject.train.ui.seedBox.value = 7
    folder = openProject.services.parameters.projectFolder
    slicer.mrmlScene.SetRootDirectory(str(tmp_path))
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    assert slicer.mrmlScene.Commit()
    slicer.mrmlScene.Clear(0)
    assert openProject.services.parameters.preset == "quick"
    openProject.services.store.close()
    assert slicer.mrmlScene.Connect()
    parameters = openProject.services.parameters
    assert (parameters.preset, parameters.seed, parameters.caseId) == ("balanced", 7, "second")
    assert parameters.projectFolder == folder
    assert str(openProject.services.store.folder) == folder
    assert openProject.train.ui.seedBox.value == 7


def test_state_survives_closing_the_scene(openProject):
    openProject.project._openCase("second")
    slicer.mrmlScene.Clear(0)
    parameters = openProject.services.parameters
    assert parameters.caseVolume is None and parameters.caseId == ""
    openProject.project._openCase("third")
    assert parameters.caseVolume.GetName() == "third"


def test_state_survives_an_undo(openProject):
    scene = slicer.mrmlScene
    scene.SetUndoOn()
    try:
        scene.SaveStateForUndo()
        openProject.services.parameters.seed = 99
        scene.Undo()
    finally:
        scene.SetUndoOff()
        scene.ClearUndoStack()
        scene.ClearRedoStack()
    openProject.refresh()
    openProject.project._openCase("second")
    assert openProject.services.parameters.caseId == "second"
    assert openProject.train.ui.seedBox.value == openProject.services.parameters.seed


def test_state_survives_reloading_the_module(openProject, tmp_path):
    from host.application import closeModule, openModule

    openProject.services.parameters.preset = "balanced"
    again = openModule()
    try:
        assert again.panel.services.parameters.preset == "balanced"
        assert again.panel.services.store.counts() == (1, 2, 0)
        assert again.panel.train.ui.presetBox.currentData == "balanced"
    finally:
        closeModule(again)


def test_vanished_project_is_named(openProject):
    parameters = openProject.services.parameters
    openProject.services.store.close()
    parameters.projectFolder = "/nowhere/project"
    openProject.setParameters(parameters)
    assert "/nowhere/project" in openProject.ui.messageLabel.text


def test_further_settings_that_cannot_be_read_are_named(openProject):
    openProject.train.ui.extraSettingsEdit.text = "retraining.net.width"
    openProject.train.ui.trainButton.click()
    assert "'retraining.net.width' is not of the form key=value" in openProject.ui.messageLabel.text
    assert not openProject.services.trainer.isRunning()


def test_keyboard_shortcuts_work_on_screen_only(widget):
    shortcuts = widget.panel.review._shortcuts
    assert all(shortcut.enabled for shortcut in shortcuts)
    widget.exit()
    assert not any(shortcut.enabled for shortcut in shortcuts)
    widget.enter()


def test_sample_data_is_registered_with_checksums(widget):
    from host.sample_data import SampleDataLogic

    source = SampleDataLogic.sources[-1]
    assert Path(source["thumbnailFileName"]).is_file()
    assert len(source["uris"]) == len(source["checksums"]) == len(source["fileNames"]) == 8
    assert all(len(value) == len("SHA256:") + 64 for value in source["checksums"])
