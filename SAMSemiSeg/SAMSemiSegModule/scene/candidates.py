"""Volumes of the scene that can join the project, each with the segmentation drawn on it."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from SAMSemiSegModule.scene.case_view import isLoaded, keysOf
from SAMSemiSegModule.scene.content import filledSegments, isPrediction, segmentCount
from SAMSemiSegModule.scene.geometry import isValidVolume
from SAMSemiSegModule.scene.segmentations import DEFAULT_TERMINOLOGY

# A model was applied to a volume of the scene: the segmentation is that volume's and no other's.
RESULT = "SAMSemiSeg.Result"


@dataclass(frozen=True)
class Candidate:
    """A volume and its segmentation, None where it has none with a voxel in it."""

    volume: Any
    segmentation: Any = None


def candidates(volumes: Sequence[Any], keys: Set[str]) -> tuple[list[Candidate], list[str]]:
    """What can be added: of the given volumes, or of all in the scene that are not in the project.

    Args:
        volumes: those that the user chose; none: all.
        keys: the marks of the project's cases.

    Returns:
        The volumes that can be added, and a sentence on each of the others, and on each model's
        result that does not become a label.
    """
    chosen = list(volumes) or [node for node in _volumes() if not _isTaken(node, keys)]
    found, notes = [], []
    for volume in chosen:
        isValid, reason = isValidVolume(volume)
        if _isTaken(volume, keys):
            notes.append(_("'{name}' is in the project already.").format(name=volume.GetName()))
        elif not isValid:
            notes.append(reason)
        else:
            nodes = segmentationsOf(volume, keys)
            drawn = next((node for node in nodes if not isPrediction(node)), None)
            if nodes and drawn is None:
                notes.append(_noteOnResult(nodes[0], volume))
            found.append(Candidate(volume, drawn))
    return found, notes


def segmentationsOf(volume: Any, keys: Set[str]) -> list[Any]:
    """The segmentations of a volume that hold a voxel: first those with it as their reference
    geometry.

    One that was loaded from a file has no reference; it counts if it is named after the volume
    ("scan", "scan_1", "scan label"), lies inside it, and no case of the project (``keys``) has it.
    """
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    referring = [node for node in nodes if node.GetNodeReference(role) is volume]
    named = [
        node
        for node in nodes
        if node.GetNodeReference(role) is None
        and node.GetAttribute(RESULT) != "1"
        and not _isTaken(node, keys)
        and _isNamedAfter(node, volume)
        and _liesInside(node, volume)
    ]
    return [node for node in (*referring, *named) if segmentCount(node)]


def ownDrawings(volume: Any, keys: Set[str]) -> list[Any]:
    """The segmentations that a person drew on a volume and that no case of the project (``keys``)
    has, the newest last; those that are hidden only where all are."""
    found = segmentationsOf(volume, keys)
    own = [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        if node in found and not _isTaken(node, keys) and not isPrediction(node)
    ]
    visible = [
        node for node in own if node.GetDisplayNode() and node.GetDisplayNode().GetVisibility()
    ]
    return visible or own


def _volumes() -> list[Any]:
    """All volumes that the user sees as such."""
    return [
        node
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if not node.IsA("vtkMRMLLabelMapVolumeNode") and not node.GetHideFromEditors()
    ]


def _isTaken(node: Any, keys: Set[str]) -> bool:
    """Whether a case of the project has the node, or it was loaded only to show a case."""
    return isLoaded(node) or not keys.isdisjoint(keysOf(node))


def _isNamedAfter(node: Any, volume: Any) -> bool:
    """Whether it is, and no other volume's name fits as well: with "T1" and "T1_1" in the scene,
    "T1_1 label" belongs to "T1_1" alone."""
    start = volume.GetName()
    if not _beginsWith(node, start):  # asked of every pair, so before the scene is looked through
        return False
    names = [other.GetName() for other in _volumes() if other is not volume]
    return not any(len(name) >= len(start) and _beginsWith(node, name) for name in names)


def _beginsWith(node: Any, start: str) -> bool:
    name = node.GetName()
    return name.startswith(start) and not name[len(start) : len(start) + 1].isalnum()


def _liesInside(node: Any, volume: Any) -> bool:
    inner, outer = [0.0] * 6, [0.0] * 6
    node.GetRASBounds(inner)
    volume.GetRASBounds(outer)
    margin = max(volume.GetSpacing())
    return all(
        inner[low] >= outer[low] - margin and inner[low + 1] <= outer[low + 1] + margin
        for low in (0, 2, 4)
    )


def _noteOnResult(result: Any, volume: Any) -> str:
    return _(
        "'{result}' was made by a model and does not become the label of '{volume}' as it is; to "
        "draw one, double-click the case and click 'Label this case'."
    ).format(result=result.GetName(), volume=volume.GetName())


def labelsOf(segmentation: Any) -> list[dict[str, Any]]:
    """The segments as entries of a label set: name, value, color, terminology.

    A segment without a voxel is a helper or a leftover and no label, unless nothing is drawn at
    all: then it is the labels that were set up.
    """
    tag = slicer.vtkSegment.GetTerminologyEntryTagName()
    ids = segmentation.GetSegmentation().GetSegmentIDs()
    segments = [segmentation.GetSegmentation().GetSegment(segmentId) for segmentId in ids]
    filled = filledSegments(segmentation)
    labels = []
    for value, segment in enumerate(
        [s for s in segments if s.GetName() in filled] or segments, start=1
    ):
        entry = vtk.reference("")
        terminology = str(entry) if segment.GetTag(tag, entry) else None
        labels.append(
            {
                "name": segment.GetName(),
                "value": value,
                "color": tuple(round(255 * channel) for channel in segment.GetColor()),
                "terminology": None if terminology == DEFAULT_TERMINOLOGY else terminology,
            }
        )
    return labels
