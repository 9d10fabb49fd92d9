"""Whether a label's grid is its image's, another one of the same patient, or someone else's."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.volumes.volume import Geometry

SAME_GRID = 0.05
"""Corners closer than this share of the smallest voxel side: the same grid, rounded otherwise."""


def corners(geometry: Geometry) -> np.ndarray:
    """(8, 3) positions in mm of the outer corners of the grid's box (voxel edges, not centers)."""
    index = np.array(list(itertools.product(*((-0.5, n - 0.5) for n in geometry.size))))
    direction = np.array(geometry.direction).reshape(3, 3)
    return index * geometry.spacing @ direction.T + geometry.origin


def same_grid(a: Geometry, b: Geometry) -> bool:
    """Whether each voxel of ``a`` lies on the voxel of ``b`` with the same index."""
    if a.size != b.size:
        return False
    return bool(np.abs(corners(a) - corners(b)).max() < SAME_GRID * min(b.spacing))


def check_same_patient(path: Path, label: Geometry, image: Geometry) -> None:
    """Refuse a label whose grid cannot belong to the image.

    A label may be coarser, finer, shifted, turned, cropped or padded. What speaks for another
    patient (or a lost header): equal spacing and origin but another number of voxels; the same
    number of voxels but another spacing; boxes that do not overlap for the most part.

    Args:
        path: the label's file, for the message.

    Raises:
        InputError: as above.
    """
    if same_grid(label, image):
        return
    low, high = _box(image, image)
    label_low, label_high = _box(label, image)
    tolerance = np.maximum(image.spacing, np.abs(_axes(label, image)) @ label.spacing)
    inside = np.all(label_low >= low - tolerance) and np.all(label_high <= high + tolerance)

    same_spacing = np.allclose(label.spacing, image.spacing, rtol=1e-3)
    same_origin = np.allclose(label.origin, image.origin, atol=0.5 * min(image.spacing))
    cropped_by_slicer = path.name.lower().endswith(".seg.nrrd") and inside
    if (
        same_spacing
        and same_origin
        and label.size != image.size
        and np.allclose(label.direction, image.direction, atol=1e-3)
        and not cropped_by_slicer
    ):
        raise InputError(
            f"The label '{path}' has {_size(label)} voxels but its image {_size(image)} of the "
            "same spacing and origin: it seems to be the label of another patient; give the "
            "label that was drawn on this image."
        )
    if label.size == image.size and not np.allclose(label.spacing, image.spacing, rtol=0.05):
        raise InputError(
            f"The label '{path}' has as many voxels as its image but a spacing of "
            f"{_millimeters(label)} instead of {_millimeters(image)}: its header was lost; save "
            "the label again with the geometry of its image."
        )
    shared = np.prod(np.clip(np.minimum(high, label_high) - np.maximum(low, label_low), 0, None))
    volume, label_volume = np.prod(high - low), np.prod(label_high - label_low)
    if shared < 0.05 * min(volume, label_volume):
        raise InputError(
            f"The label '{path}' does not overlap its image in space; check that they belong to "
            "the same patient and that both headers have the right origin and direction."
        )
    sides = (label_high - label_low) / (high - low)
    if shared < 0.7 * min(volume, label_volume) or np.any(sides > 3):
        raise InputError(
            f"The label '{path}' covers a box of another size or place than its image (per axis "
            f"{', '.join(f'{s:.2f}' for s in sides)} times as long): it seems to be the label of "
            "another patient; give the label that was drawn on this image."
        )


def describe_resampling(path: Path, label: Geometry, image: Geometry) -> str:
    """The sentence a user is told when a label was brought to its image's grid."""
    return (
        f"The label '{path.name}' lies on another grid ({_size(label)} voxels of "
        f"{_millimeters(label)}) than its image ({_size(image)} of {_millimeters(image)}) and was "
        "resampled to it."
    )


def _axes(geometry: Geometry, frame: Geometry) -> np.ndarray:
    """(3, 3) directions of ``geometry``'s axes in the axes of ``frame``."""
    return np.linalg.solve(
        np.array(frame.direction).reshape(3, 3), np.array(geometry.direction).reshape(3, 3)
    )


def _box(geometry: Geometry, frame: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner in mm along the axes of ``frame``."""
    direction = np.array(frame.direction).reshape(3, 3)
    points = np.linalg.solve(direction, corners(geometry).T).T
    return points.min(axis=0), points.max(axis=0)


def _size(geometry: Geometry) -> str:
    return "x".join(map(str, geometry.size))


def _millimeters(geometry: Geometry) -> str:
    return "x".join(f"{s:.4g}" for s in geometry.spacing) + " mm"
