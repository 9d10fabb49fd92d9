"""Segmentations: from segments to the project's label values, and back.

Inside the project a voxel has one label. Segments may overlap; then the label that stands later in
the label set is kept, and the number of such voxels is told.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import slicer
import vtk
from slicer.i18n import tr as _

from SAMSemiSegModule.scene.volumes import hardenedCopy, removeNode, saveAtomically

# DICOM's "Tissue", the terminology entry of a segment whose label set gives none.
DEFAULT_TERMINOLOGY = (
    "Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^85756007^Tissue~SCT^85756007^Tissue~^^~Anatomic codes - DICOM master list~^^~^^"
)


class Label(Protocol):
    """One entry of the project's label set."""

    @property
    def name(self) -> str: ...

    @property
    def value(self) -> int: ...

    @property
    def color(self) -> tuple[int, int, int]: ...


@dataclass(frozen=True)
class ExportedLabels:
    """What became of the segments.

    Attributes:
        voxels: number of voxels by label name.
        overlapping: voxels that lay in several segments.
        ignored: names of segments that the label set does not know.
    """

    voxels: dict[str, int]
    overlapping: int
    ignored: list[str]


def createSegmentation(volumeNode, labels: Sequence[Label], name: str):
    """An empty segmentation on the volume's grid, one segment a label."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    # The transform first: the grid is then taken relative to it, and not transformed twice.
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    for label in labels:
        _addSegment(node, label)
    return node


def labelArray(segmentationNode, volumeNode, labels: Sequence[Label]):
    """Label values on the volume's grid.

    Returns:
        The (Z, Y, X) array of values, and an account of what became of the segments.
    """
    import numpy as np

    voxelType = np.min_scalar_type(max((label.value for label in labels), default=0))
    values = np.zeros(slicer.util.arrayFromVolume(volumeNode).shape, voxelType)
    overlapping = np.zeros(values.shape, bool)
    segmentation = segmentationNode.GetSegmentation()
    known = set()
    for label in labels:
        # Several may be called alike: what was drawn in pieces, or copied together.
        for segmentId in _named(segmentation, label.name):
            known.add(segmentId)
            inside = _segmentArray(segmentationNode, segmentId, volumeNode) > 0
            overlapping |= inside & (values > 0) & (values != label.value)
            values[inside] = label.value
    voxels = {label.name: int((values == label.value).sum()) for label in labels}
    ids = segmentation.GetSegmentIDs()
    ignored = [segmentation.GetSegment(i).GetName() for i in ids if i not in known]
    return values, ExportedLabels(voxels, int(overlapping.sum()), ignored)


def isDrawnOnGridOf(segmentationNode, volumeNode) -> bool:
    """Whether all that is drawn lies on the volume's own voxels, one by one."""
    import numpy as np

    segmentation = segmentationNode.GetSegmentation()
    binary = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    isUnderSame = segmentationNode.GetParentTransformNode() is volumeNode.GetParentTransformNode()
    if not isUnderSame or segmentation.GetSourceRepresentationName() != binary:
        return False
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    grid = slicer.util.arrayFromVTKMatrix(matrix)
    size = volumeNode.GetImageData().GetDimensions()
    corners = np.array(list(itertools.product(*((0, n) for n in size), (1,))))
    for number in range(segmentation.GetNumberOfLayers(binary)):
        layer = segmentation.GetLayerDataObject(number, binary)
        if layer is None or layer.GetNumberOfPoints() == 0:
            continue
        layer.GetImageToWorldMatrix(matrix)
        apart = (slicer.util.arrayFromVTKMatrix(matrix) - grid) @ corners.T
        if np.abs(apart).max() > 0.05 * min(volumeNode.GetSpacing()):
            return False
    return True


def exportLabels(
    segmentationNode, volumeNode, labels: Sequence[Label], path: Path
) -> ExportedLabels:
    """Write the segments as a label map on the volume's grid, the way the project stores labels.

    Raises:
        ValueError: no segment of the label set holds a voxel.
        OSError: the file cannot be written.
    """
    values, account = labelArray(segmentationNode, volumeNode, labels)
    if not any(account.voxels.values()):
        names = ", ".join(label.name for label in labels)
        raise ValueError(
            _(
                "'{name}' holds no voxel of the project's labels ({labels}); draw one, or rename "
                "its segments to them."
            ).format(name=segmentationNode.GetName(), labels=names)
        )
    with hardenedCopy(volumeNode) as grid:
        node = slicer.modules.volumes.logic().CreateAndAddLabelVolume(
            slicer.mrmlScene, grid, "SAMSemiSeg export"
        )
        try:
            slicer.util.updateVolumeFromArray(node, values)
            saveAtomically(node, path)
        finally:
            removeNode(node)
    return account


