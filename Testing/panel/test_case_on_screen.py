"""The nodes of the case on screen: whose they are, and what they show."""

from __future__ import annotations

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest.importorskip("pydantic", reason="the library's packages are not installed")
import numpy as np
import SimpleITK as sitk
import slicer
from actions import BLOCK, pretendPseudoLabels
from SAMSemiSegModule.scene.case_view import FILE
from SAMSemiSegModule.scene.content import filledSegments
from SAMSemiSegModule.scene.thumbnails import thumbnailPath

from SAMSemiSegLib.volumes.reading import read_image
from SAMSemiSegLib.volumes.volume import Volume
from SAMSemiSegLib.volumes.writing import write_labels


def test_a_pseudo_label_that_came_meanwhile_is_shown_before_it_is_accepted(openProject):
    from SAMSemiSegLib.project.project import Project
    from SAMSemiSegLib.project.review import offer

    panel, ui = openProject, openProject.review.ui
    store = panel.services.store
    pretendPseudoLabels(panel)
    ui.nextButton.click()
    other = Project.load(store.folder)
    newer = store.folder / "runs" / "run-2" / "proposals" / "third.nrrd"
    newer.parent.mkdir(parents=True)
    label = sitk.ReadImage(str(store.labelPath(store.case("third"))))
    label[3, 3, 3] = 1 - label[3, 3, 3]
    sitk.WriteImage(label, str(newer))
    offer(other, "third", newer, 0.7)
    ui.acceptButton.click()
    assert store.case("third").status == "pseudo"
    assert "look at it, then decide" in panel.ui.messageLabel.text
    assert panel.services.parameters.caseId == "third"
    ui.acceptButton.click()
    assert store.case("third").status == "accepted"
    assert store.labelPath(store.case("third")).read_bytes() == newer.read_bytes()


def test_nodes_that_were_deleted_are_named_and_come_back(openProject):
    panel, parameters = openProject, openProject.services.parameters
    pretendPseudoLabels(panel)
    panel.review.ui.nextButton.click()
    slicer.mrmlScene.RemoveNode(parameters.caseSegmentation)
    for button in (panel.review.ui.correctButton, panel.review.ui.acceptButton):
        button.click()
        assert "'third' is not in the scene any more" in panel.ui.messageLabel.text
    slicer.mrmlScene.RemoveNode(parameters.caseVolume)
    panel.review.ui.editButton.click()
    assert "'third' is not in the scene any more" in panel.ui.messageLabel.text
    panel.project._openCase("third")
    panel.review.ui.acceptButton.click()
    assert panel.services.store.case("third").status == "accepted"


def test_the_segment_editor_takes_mouse_and_keys_on_screen_only(openProject, widget):
    editor = openProject.labels.ui.editor
    widget.exit()
    widget.enter()
    assert not editor.observesViews and not editor.hasShortcuts  # it is not open
    openProject.project._openCase("second")
    openProject.labels.ui.labelCaseButton.click()
    assert editor.observesViews and editor.hasShortcuts
    editor.setActiveEffectByName("Paint")
    drawing = editor.segmentationNode()
    widget.exit()
    assert (editor.effect, editor.observesViews, editor.hasShortcuts) == ("", False, False)
    assert editor.segmentationNode() is drawing is openProject.services.parameters.caseSegmentation
    openProject.ui.labelsButton.collapsed = True
    widget.enter()
    assert editor.observesViews and editor.hasShortcuts

    slicer.mrmlScene.Clear(0)
    assert editor.segmentationNode() is None
    assert (editor.effect, editor.observesViews, editor.hasShortcuts) == ("", False, False)


def test_new_project_leaves_the_case_on_screen(openProject):
    openProject.project._openCase("second")
    openProject.services.dialogs.folder = openProject.services.store.folder.parent / "other"
    openProject.project.ui.newProjectButton.click()
    assert openProject.services.parameters.caseId == ""


