"""What a user, or a training, does in the tests."""

from __future__ import annotations

import time

import numpy as np
import slicer

# Voxels to draw.
BLOCK = np.s_[3:9, 3:9, 3:9]


def pump(until=lambda: False, seconds: float = 15.0, mustHappen: bool = True) -> None:
    """Let events happen until something is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not until():
        slicer.app.processEvents()
        time.sleep(0.005)
    assert until() or not mustHappen, "waited in vain"


def aScan(name: str, shape=(20, 22, 24)):
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    voxels = np.random.default_rng(len(name)).normal(100, 20, shape).astype(np.float32)
    slicer.util.updateVolumeFromArray(volume, voxels)
    volume.CreateDefaultDisplayNodes()
    return volume


def aSegmentation(volume, where=np.s_[5:9, 5:9, 5:9], name="liver"):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentId = node.GetSegmentation().AddEmptySegment(name, name, [0.8, 0.3, 0.2])
    mask = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    mask[where] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segmentId, volume)
    return node


def draw(panel, where, name="liver") -> int:
    """What a brush does on the case on screen, in a segment of that name; the voxels it covers."""
    parameters = panel.services.parameters
    segmentation = parameters.caseSegmentation.GetSegmentation()
    segmentId = segmentation.GetSegmentIdBySegmentName(name) or segmentation.AddEmptySegment(
        name, name, [0.2, 0.3, 0.8]
    )
    mask = np.zeros(slicer.util.arrayFromVolume(parameters.caseVolume).shape, np.uint8)
    mask[where] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        mask, parameters.caseSegmentation, segmentId, parameters.caseVolume
    )
    return int(mask.sum())


def pretendPseudoLabels(panel, confidences=(0.9, 0.4)) -> None:
    """As if a training had offered its results."""
    from SAMSemiSegLib.project.review import offer

    store = panel.services.store
    folder = store.folder / "runs" / "run-1" / "proposals"
    folder.mkdir(parents=True)
    label = store.labelPath(store.case("first"))
    for caseId, confidence in zip(("second", "third"), confidences, strict=True):
        target = folder / f"{caseId}.nrrd"
        target.write_bytes(label.read_bytes())
        offer(store.project, caseId, target, confidence)
    panel.refresh()
