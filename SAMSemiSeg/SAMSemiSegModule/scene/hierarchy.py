"""Subject hierarchy: results stand under the patient and study of their source volume."""

from __future__ import annotations

import slicer


def placeBeside(node, sourceNode) -> None:
    """Put the node under the same patient and study as the source."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if hierarchy is None:
        return
    source = hierarchy.GetItemByDataNode(sourceNode)
    parent = hierarchy.GetItemParent(source) if source else hierarchy.GetSceneItemID()
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)
