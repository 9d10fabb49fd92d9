"""What is kept in the scene and the project folder, and what may happen to both."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest.importorskip("pydantic", reason="the library's packages are not installed")
import numpy as np
import slicer
from actions import draw, pretendPseudoLabels


def test_a_change_by_the_training_process_is_seen(openProject):
    from SAMSemiSegLib.project.project import Project

    store = openProject.services.store
    other = Project.load(store.folder)
    other.name = "changed by another process"
    other.save()
    openProject.enter()
    assert store.project.name == "changed by another process"


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
    openProject.enter()
    assert "/nowhere/project" in openProject.ui.messageLabel.text


def test_vanished_project_is_not_taken_for_the_one_before(openProject):
    parameters = openProject.services.parameters
    parameters.projectFolder = "/nowhere/project"
    openProject.setParameters(parameters)
    assert openProject.services.store.project is None
    assert parameters.projectFolder == "/nowhere/project"


def test_a_scene_closed_under_an_open_project_keeps_it(openProject):
    folder = str(openProject.services.store.folder)
    slicer.mrmlScene.Clear(0)
    assert openProject.services.parameters.projectFolder == folder


def test_a_decision_that_could_not_be_saved_is_not_made(openProject, monkeypatch):
    from SAMSemiSegLib.project import project

    store, ui = openProject.services.store, openProject.review.ui
    pretendPseudoLabels(openProject)
    ui.nextButton.click()

    def refuse(path, text):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(project, "write_text", refuse)
    before = store.project.model_copy(deep=True)
    openProject.project._table.select(["first"])
    name = openProject.labels.ui.labelTable.item(0, 1)
    clicks = (ui.acceptButton, openProject.project.ui.scoreOnlyButton)
    for act in (
        *(button.click for button in clicks),
        openProject.project.ui.removeCaseButton.click,
        lambda: name.setText("kidney"),
        lambda: store.setExpertLabel("second", store.labelPath(store.case("second"))),
    ):
        with openProject.errorsShown():
            act()
        message = openProject.ui.messageLabel.text
        assert "could not be saved" in message and "check that you may write there" in message
        assert store.project == before


def test_a_case_that_is_added_anew_has_no_decisions_to_undo(openProject):
    store = openProject.services.store
    pretendPseudoLabels(openProject)
    store.accept("second")
    store.remove(["second"])
    store.addFile(store.folder / "images" / "second.nrrd")
    assert store.decisions == 0


def test_undo_takes_no_drawing_away(openProject):
    store = openProject.services.store
    pretendPseudoLabels(openProject)
    store.accept("third")
    store.reject("second")
    openProject.project._openCase("second")
    openProject.labels.ui.labelCaseButton.click()
    draw(openProject, np.s_[3:9, 3:9, 3:9])
    openProject.labels.ui.saveLabelButton.click()
    assert store.case("second").origin == "expert"
    assert store.undo().id == "third"
    assert store.case("second").label == "labels/second-drawn.nrrd"
    assert store.decisions == 0


def test_a_label_drawn_on_a_case_that_only_scores_is_what_it_scores_by(openProject):
    store = openProject.services.store
    openProject.project._table.select(["first"])
    openProject.project.ui.scoreOnlyButton.click()
    openProject.project._openCase("first")
    openProject.labels.ui.labelCaseButton.click()
    draw(openProject, np.s_[3:9, 3:9, 3:9])
    openProject.labels.ui.saveLabelButton.click()
    case = store.case("first")
    assert (case.role, case.label, case.status) == ("evaluation", None, "unlabeled")
    assert case.reference == "labels/first-drawn.nrrd"
    openProject.project.ui.scoreOnlyButton.click()
    assert store.case("first").label == "labels/first-drawn.nrrd"


def test_a_case_that_only_scores_and_has_no_label_goes_back_to_training_unlabeled(openProject):
    store = openProject.services.store
    store.project.case("second").role = "evaluation"
    store.project.save()
    openProject.project._table.select(["second"])
    openProject.project.ui.scoreOnlyButton.click()
    case = store.case("second")
    assert (case.role, case.label, case.origin, case.status) == (
        "training",
        None,
        "none",
        "unlabeled",
    )
    assert store.counts() == (1, 2, 0)


def test_a_folder_without_a_project_is_told_in_the_words_of_the_panel(openProject, tmp_path):
    openProject.services.dialogs.folder = tmp_path
    openProject.project.ui.openProjectButton.click()
    assert "'Open...'" in openProject.ui.messageLabel.text
    assert openProject.services.store.counts() == (1, 2, 0)


def test_a_project_that_cannot_be_read_is_not_taken_for_the_one_before(openProject, tmp_path):
    parameters = openProject.services.parameters
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "project.json").write_text("{")
    parameters.projectFolder = str(damaged)
    openProject.setParameters(parameters)
    assert openProject.services.store.project is None
    assert "is damaged" in openProject.ui.messageLabel.text


def test_a_project_that_may_only_be_read_is_shown_without_pictures(openProject, monkeypatch):
    def refuse(self, **_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    shutil.rmtree(openProject.services.store.folder / "thumbnails", ignore_errors=True)
    openProject.project._openCase("second")
    assert openProject.services.parameters.caseId == "second"
    assert openProject.ui.messageLabel.text == ""
    assert openProject.labels.ui.labelCaseButton.enabled


def test_cases_and_pseudo_labels_that_come_at_once_are_both_kept(openProject, tmp_path):
    """A folder is read for minutes; meanwhile a training may end, and the panel sees it."""
    from SAMSemiSegLib.project.project import Project
    from SAMSemiSegLib.project.review import offer

    store = openProject.services.store
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("fourth", "fifth"):
        shutil.copy(store.imagePath(store.case("second")), scans / f"{name}.nrrd")
    proposal = tmp_path / "proposal.nrrd"
    shutil.copy(store.labelPath(store.case("first")), proposal)

    def progress(done, count, name):
        if done == 1:
            offer(Project.load(store.folder), "second", proposal, 0.9)
            store.refresh()

    store.addFolder(scans, None, progress)
    for project in (store.project, Project.load(store.folder)):
        assert [case.id for case in project.cases][3:] == ["fifth", "fourth"]
        assert project.case("second").status == "pseudo"
