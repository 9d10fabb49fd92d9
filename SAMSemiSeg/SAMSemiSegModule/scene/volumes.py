"""Volumes: from the scene to a file of the project, and back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from SAMSemiSegModule.scene.geometry import isValidVolume


def exportVolume(volumeNode, path: Path) -> None:
    """Write the volume, with its transforms hardened, to a file; the node stays as it is.

    Raises:
        ValueError: the volume cannot become a case; the message says why and what to do.
        OSError: the file cannot be written.
    """
    isValid, reason = isValidVolume(volumeNode)
    if not isValid:
        raise ValueError(reason)
    with hardenedCopy(volumeNode) as copy:
        saveAtomically(copy, path)


@contextmanager
def hardenedCopy(volumeNode) -> Iterator:
    """A copy of the volume that stands in the world by itself; removed afterwards."""
    copy = slicer.mrmlScene.AddNewNodeByClass(volumeNode.GetClassName(), "SAMSemiSeg export")
    copy.SetHideFromEditors(True)
    try:
        # The voxels are shared: hardening a linear transform touches the copy's matrix alone.
        copy.SetAndObserveImageData(volumeNode.GetImageData())
        copy.CopyOrientation(volumeNode)
        copy.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        copy.HardenTransform()
        yield copy
    finally:
        removeNode(copy)


def saveAtomically(node, path: Path) -> None:
    """Write a node under a temporary name beside ``path``, then rename: never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name("~" + path.name)
    if not slicer.util.saveNode(node, str(temporary), {"useCompression": True}):
        temporary.unlink(missing_ok=True)
        raise OSError(
            _("'{path}' could not be written; check the free space and your rights there.").format(
                path=path
            )
        )
    os.replace(temporary, path)


def loadVolume(path: Path, name: str):
    """Load an image of the project, a file or a folder of DICOM slices, as a volume named ``name``.

    Raises:
        OSError: the file cannot be read.
        InputError: the folder does not hold one series.
    """
    if path.is_dir():
        return _loadSeries(path, name)
    try:
        return slicer.util.loadVolume(str(path), {"name": name, "show": False})
    except RuntimeError as error:
        raise OSError(
            _("The image '{path}' cannot be read; is its drive connected?").format(path=path)
        ) from error


def _loadSeries(folder: Path, name: str):
    """Slicer reads files only; the library's reader is also the one that a training uses."""
    import numpy as np
    import SimpleITK as sitk

    from SAMSemiSegLib.volumes.dicom import read_series

    image = read_series(folder)
    ijkToRas = np.eye(4)
    ijkToRas[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    ijkToRas[:3, 3] = image.GetOrigin()
    ijkToRas[:2] *= -1  # from LPS
    return slicer.util.addVolumeFromArray(sitk.GetArrayFromImage(image), ijkToRas, name)


def removeNode(node) -> None:
    """Remove a node with its display and storage nodes."""
    if node is None or not slicer.mrmlScene.IsNodePresent(node):
        return
    companions = [node.GetNthDisplayNode(i) for i in range(node.GetNumberOfDisplayNodes())]
    companions.append(node.GetStorageNode())
    slicer.mrmlScene.RemoveNode(node)
    for companion in companions:
        if companion is not None:
            slicer.mrmlScene.RemoveNode(companion)
