"""What the slice views show, and nothing else of the scene."""

from __future__ import annotations

import slicer


def showVolume(volumeNode, overlayNode=None, overlayOpacity: float = 0.5) -> None:
    """Show a volume, with an overlay on top of it, and fit the views to it."""
    slicer.util.setSliceViewerLayers(
        background=volumeNode,
        foreground=overlayNode,
        foregroundOpacity=overlayOpacity if overlayNode is not None else 0.0,
        fit=True,
    )


def showOnly(segmentationNode, others) -> None:
    """Show one segmentation and hide the given others."""
    for node in others:
        if node is not None and node is not segmentationNode and node.GetDisplayNode():
            node.GetDisplayNode().SetVisibility(False)
    if segmentationNode is not None:
        segmentationNode.CreateDefaultDisplayNodes()
        segmentationNode.GetDisplayNode().SetVisibility(True)


def colorAsUncertainty(volumeNode) -> None:
    """Color a volume of uncertainty 0..1: clear where the model is sure, hot where it is not."""
    volumeNode.CreateDefaultDisplayNodes()
    display = volumeNode.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeFileColdToHotRainbow.txt")
    if display.GetColorNode() is None:
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeRainbow")
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0.0, 1.0)
    display.SetApplyThreshold(True)
    display.SetLowerThreshold(0.1)
    display.SetUpperThreshold(1.0)
