"""Dice, Jaccard, average surface distance and 95th percentile of the Hausdorff distance.

The distances follow the definitions that the literature of semi-supervised segmentation reports,
which are those of the package ``medpy``:

- the surface of a mask is the mask without its erosion by the 6-neighborhood; beyond the image's
  edge counts as background;
- ``ASD`` is the mean distance from the surface of the *prediction* to that of the reference. It is
  directed: published tables call ``asd(prediction, reference)`` and not the symmetric ``assd``;
- ``HD95`` is the 95th percentile of the distances of both directions, pooled.

Published values are in voxels (spacing 1); those in millimeters use the volume's spacing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Array = np.ndarray[Any, Any]

IGNORE = 255
FAILED_BELOW = 0.3
"""A case whose Dice is lower counts as failed."""


@dataclass(frozen=True)
class Metrics:
    """How well one label of one case was found.

    Attributes:
        dice, jaccard: overlap, 0..1. Both masks empty: 1, as nothing was there and nothing found.
        asd_mm, hd95_mm: surface distances in millimeters; NaN where either mask is empty.
        asd_voxels, hd95_voxels: the same in voxels, as published.
        empty: nothing was predicted though the reference has the label.
    """

    dice: float
    jaccard: float
    asd_mm: float
    hd95_mm: float
    asd_voxels: float
    hd95_voxels: float
    empty: bool

    @property
    def failed(self) -> bool:
        """Whether the case counts as a failure: an empty prediction, or a Dice below 0.3."""
        return self.empty or self.dice < FAILED_BELOW


def compare(prediction: Mask, reference: Mask, spacing: tuple[float, float, float]) -> Metrics:
    """All metrics of one binary mask against its reference.

    Args:
        prediction, reference: boolean, both (X, Y, Z).
        spacing: millimeters between voxels along x, y, z.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ")
    found, there = int(prediction.sum()), int(reference.sum())
    nan = float("nan")
    if found == 0 and there == 0:
        return Metrics(1.0, 1.0, nan, nan, nan, nan, empty=False)
    common = int((prediction & reference).sum())
    dice = 2 * common / (found + there)
    jaccard = common / (found + there - common)
    if found == 0 or there == 0:
        return Metrics(dice, jaccard, nan, nan, nan, nan, empty=found == 0)

    box = _bounding_box(prediction | reference)
    prediction, reference = prediction[box], reference[box]
    asd_voxels, hd95_voxels = _surface_distances(prediction, reference, (1.0, 1.0, 1.0))
    if np.allclose(spacing, spacing[0], rtol=1e-9, atol=0):
        asd_mm, hd95_mm = asd_voxels * spacing[0], hd95_voxels * spacing[0]
    else:
        asd_mm, hd95_mm = _surface_distances(prediction, reference, spacing)
    return Metrics(dice, jaccard, asd_mm, hd95_mm, asd_voxels, hd95_voxels, empty=False)


def compare_labels(
    prediction: Array,
    reference: Array,
    labels: Sequence[str],
    spacing: tuple[float, float, float],
) -> dict[str, Metrics]:
    """Metrics of every label of a case; voxels that the reference ignores (255) count nowhere.

    Args:
        prediction: channel indices 0..C, (X, Y, Z).
        reference: channel indices 0..C with 255 = ignore, same shape.
        labels: names of the channels 1..C.
        spacing: millimeters between voxels along x, y, z.
    """
    known = reference != IGNORE
    return {
        name: compare((prediction == channel) & known, reference == channel, spacing)
        for channel, name in enumerate(labels, start=1)
    }


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box around the mask. Surfaces and distances inside it equal those of the whole
    volume, since all surface voxels lie in it and outside of it is background."""
    slices = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        occupied = np.flatnonzero(mask.any(axis=others))
        slices.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(slices)


def _surface(mask: Mask) -> Mask:
    eroded: Mask = ndimage.binary_erosion(mask, ndimage.generate_binary_structure(mask.ndim, 1))
    return mask & ~eroded


def _surface_distances(
    prediction: Mask, reference: Mask, spacing: tuple[float, float, float]
) -> tuple[float, float]:
    """(ASD from prediction to reference, HD95) in the units of ``spacing``."""
    surfaces = _surface(prediction), _surface(reference)
    to_reference = ndimage.distance_transform_edt(~surfaces[1], sampling=spacing)[surfaces[0]]
    to_prediction = ndimage.distance_transform_edt(~surfaces[0], sampling=spacing)[surfaces[1]]
    both = np.concatenate([to_reference, to_prediction])
    return float(to_reference.mean()), float(np.percentile(both, 95))
