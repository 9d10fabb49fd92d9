"""What is kept in the scene and the project folder, and what may happen to both."""

from __future__ import annotations

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest.importorskip("pydantic", reason="the library's packages are not installed")
import slicer


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
    assert "/nowhere/project" in openProject.ui.messageLabel.text
