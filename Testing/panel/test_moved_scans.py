"""Scans that a transform moved: what is drawn on them is of their voxels, or is not saved."""

from __future__ import annotations

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest.importorskip("pydantic", reason="the library's packages are not installed")
import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from actions import BLOCK, draw


def move(volume, scale=1.0):
    """A transform over the volume that puts it elsewhere."""
    matrix = vtk.vtkTransform()
    matrix.Translate(7, -5, 3)
    matrix.RotateZ(20)
    matrix.Scale(scale, scale, scale)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    transform.SetMatrixTransformToParent(matrix.GetMatrix())
    volume.SetAndObserveTransformNodeID(transform.GetID())


def liesOnImage(panel, caseId: str, where) -> bool:
    """Whether the case's label is the voxels there, on the grid of the project's image."""
    store = panel.services.store
    label = sitk.ReadImage(str(store.labelPath(store.case(caseId))))
    image = sitk.ReadImage(str(store.imagePath(store.case(caseId))))
    expected = np.zeros(image.GetSize()[::-1], bool)
    expected[where] = True
    isOnGrid = image.IsSameImageGeometryAs(label)
    return isOnGrid and np.array_equal(sitk.GetArrayFromImage(label) > 0, expected)


@pytest.mark.parametrize("isHardened", [False, True])
def test_what_is_drawn_on_a_scan_that_was_moved_becomes_the_label_of_its_voxels(
    openProject, isHardened
):
    panel, volume = openProject, slicer.util.getNode("second")
    move(volume)
    if isHardened:
        volume.HardenTransform()
    panel.project._openCase("second")
    panel.labels.ui.labelCaseButton.click()
    draw(panel, BLOCK)
    panel.labels.ui.saveLabelButton.click()
    assert panel.services.store.case("second").status == "labeled", panel.ui.messageLabel.text
    assert liesOnImage(panel, "second", BLOCK)


@pytest.mark.parametrize("isHardened", [False, True])
def test_a_drawing_from_before_its_scan_was_moved_is_neither_saved_beside_it_nor_lost(
    openProject, isHardened
):
    panel, volume, store = openProject, slicer.util.getNode("second"), openProject.services.store
    panel.project._openCase("second")
    panel.labels.ui.labelCaseButton.click()
    draw(panel, BLOCK)
    move(volume)
    if isHardened:
        volume.HardenTransform()
    panel.labels.ui.saveLabelButton.click()
    assert "scan of 'second' was moved" in panel.ui.messageLabel.text
    assert store.case("second").status == "unlabeled"
    assert not list((store.folder / "labels").glob("second*"))

    slicer.mrmlScene.RemoveNode(volume)  # as the sentence says
    panel.project._openCase("second")
    panel.labels.ui.saveLabelButton.click()
    assert store.case("second").status == "labeled", panel.ui.messageLabel.text
    assert liesOnImage(panel, "second", BLOCK)


def test_a_drawing_on_a_scan_that_was_scaled_is_not_saved(openProject):
    panel = openProject
    move(slicer.util.getNode("second"), scale=1.5)
    panel.project._openCase("second")
    panel.labels.ui.labelCaseButton.click()
    draw(panel, BLOCK)
    panel.labels.ui.saveLabelButton.click()
    assert "scan of 'second' was moved" in panel.ui.messageLabel.text
    assert panel.services.store.case("second").status == "unlabeled"
