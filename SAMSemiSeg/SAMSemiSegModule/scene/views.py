"""What the slice views show, and nothing else of the scene."""

from __future__ import annotations

import slicer


def showVolume(volumeNode, overlayNode=None, overlayOpacity: float = 0.5, fit: bool = True) -> None:
    """Show a volume, with an overlay on top of it; ``fit`` fits the views to it."""
    slicer.util.setSliceViewerLayers(
        background=volumeNode,
        foreground=overlayNode,
        foregroundOpacity=overlayOpacity if overlayNode is not None else 0.0,
        fit=fit,
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
    """Color a volume of uncertainty in percent: clear where the model is sure, hot where not."""
    volumeNode.CreateDefaultDisplayNodes()
    display = volumeNode.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeRainbow")
    inferno = slicer.mrmlScene.GetFirstNodeByName("Inferno")
    if inferno is not None:
        display.SetAndObserveColorNodeID(inferno.GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0, 60)
    display.SetApplyThreshold(True)
    display.SetLowerThreshold(8)
    display.SetUpperThreshold(100)
