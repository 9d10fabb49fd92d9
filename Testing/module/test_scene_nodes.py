"""What the nodes of a case carry, and what survives a scene that is saved and loaded."""

from __future__ import annotations

import pytest

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
import numpy as np  # noqa: E402
from SAMSemiSegModule.scene.case_view import findNode, keysOf, markAsCase  # noqa: E402
from SAMSemiSegModule.scene.hierarchy import placeBeside  # noqa: E402
from SAMSemiSegModule.scene.plots import CurvePlot  # noqa: E402
from SAMSemiSegModule.scene.segmentations import labelArray  # noqa: E402
from scene_phantoms import LABELS, aSegmentation, aVolume, rigid, worldMatrix  # noqa: E402


def test_results_stand_under_the_patient_and_study_of_the_source(scene):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "patient")
    study = hierarchy.CreateStudyItem(patient, "study")
    volume = aVolume()
    hierarchy.CreateItem(study, volume)
    segmentation = aSegmentation(volume, anterior=np.s_[2:5, 3:6, 4:7])
    placeBeside(segmentation, volume)
    item = hierarchy.GetItemByDataNode(segmentation)
    assert hierarchy.GetItemParent(item) == study


def test_curves_are_plot_nodes_that_grow_and_go(scene):
    count = scene.GetNumberOfNodes()
    plot = CurvePlot("Loss", "Step", "Loss")
    plot.update({"supervised": [(1, 0.9), (2, 0.5)]})
    plot.update({"supervised": [(1, 0.9), (2, 0.5), (3, 0.4)], "consistency": [(3, 0.1)]})
    series = plot.chartNode.GetNthPlotSeriesNode(0)
    assert series.GetTableNode().GetTable().GetNumberOfRows() == 3
    assert plot.chartNode.GetNumberOfPlotSeriesNodes() == 2
    plot.remove()
    assert scene.GetNumberOfNodes() == count


def test_case_survives_an_mrb(scene, tmp_path):
    """Geometry, transform, overlapping segments, marks and hierarchy, through Slicer's bundle."""
    volume = aVolume()
    volume.CreateDefaultDisplayNodes()
    volume.SetAndObserveTransformNodeID(rigid().GetID())
    drawn = aSegmentation(volume, anterior=np.s_[2:6, 2:6, 2:6], posterior=np.s_[4:8, 2:6, 2:6])
    markAsCase(drawn, "project|scan")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "patient")
    study = hierarchy.CreateStudyItem(patient, "study")
    hierarchy.CreateItem(study, volume)
    placeBeside(drawn, volume)
    before = worldMatrix(volume), labelArray(drawn, volume, LABELS)
    assert scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    volume = slicer.util.getNode("scan")
    drawn = findNode("project|scan", "vtkMRMLSegmentationNode")
    assert np.allclose(worldMatrix(volume), before[0])
    assert volume.GetParentTransformNode().GetName() == "moved"
    values, account = labelArray(drawn, volume, LABELS)
    assert np.array_equal(values, before[1][0]) and account == before[1][1]
    assert account.overlapping == 32
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(drawn))
    assert hierarchy.GetItemName(parent) == "study"


def test_marks_outlive_the_import_of_their_scene_beside_another(scene, tmp_path):
    """Its nodes get new IDs there; a copy of a node is not marked."""
    volume = aVolume()
    markAsCase(volume, "project|scan")
    before = volume.GetID()
    assert scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    other = aVolume()
    assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    found = findNode("project|scan", "vtkMRMLScalarVolumeNode")
    assert found not in (None, other) and found.GetID() != before
    copy = slicer.mrmlScene.AddNewNodeByClass(found.GetClassName())
    copy.Copy(found)
    assert keysOf(copy) == [] and keysOf(found) == ["project|scan"]
