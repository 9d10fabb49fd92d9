"""Small pictures of the cases, kept in the project folder."""

from __future__ import annotations

from pathlib import Path

SIDE = 48
# Larger files take too long to read while the user waits; they get theirs when they are shown.
MOST_BYTES = 20 * 1024**2


def thumbnailPath(folder: Path, caseId: str) -> Path:
    return folder / "thumbnails" / f"{caseId}.png"


def canThumbnail(image: Path) -> bool:
    """Whether a picture of the file can be made without a visible wait."""
    try:
        return image.is_file() and image.stat().st_size <= MOST_BYTES
    except OSError:
        return False


def writeThumbnail(image: Path, target: Path) -> None:
    """The middle slice of an image file as a small PNG; nothing where it cannot be read."""
    import numpy as np
    import SimpleITK as sitk

    try:
        volume = sitk.DICOMOrient(sitk.ReadImage(str(image)), "LPS")
        array = sitk.GetArrayFromImage(volume)
    except RuntimeError:
        return
    if array.ndim != 3:
        return
    middle = array[array.shape[0] // 2].astype(np.float32)
    low, high = np.percentile(middle, (1, 99))
    gray = np.clip((middle - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    spacing = volume.GetSpacing()
    height, width = (n * s for n, s in zip(gray.shape, (spacing[1], spacing[0]), strict=True))
    scale = SIDE / max(height, width)
    rows = np.linspace(0, gray.shape[0] - 1, max(1, round(height * scale))).astype(int)
    columns = np.linspace(0, gray.shape[1] - 1, max(1, round(width * scale))).astype(int)
    target.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(gray[rows][:, columns]), str(target))
