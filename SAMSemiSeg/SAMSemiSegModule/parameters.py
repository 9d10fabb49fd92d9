"""The module's state: saved with the scene, bound to the widgets that name it in the .ui files."""

from __future__ import annotations

from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper


@parameterNodeWrapper
class SAMSemiSegParameters:
    """What the user chose, and what the panel shows.

    Paths are kept as text: a scene may come from another machine.
    """

    # Project and the case on screen
    projectFolder: str
    caseId: str
    caseVolume: vtkMRMLScalarVolumeNode
    caseSegmentation: vtkMRMLSegmentationNode
    caseUncertainty: vtkMRMLScalarVolumeNode

    # Training; "auto" leaves a choice to the preset or to the library
    preset: str = "quick"
    foundation: str = "auto"
    strategy: str = "auto"
    method: str = "auto"
    device: str = "auto"
    finetuningMinutes: Annotated[float, WithinRange(0, 10000)] = 0.0
    retrainingMinutes: Annotated[float, WithinRange(0, 10000)] = 0.0
    seed: Annotated[int, WithinRange(0, 2147483647)] = 1337
    supervisedBaseline: bool = False
    extraSettings: str

    # Review
    overlayOpacity: Annotated[float, WithinRange(0, 1)] = 0.4

    # Model
    modelPath: str
    applyVolume: vtkMRMLScalarVolumeNode
