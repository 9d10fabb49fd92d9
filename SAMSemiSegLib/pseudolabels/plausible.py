"""Pseudo-labels that cannot be right, by what the labeled volumes hold.

A foundation model that has learned too little names next to nothing, or everything, and is sure of
it; a V-Net that learns from that forgets what it knew. Ours; SFR has no such guard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

FAR = 20
"""A label is this many times smaller than the smallest, or larger than the largest one that is
known: lesions differ by a lot, and a guess that is only bad is left to its confidence."""


def label_sizes(labels: Array, channels: int) -> Array:
    """Voxels (K - 1,) of each label in a map (X, Y, Z) of channel indices."""
    counts = np.bincount(np.asarray(labels).ravel(), minlength=channels)
    return counts[1:channels]


def fault(sizes: Array, known: Sequence[Array], names: Sequence[str]) -> str:
    """Why a pseudo-label cannot be right, or nothing.

    Args:
        sizes: voxels (K - 1,) of each label in it.
        known: the same of each labeled volume, on grids of the same spacing; at least one.
        names: of the labels.
    """
    if not sizes.any():
        return "it is empty"
    low, high = np.min(known, axis=0), np.max(known, axis=0)
    for name, size, least, most in zip(names, sizes, low, high, strict=True):
        if FAR * size < least:
            return f"'{name}' has {size} voxels, at least {least} where it was labeled"
        if most > 0 and size > FAR * most:
            return f"'{name}' has {size} voxels, at most {most} where it was labeled"
    return ""
