"""What was drawn outside the panel, in Slicer's own Segment Editor, on the scan of a case."""

from __future__ import annotations

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest.importorskip("pydantic", reason="the library's packages are not installed")
import numpy as np
import SimpleITK as sitk
import slicer
from actions import BLOCK, aSegmentation, draw, pretendPseudoLabels
from SAMSemiSegModule.scene.case_view import FILE, isUnsaved
from SAMSemiSegModule.scene.content import filledSegments

from SAMSemiSegLib.volumes.segmentation import PREDICTED, predicted_mark


def drawnOn(name: str, called: str, where=BLOCK):
    node = aSegmentation(slicer.util.getNode(name), where)
    node.SetName(called)
    return node


def label(panel, caseId: str) -> None:
    panel.project._openCase(caseId)
    panel.labels.ui.labelCaseButton.click()


def voxelsOf(panel, caseId: str) -> int:
    path = panel.services.store.labelPath(panel.services.store.case(caseId))
    return int((sitk.GetArrayFromImage(sitk.ReadImage(str(path))) > 0).sum())


def test_what_slicers_own_editor_drew_on_a_case_becomes_its_label(openProject):
    panel, parameters = openProject, openProject.services.parameters
    own = drawnOn("second", "Segmentation")
    panel.project.ui.addSceneButton.click()
    assert "'Segmentation' is drawn on 'second'" in panel.ui.messageLabel.text
    label(panel, "second")
    assert panel.labels.ui.editor.segmentationNode() is parameters.caseSegmentation is own
    assert own.GetName() == "Segmentation" and filledSegments(own) == ["liver"]
    panel.labels.ui.saveLabelButton.click()
    assert panel.services.store.case("second").status == "labeled"
    assert voxelsOf(panel, "second") == 6**3
    assert not isUnsaved(own)
    panel.project._openCase("third")
    assert slicer.mrmlScene.IsNodePresent(own) and not own.GetDisplayNode().GetVisibility()
    panel.project.ui.addSceneButton.click()
    assert "drawn on" not in panel.ui.messageLabel.text


def test_a_training_asks_about_a_drawing_that_was_taken_over_and_not_saved(
    openProject, monkeypatch
):
    panel, asked, started = openProject, [], []
    monkeypatch.setattr(panel.train, "_start", lambda *_: started.append(1))
    drawnOn("second", "Segmentation")
    label(panel, "second")
    panel.services.dialogs.saveDrawing = lambda question: asked.append(question)
    panel.train.train()
    assert not started and "'second' is not saved" in asked[0]
    panel.project._openCase("third")
    panel.services.dialogs.confirm = lambda question: asked.append(question)
    panel.train.train()
    assert not started and "not saved: second." in asked[1]


def test_of_several_drawings_the_newest_that_is_visible_is_offered(openProject):
    panel, parameters, asked = openProject, openProject.services.parameters, []
    drawings = [drawnOn("second", name) for name in ("first try", "better", "hidden")]
    drawings[2].GetDisplayNode().SetVisibility(False)
    panel.services.dialogs.confirm = lambda question: asked.append(question)
    label(panel, "second")
    assert "'better' is drawn on the scan of 'second'" in asked[0]
    assert "newest of first try, better;" in asked[0]
    begun = parameters.caseSegmentation
    assert begun is panel.labels.ui.editor.segmentationNode() and begun not in drawings

    # Nothing is drawn in the empty one yet, so the other can still be taken in its place.
    drawings[1].GetDisplayNode().SetVisibility(False)
    panel.services.dialogs.confirm = lambda question: True
    panel.labels.ui.labelCaseButton.click()
    assert parameters.caseSegmentation is drawings[0] is panel.labels.ui.editor.segmentationNode()
    assert not slicer.mrmlScene.IsNodePresent(begun)


def test_a_drawing_that_was_begun_is_kept_to(openProject):
    panel, parameters, asked = openProject, openProject.services.parameters, []
    panel.services.dialogs.confirm = lambda question: asked.append(question)
    label(panel, "second")
    begun = parameters.caseSegmentation
    draw(panel, BLOCK)
    drawnOn("second", "Segmentation")
    panel.labels.ui.labelCaseButton.click()
    panel.labels.ui.saveLabelButton.click()
    panel.labels.ui.labelCaseButton.click()
    assert parameters.caseSegmentation is begun and not asked


def test_a_result_of_a_model_and_an_empty_segmentation_are_not_taken_over(openProject):
    panel, parameters = openProject, openProject.services.parameters
    result = drawnOn("second", "result")
    segment = result.GetSegmentation().GetNthSegment(0)
    segment.SetTag(PREDICTED, predicted_mark("liver", 6**3, 1))
    empty = drawnOn("second", "empty", np.s_[:0, :0, :0])
    for caseId in ("second", "third"):
        label(panel, caseId)
        assert parameters.caseSegmentation.GetName() == f"{caseId} label"
        assert parameters.caseSegmentation not in (result, empty)
        draw(panel, BLOCK)
        panel.labels.ui.saveLabelButton.click()


def test_a_pseudo_label_that_came_meanwhile_is_shown_in_place_of_an_unsaved_drawing(openProject):
    panel, parameters = openProject, openProject.services.parameters
    own = drawnOn("second", "Segmentation")
    label(panel, "second")
    panel.project._openCase("third")
    pretendPseudoLabels(panel, (0.4, 0.9))
    panel.review.ui.nextButton.click()
    shown, store = parameters.caseSegmentation, panel.services.store
    assert shown.GetAttribute(FILE) == str(store.labelPath(store.case("second")))
    assert shown is not own and slicer.mrmlScene.IsNodePresent(own)
    panel.review.ui.acceptButton.click()
    assert store.case("second").status == "accepted"


def test_a_scan_that_was_loaded_to_show_its_case_stays_with_what_was_drawn_on_it(openProject):
    panel, parameters = openProject, openProject.services.parameters
    slicer.mrmlScene.Clear(0)
    panel.project._openCase("second")
    scan = parameters.caseVolume
    own = aSegmentation(scan, BLOCK)
    panel.project._openCase("third")
    assert slicer.mrmlScene.IsNodePresent(scan)
    label(panel, "second")
    assert (parameters.caseVolume, parameters.caseSegmentation) == (scan, own)
    panel.labels.ui.saveLabelButton.click()
    assert voxelsOf(panel, "second") == 6**3
    slicer.mrmlScene.RemoveNode(own)
    panel.project._openCase("third")
    assert not slicer.mrmlScene.IsNodePresent(scan)
