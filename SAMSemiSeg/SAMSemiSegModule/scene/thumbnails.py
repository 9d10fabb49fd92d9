"""Small square pictures of the cases, kept in the project folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

SIDE = 48
# Larger files take too long to read while the user waits; they get theirs when they are shown.
MOST_BYTES = 2 * 1024**2


def thumbnailPath(folder: Path, caseId: str) -> Path:
    return folder / "thumbnails" / f"{caseId}.png"


def canThumbnail(image: Path) -> bool:
    """Whether a picture of the file can be made without a visible wait."""
    try:
        return image.is_file() and image.stat().st_size <= MOST_BYTES
    except OSError:
        return False


def writeThumbnail(image: Path, target: Path) -> None:
    """The middle axial slice of an image file as a small PNG; nothing where it cannot be read."""
    import SimpleITK as sitk

    try:
        volume = sitk.ReadImage(str(image))
    except RuntimeError:
        return
    if volume.GetDimension() != 3 or volume.GetNumberOfComponentsPerPixel() != 1:
        return
    volume = sitk.DICOMOrient(volume, "LPS")
    array = sitk.GetArrayViewFromImage(volume)
    _write(array[array.shape[0] // 2], volume.GetSpacing()[:2], target)


def writeThumbnailOf(volumeNode: Any, target: Path) -> None:
    """The same of a volume in the scene, however large its file is."""
    import numpy as np
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    toRas = slicer.util.arrayFromVTKMatrix(matrix)[:3, :3]
    spacing = np.linalg.norm(toRas, axis=0)
    # The voxel axes that run most along superior, right and anterior; arrays count from behind.
    upward = int(np.argmax(np.abs(toRas[2] / spacing)))
    across, along = (axis for axis in range(3) if axis != upward)
    if abs(toRas[0, along] / spacing[along]) > abs(toRas[0, across] / spacing[across]):
        across, along = along, across
    array = slicer.util.arrayFromVolume(volumeNode)
    middle = array.take(array.shape[2 - upward] // 2, axis=2 - upward)
    if along < across:
        middle = middle.T
    rows = slice(None, None, -1 if toRas[1, along] > 0 else 1)
    columns = slice(None, None, -1 if toRas[0, across] > 0 else 1)
    _write(middle[rows, columns], (spacing[across], spacing[along]), target)


def _write(middle: Any, spacing: Sequence[float], target: Path) -> None:
    """A slice (rows, columns) with its spacing (columns, rows) in mm, on a black square; nothing
    where it cannot be written."""
    import numpy as np
    import SimpleITK as sitk

    # Few of the voxels suffice for the picture, and for its contrast.
    step = max(1, max(middle.shape) // (4 * SIDE))
    low, high = np.percentile(middle[::step, ::step], (1, 99))
    height, width = middle.shape[0] * spacing[1], middle.shape[1] * spacing[0]
    scale = SIDE / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    rows, columns = (
        np.linspace(0, count - 1, wanted).astype(int)
        for count, wanted in zip(middle.shape, size, strict=True)
    )
    part = middle[rows][:, columns].astype(np.float32)
    gray = np.clip((part - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    square = np.zeros((SIDE, SIDE), np.uint8)
    top, left = (SIDE - size[0]) // 2, (SIDE - size[1]) // 2
    square[top : top + size[0], left : left + size[1]] = gray
    # A project that may only be read, or a full disk, has no pictures.
    with suppress(OSError, RuntimeError):
        target.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(square), str(target))
