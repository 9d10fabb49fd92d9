"""How far a pseudo-label is to be trusted, voxel by voxel and as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, Any]

BAND = 2
"""Voxels around the predicted foreground that still count for a volume's score."""


def voxel_confidence(probabilities: Array, agreement: Array | None = None) -> Array:
    """w = (max p - 1/K) / (1 - 1/K), times the agreement where a strategy gives one.

    0 where all K classes are equally probable, 1 where one is certain; the scale does not depend
    on K.

    Args:
        probabilities: (K, X, Y, Z).
        agreement: (X, Y, Z) in 0..1.

    Returns:
        (X, Y, Z) float32 in 0..1.
    """
    chance = 1.0 / probabilities.shape[0]
    weight = np.clip((probabilities.max(axis=0) - chance) / (1 - chance), 0, 1)
    if agreement is not None:
        weight = weight * np.clip(agreement, 0, 1)
    return weight.astype(np.float32)


def volume_score(hard: Array, confidence: Array) -> float:
    """Mean confidence over the foreground band, 0..1; 0 for an empty prediction.

    The band is the predicted foreground grown by two voxels. The rest of the background is left
    out: it is nearly always certain and would lift every volume's score alike. Sharp borders weigh
    more in small structures, so scores compare volumes of one data set, not data sets.

    Args:
        hard: (X, Y, Z) channel indices.
        confidence: (X, Y, Z) in 0..1.
    """
    foreground = hard > 0
    if not foreground.any():
        return 0.0
    band = ndimage.binary_dilation(foreground, iterations=BAND)
    return float(confidence[band].mean(dtype=np.float64))