def loadLabels(path: Path, volumeNode, labels: Sequence[Label], name: str, isOwn: bool = False):
    """Load a label file of the project as a segmentation with the label set's names and colors.

    Args:
        isOwn: a run of this project has written it.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        properties = {"name": name, "show": False}
        if path.name.endswith(".seg.nrrd"):
            node = slicer.util.loadSegmentation(str(path), properties)
            # Slicer's own Save would write what is drawn over the project's file.
            slicer.mrmlScene.RemoveNode(node.GetStorageNode())
            _useLabelNames(node, labels, isOwn)
            return node
        labelMap = slicer.util.loadLabelVolume(str(path), properties)
    except RuntimeError as error:
        raise OSError(
            _("The label '{path}' cannot be read; is its drive connected?").format(path=path)
        ) from error
    try:
        return _segmentationFromLabelMap(labelMap, volumeNode, labels, name)
    finally:
        removeNode(labelMap)


def _segmentationFromLabelMap(labelMap, volumeNode, labels: Sequence[Label], name: str):
    # Files lie in the world; a volume under a transform has its segmentation under it too.
    node = createSegmentation(volumeNode, labels, name)
    node.SetAndObserveTransformNodeID(None)
    node.SetReferenceImageGeometryParameterFromVolumeNode(labelMap)
    array = slicer.util.arrayFromVolume(labelMap)
    for label in labels:
        mask = (array == label.value).astype("uint8")
        if mask.any():
            segmentId = node.GetSegmentation().GetSegmentIdBySegmentName(label.name)
            slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segmentId, labelMap)
    return node


def _useLabelNames(node, labels: Sequence[Label], isOwn: bool) -> None:
    """Name segments of a file as the library reads them: by name if all are known, else by value;
    in the project's own files by value first.

    A label may have been renamed since the file was written.
    """
    segmentation = node.GetSegmentation()
    segments = [segmentation.GetSegment(i) for i in segmentation.GetSegmentIDs()]
    named = {label.name.strip().casefold(): label.name for label in labels}
    names = [named.get(segment.GetName().strip().casefold()) for segment in segments]
    values = [segment.GetLabelValue() for segment in segments]
    valued = {label.value: label.name for label in labels}
    byValue = [valued.get(value) for value in values]
    hasOwnValues = len(set(values)) == len(values)  # from before Slicer 4.11: all are 1
    if isOwn and hasOwnValues and None not in byValue:
        names = byValue
    elif None in names:
        if not hasOwnValues:
            return
        names = byValue
    for segment, name in zip(segments, names, strict=True):
        if name is not None:
            segment.SetName(name)


def _named(segmentation, name: str) -> list[str]:
    """The ids of the segments of a name, as the library compares names."""
    return [
        segmentId
        for segmentId in segmentation.GetSegmentIDs()
        if segmentation.GetSegment(segmentId).GetName().strip().casefold()
        == name.strip().casefold()
    ]


def _segmentArray(segmentationNode, segmentId: str, volumeNode):
    """One segment on the volume's grid, (Z, Y, X).

    ``slicer.util.arrayFromSegmentBinaryLabelmap`` does the same, but leaves a display node behind.
    """
    import numpy as np

    ids = vtk.vtkStringArray()
    ids.InsertNextValue(segmentId)
    temporary = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "SAMSemiSeg export")
    try:
        logic = slicer.modules.segmentations.logic()
        if not logic.ExportSegmentsToLabelmapNode(segmentationNode, ids, temporary, volumeNode):
            return np.zeros(slicer.util.arrayFromVolume(volumeNode).shape, np.uint8)
        return np.array(slicer.util.arrayFromVolume(temporary))
    finally:
        display = temporary.GetDisplayNode()
        colors = display.GetColorNode() if display is not None else None
        removeNode(temporary)
        if colors is not None and not colors.GetSingletonTag():  # made by the export
            slicer.mrmlScene.RemoveNode(colors)


def _addSegment(node, label: Label) -> None:
    segment = slicer.vtkSegment()
    segment.SetName(label.name)
    segment.SetColor([channel / 255 for channel in label.color])
    segment.SetLabelValue(label.value)
    terminology = getattr(label, "terminology", None) or DEFAULT_TERMINOLOGY
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), terminology)
    segmentId = node.GetSegmentation().GenerateUniqueSegmentID(label.name)
    binary = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    segment.AddRepresentation(binary, slicer.vtkOrientedImageData())
    node.GetSegmentation().AddSegment(segment, segmentId)


def renameSegments(node, old: str, new: str) -> None:
    """Rename the segments of one name."""
    segmentation = node.GetSegmentation()
    for segmentId in segmentation.GetSegmentIDs():
        if segmentation.GetSegment(segmentId).GetName() == old:
            segmentation.GetSegment(segmentId).SetName(new)
