"""One case of the project on screen: its volume, segmentation and uncertainty."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import slicer

from SAMSemiSegModule.scene.content import contentOf, isPrediction, segmentCount
from SAMSemiSegModule.scene.hierarchy import placeBeside
from SAMSemiSegModule.scene.segmentations import createSegmentation, loadLabels, renameSegments
from SAMSemiSegModule.scene.views import colorAsUncertainty, showOnly, showVolume
from SAMSemiSegModule.scene.volumes import loadVolume, removeNode

CASE = "SAMSemiSeg.Case"
LOADED = "SAMSemiSeg.Loaded"
FILE = "SAMSemiSeg.File"
CONTENT = "SAMSemiSeg.Content"
# A reference of a marked node to itself: its clone refers to it too, and so is not marked. Slicer
# keeps it right where a scene that is loaded beside another gets new IDs.
MARKED = "SAMSemiSeg.Marked"


class Parameters(Protocol):
    """Where it is kept which nodes are on screen."""

    caseId: str
    caseVolume: Any
    caseSegmentation: Any
    caseUncertainty: Any


class CaseView:
    """Shows cases one after the other.

    Nodes that were loaded here go when the next case comes, but for a volume that the user drew on
    by other means; nodes of the user's own are only shown, never removed, and nothing else of the
    scene is touched.
    """

    def show(self, store: Any, case: Any, parameters: Parameters, opacity: float = 0.4) -> None:
        """Load what is not in the scene yet, and fit the views to it; of a case whose label file is
        gone, the scan alone.

        Raises:
            OSError: a file cannot be read; the message names it.
        """
        key = caseKey(store, case)
        volume = findNode(key, "vtkMRMLScalarVolumeNode")
        isNew = volume is None
        if isNew:
            volume = _tagged(loadVolume(store.imagePath(case), case.id), key)
        # A volume that was deleted comes back; what is drawn on it stays.
        if parameters.caseId != case.id or parameters.caseVolume not in (None, volume):
            self.leave(parameters)
        try:
            segmentation = self._segmentation(store, case, volume, key)
            uncertainty = self._uncertainty(store, case, volume)
        except Exception:
            if isNew:
                removeNode(volume)
            raise
        # Segmentations of other cases would lie over this one; those of no case are left alone.
        nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        others = [node for node in nodes if keysOf(node)]
        parameters.caseId = case.id
        parameters.caseVolume = volume
        parameters.caseSegmentation = segmentation
        parameters.caseUncertainty = uncertainty
        showOnly(segmentation, others)
        showVolume(volume, uncertainty, opacity)

    def leave(self, parameters: Parameters, keepsUnsaved: bool = False) -> None:
        """Take what was loaded for the case on screen out of the scene.

        Args:
            keepsUnsaved: an unsaved drawing becomes a node of the user's own.
        """
        nodes = (
            parameters.caseUncertainty,
            parameters.caseSegmentation,
            parameters.caseVolume,
        )
        parameters.caseId = ""
        parameters.caseUncertainty = None
        parameters.caseSegmentation = None
        parameters.caseVolume = None
        for node in nodes:
            if node is None:
                continue
            if keepsUnsaved and isUnsaved(node):
                node.RemoveAttribute(LOADED)
            if isLoaded(node):
                if not _isDrawnOn(node):
                    removeNode(node)
            elif node.IsA("vtkMRMLSegmentationNode") and node.GetDisplayNode():
                node.GetDisplayNode().SetVisibility(False)

    def editable(self, store: Any, parameters: Parameters) -> Any:
        """The segmentation of the case on screen; an empty one where it has none."""
        if parameters.caseSegmentation is None:
            volume = parameters.caseVolume
            node = createSegmentation(volume, store.labels, f"{parameters.caseId} label")
            _tagged(node, caseKey(store, store.case(parameters.caseId)))
            node.SetAttribute(CONTENT, contentOf(node))
            placeBeside(node, volume)
            parameters.caseSegmentation = node
        return parameters.caseSegmentation

    def _segmentation(self, store: Any, case: Any, volume: Any, key: str) -> Any:
        path = store.labelPath(case)
        nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        present = [node for node in nodes if key in keysOf(node)]
        for node in present:
            # A scene that was saved without it brings it back empty.
            hasSegments = node.GetSegmentation().GetNumberOfSegments() > 0
            isLost = isLoaded(node) and path is not None and not hasSegments
            if node.GetAttribute(FILE) in (None, str(path)) and not isLost:
                return node
        for node in present:
            if isLoaded(node):
                removeNode(node)  # of a label that the project no longer has
        if path is None or store.hasLostLabel(case):
            return None
        isOwn = case.origin == "pseudo"
        node = loadLabels(path, volume, store.labels, f"{case.id} label", isOwn)
        markAsSaved(node, path)
        placeBeside(node, volume)
        return _tagged(node, key)

    def _uncertainty(self, store: Any, case: Any, volume: Any) -> Any:
        path = store.uncertaintyPath(case)
        if path is None:
            return None
        key = caseKey(store, case) + "|uncertainty"
        node = findNode(key, "vtkMRMLScalarVolumeNode")
        if node is None:
            node = _tagged(loadVolume(path, f"{case.id} uncertainty"), key)
            placeBeside(node, volume)
        colorAsUncertainty(node)
        return node


def caseKey(store: Any, case: Any) -> str:
    """What marks the nodes of a case: also when its project's folder was moved, and not when
    another scan has taken the place of one that was removed."""
    return f"{store.project.identity or store.folder}|{case.id}|{case.image}"


def findNode(key: str, className: str) -> Any:
    """The node of that mark and class, None where there is none."""
    nodes = slicer.util.getNodesByClass(className)
    return next((node for node in nodes if key in keysOf(node)), None)


def markAsCase(node: Any, key: str) -> None:
    """Say that a node of the user's own is this case's; it may be a case of other projects too."""
    node.SetAttribute(CASE, "\n".join(dict.fromkeys([*keysOf(node), key])))
    node.RemoveAttribute(LOADED)  # a clone has it from its original
    node.SetNodeReferenceID(MARKED, node.GetID())


def keysOf(node: Any) -> list[str]:
    """The marks of the cases that a node is of."""
    return (node.GetAttribute(CASE) or "").splitlines() if _isMarked(node) else []


def isLoaded(node: Any) -> bool:
    """Whether it was loaded only to show a case, and goes with it."""
    return node.GetAttribute(LOADED) == "1" and _isMarked(node)


def markAsSaved(segmentation: Any, path: Path) -> None:
    """Say that what is drawn now is what the project's label file holds."""
    segmentation.SetAttribute(FILE, str(path))
    segmentation.SetAttribute(CONTENT, contentOf(segmentation))


