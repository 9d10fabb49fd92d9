"""What a segmentation holds, read layer by layer: to ask for one segment after the other copies the
whole grid each time, which takes seconds for many segments on a large scan."""

from __future__ import annotations

import hashlib
from typing import Any

import slicer
import vtk


def segmentCount(node: Any) -> int:
    """Number of segments that hold a voxel."""
    return len(filledSegments(node))


def filledSegments(node: Any) -> list[str]:
    """Names of the segments that hold a voxel."""
    return [name for name, _count, _places in _filled(node)]


def emptySegments(node: Any) -> list[str]:
    """Names of the segments that hold none."""
    filled, segmentation = filledSegments(node), node.GetSegmentation()
    names = [segmentation.GetSegment(i).GetName() for i in segmentation.GetSegmentIDs()]
    return [name for name in names if name not in filled]


def contentOf(node: Any) -> str:
    """A short text that is another one once a voxel, or the name of a filled segment, changes.

    Times of modification would not do: saving the scene, for example, counts as a change there.
    """
    return hashlib.sha1(repr(sorted(_filled(node))).encode(), usedforsecurity=False).hexdigest()


def isPrediction(node: Any) -> bool:
    """Whether a model made it and no person has changed it since, as the segments' tags tell."""
    from SAMSemiSegLib.volumes.segmentation import PREDICTED, predicted_mark

    counts = {name: count for name, count, _places in _filled(node)}
    segmentation = node.GetSegmentation()
    number = segmentation.GetNumberOfSegments()
    tag = vtk.reference("")
    for segmentId in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segmentId)
        name = segment.GetName()
        made = predicted_mark(name, counts.get(name, 0), number)
        if not segment.GetTag(PREDICTED, tag) or str(tag) != made:
            return False
    return bool(number)


def _filled(node: Any) -> list[tuple[str, int, float]]:
    """Name, number of voxels, and a sum over their places, of each segment that holds a voxel."""
    import numpy as np
    from vtk.util.numpy_support import vtk_to_numpy

    segmentation = node.GetSegmentation()
    binary = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    if segmentation.GetNumberOfSegments() and not segmentation.ContainsRepresentation(binary):
        segmentation.CreateRepresentation(binary)  # models, contours of a treatment plan
    found = []
    for layer in range(segmentation.GetNumberOfLayers(binary)):
        image = segmentation.GetLayerDataObject(layer, binary)
        if image is None or image.GetNumberOfPoints() == 0:
            continue
        segments = [
            segmentation.GetSegment(segmentId)
            for segmentId in segmentation.GetSegmentIDsForLayer(layer, binary)
        ]
        array = vtk_to_numpy(image.GetPointData().GetScalars())
        planes = array.reshape(image.GetDimensions()[2], -1)
        # Counted from the grid's origin, whatever part of the grid the layer covers.
        left, right, front, back, bottom, _top = image.GetExtent()
        columns, rows = np.arange(left, right + 1), np.arange(front, back + 1)
        places = ((rows[:, None] * 65521 + columns) * 2654435761 >> 8 & 0xFFFFF).ravel()
        size = int(max(segment.GetLabelValue() for segment in segments)) + 1
        counts, sums = np.zeros(size, np.int64), np.zeros(size)
        for height, plane in enumerate(planes, bottom):
            inside = np.flatnonzero(plane)
            if inside.size:
                values = plane[inside]
                counts += np.bincount(values, minlength=size)[:size]
                weights = (places[inside] + height * 40503) % 0xFFFFF
                sums += np.bincount(values, weights, size)[:size]
        for segment in segments:
            value = segment.GetLabelValue()
            if counts[value]:
                found.append((segment.GetName(), int(counts[value]), float(sums[value])))
    return found