def test_another_scan_under_a_name_that_is_free_again_is_another_case(openProject, tmp_path):
    panel, store = openProject, openProject.services.store
    panel.project._openCase("second")
    picture = thumbnailPath(store.folder, "second")
    assert picture.is_file()
    panel.project._table.select(["second"])
    panel.project.ui.removeCaseButton.click()
    assert store.case("second") is None and not picture.exists()
    other = tmp_path / "second.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.random.default_rng(5).random((9, 8, 7))), str(other))
    panel.services.dialogs.files = [other]
    panel.project.ui.addFilesButton.click()
    panel.project._openCase("second")
    shown = panel.services.parameters.caseVolume
    assert slicer.util.arrayFromVolume(shown).shape == (9, 8, 7)


def test_a_pseudo_label_that_came_while_its_case_was_on_screen_is_opened_to_correct(openProject):
    panel, parameters = openProject, openProject.services.parameters
    panel.project._openCase("second")
    pretendPseudoLabels(panel)
    assert parameters.caseSegmentation is None
    assert "is not on screen" in panel.review.ui.whyLabel.text
    assert not panel.review.ui.acceptButton.enabled
    panel.review.ui.editButton.click()
    assert filledSegments(parameters.caseSegmentation) == ["liver"]
    assert parameters.caseSegmentation.GetAttribute(FILE) is not None


def test_slicers_own_save_never_writes_over_a_label_of_the_project(openProject):
    panel, store = openProject, openProject.services.store
    case = store.case("first")
    label = store.labelPath(case).with_name("first.seg.nrrd")
    image = read_image(store.imagePath(case))
    drawn = np.zeros(image.array.shape, np.uint8)
    drawn[BLOCK] = 1
    write_labels(label, Volume(drawn, image.geometry), ["liver"], [1], [(200, 80, 50)])
    store.setExpertLabel("first", label)
    slicer.mrmlScene.Clear(0)
    panel.project._openCase("first")
    assert panel.services.parameters.caseSegmentation.GetStorageNode() is None


def test_a_copy_of_a_cases_nodes_is_the_users_own(openProject, tmp_path):
    panel, parameters = openProject, openProject.services.parameters
    slicer.mrmlScene.Clear(0)
    panel.project._openCase("first")
    volume, drawing = parameters.caseVolume, parameters.caseSegmentation
    copies = []
    for node in (volume, drawing):
        copy = slicer.mrmlScene.AddNewNodeByClass(node.GetClassName())
        copy.Copy(node)
        copy.SetName("my copy")
        copies.append(copy)
    panel.project._openCase("second")
    panel.project._openCase("first")
    assert all(slicer.mrmlScene.IsNodePresent(copy) for copy in copies)
    assert parameters.caseVolume not in copies and parameters.caseSegmentation not in copies

    panel.project.ui.addSceneButton.click()  # the copy joins as a case of its own
    assert "my_copy" in [case.id for case in panel.services.store.cases]
    panel.project._openCase("my_copy")
    panel.project._openCase("second")
    assert slicer.mrmlScene.IsNodePresent(copies[0])


def test_a_label_that_a_scene_was_saved_without_is_loaded_again(openProject):
    panel, parameters = openProject, openProject.services.parameters
    slicer.mrmlScene.Clear(0)
    panel.project._openCase("first")
    erased = parameters.caseSegmentation
    segmentId = erased.GetSegmentation().GetNthSegmentID(0)
    nothing = np.zeros(slicer.util.arrayFromVolume(parameters.caseVolume).shape, np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        nothing, erased, segmentId, parameters.caseVolume
    )
    panel.project._openCase("first")
    assert parameters.caseSegmentation is erased  # that was the user's doing
    erased.GetSegmentation().RemoveAllSegments()  # as it comes back
    panel.project._openCase("first")
    assert filledSegments(parameters.caseSegmentation) == ["liver"]
