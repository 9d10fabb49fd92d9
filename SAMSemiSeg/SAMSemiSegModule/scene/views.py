"""What the slice views show, and nothing else of the scene."""

from __future__ import annotations

import slicer
import vtk

# Uncertainty, from a little to much: yellow, orange, red.
HEAT = ((1.0, 0.95, 0.55), (1.0, 0.65, 0.2), (0.85, 0.1, 0.1))
HEAT_TAG = "SAMSemiSegUncertainty"


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
    display.SetAndObserveColorNodeID(_heat().GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0, 60)
    display.SetApplyThreshold(True)
    display.SetLowerThreshold(8)
    display.SetUpperThreshold(100)


def _heat():
    """The colors of uncertainty, one node for all volumes; it is not saved with the scene."""
    node = slicer.mrmlScene.GetSingletonNode(HEAT_TAG, "vtkMRMLColorTableNode")
    if node is not None:
        return node
    ramp = vtk.vtkColorTransferFunction()
    for index, color in enumerate(HEAT):
        ramp.AddRGBPoint(255 * index / (len(HEAT) - 1), *color)
    node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLColorTableNode")
    node.UnRegister(None)
    node.SetSingletonTag(HEAT_TAG)
    node.SetName("Uncertainty")
    node.SetTypeToUser()
    node.SetNumberOfColors(256)
    for index in range(256):
        node.SetColor(index, str(index), *ramp.GetColor(index), 1.0)
    node.SetSaveWithScene(False)
    node.SetHideFromEditors(True)
    return slicer.mrmlScene.AddNode(node)