def markAsDrawing(segmentation: Any, key: str, path: Path | None) -> None:
    """Say that a segmentation of the user's own is the drawing on a case and is not saved yet.

    Args:
        path: of the case's label file; once another one comes, that is shown in its place.
    """
    markAsCase(segmentation, key)
    segmentation.SetAttribute(FILE, str(path))
    segmentation.SetAttribute(CONTENT, "not saved")


def isUnsaved(segmentation: Any) -> bool:
    """Whether something was drawn since the label was loaded or saved."""
    content = segmentation.GetAttribute(CONTENT) if segmentation is not None else None
    return content is not None and content != contentOf(segmentation)


def isUntouched(segmentation: Any) -> bool:
    """Whether it was begun here as an empty drawing, and still is one."""
    isBegun = isLoaded(segmentation) and segmentation.GetAttribute(FILE) is None
    return isBegun and not segmentCount(segmentation)


def renameLabel(store: Any, old: str, new: str) -> None:
    """Rename a label's segments of the project's cases in the scene: they are found by its name."""
    keys = {caseKey(store, case) for case in store.cases}
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if not keys.isdisjoint(keysOf(node)):
            wasUnsaved = isUnsaved(node)
            renameSegments(node, old, new)
            if not wasUnsaved:
                node.SetAttribute(CONTENT, contentOf(node))


def _isDrawnOn(node: Any) -> bool:
    """Whether a person drew a segmentation of their own on a volume: both stay in the scene, where
    they find each other again."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return any(
        other.GetNodeReference(role) is node
        and not isLoaded(other)
        and segmentCount(other)
        and not isPrediction(other)
        for other in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    )


def _isMarked(node: Any) -> bool:
    return node.GetNodeReferenceID(MARKED) == node.GetID()


def _tagged(node: Any, key: str) -> Any:
    node.SetAttribute(CASE, key)
    node.SetNodeReferenceID(MARKED, node.GetID())
    node.SetAttribute(LOADED, "1")
    return node
