"""The panel's sections: projects, cases, labels, sample data."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest.importorskip("pydantic", reason="the library's packages are not installed")
import numpy as np
import slicer
from actions import aScan, pretendPseudoLabels


def test_each_section_says_what_it_waits_for(panel):
    reasons = [section.isValid()[1] for section in panel.sections]
    assert "Create or open a project" in panel.project.ui.reasonLabel.text
    assert all(reasons[1:])
    for section in panel.sections[1:]:
        assert not section.ui.body.enabled
        assert section.ui.reasonLabel.text


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


def test_a_label_can_be_renamed_after_cases_are_labeled(openProject):
    store, table = openProject.services.store, openProject.labels.ui.labelTable
    pretendPseudoLabels(openProject)
    openProject.review.ui.nextButton.click()
    table.item(0, 1).setText("liver of the left")
    openProject.review.ui.correctButton.click()
    assert store.case("third").status == "corrected", openProject.ui.messageLabel.text
    openProject.project._openCase("first")
    openProject.labels.ui.labelCaseButton.click()
    openProject.labels.ui.saveLabelButton.click()
    assert "'first' is saved" in openProject.ui.messageLabel.text


def test_a_label_keeps_its_value_once_files_hold_it(openProject):
    table = openProject.labels.ui.labelTable
    table.item(0, 2).setText("5")
    assert "stay as they are" in openProject.ui.messageLabel.text and table.item(0, 2).text() == "1"
    openProject.services.store.remove(["first"])
    table.item(0, 2).setText("5")
    assert [label.value for label in openProject.services.store.labels] == [5]


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


def test_sample_data_is_registered_with_checksums(widget):
    from host.sample_data import SampleDataLogic

    source = SampleDataLogic.sources[-1]
    assert Path(source["thumbnailFileName"]).is_file()
    assert len(source["uris"]) == len(source["checksums"]) == len(source["fileNames"]) == 8
    assert all(len(value) == len("SHA256:") + 64 for value in source["checksums"])


def test_a_label_that_files_hold_is_not_removed(openProject):
    """Its value would go to the next label that is added."""
    store, ui = openProject.services.store, openProject.labels.ui
    ui.addLabelButton.click()
    for row, names in ((1, ["liver"]), (0, ["liver"])):
        ui.labelTable.setCurrentCell(row, 1)
        ui.removeLabelButton.click()
        assert [label.name for label in store.labels] == names
    assert "'liver' stays: the label of 'first' holds it" in openProject.ui.messageLabel.text


@pytest.mark.parametrize("isGone", [False, True])
def test_a_case_whose_label_cannot_be_read_leaves_nothing_in_the_scene(openProject, isGone):
    """With the file gone the scan is shown all the same, and goes with the next case."""
    store = openProject.services.store
    pretendPseudoLabels(openProject)
    path = store.labelPath(store.case("third"))
    path.unlink() if isGone else path.write_bytes(b"NRRD0004 and no more")
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("third"))
    before = len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
    openProject.project._openCase("third")
    assert "third.nrrd" in openProject.ui.messageLabel.text
    if isGone:
        openProject.project._openCase("second")
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == before
