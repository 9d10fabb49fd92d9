"""Volumes and segmentations for the tests of the scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from SAMSemiSegModule.scene.segmentations import createSegmentation


@dataclass(frozen=True)
class Label:
    name: str
    value: int
    color: tuple[int, int, int]


LABELS = [Label("anterior", 1, (230, 97, 76)), Label("posterior", 2, (78, 162, 206))]


def aVolume(shape=(12, 14, 16), spacing=(0.7, 0.9, 2.5), origin=(5.0, -8.0, 31.0), turned=True):
    """An anisotropic volume with turned axes."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
    array = np.random.default_rng(0).integers(0, 500, shape).astype(np.int16)
    slicer.util.updateVolumeFromArray(node, array)
    transform = vtk.vtkTransform()
    transform.Translate(*origin)
    if turned:
        transform.RotateX(20)
        transform.RotateZ(-35)
    transform.Scale(*spacing)
    node.SetIJKToRASMatrix(transform.GetMatrix())
    return node


def aTransform(matrix) -> object:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    node.SetMatrixTransformToParent(matrix)
    return node


def rigid() -> object:
    transform = vtk.vtkTransform()
    transform.RotateY(25)
    transform.Translate(10, -20, 4)
    return aTransform(transform.GetMatrix())


def worldMatrix(node):
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def box(shape, where) -> np.ndarray:
    array = np.zeros(shape, np.uint8)
    array[where] = 1
    return array


def aSegmentation(volume, **boxes):
    node = createSegmentation(volume, LABELS, "drawn")
    shape = slicer.util.arrayFromVolume(volume).shape
    for name, where in boxes.items():
        segmentId = node.GetSegmentation().GetSegmentIdBySegmentName(name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(box(shape, where), node, segmentId, volume)
    return node
