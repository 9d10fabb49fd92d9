"""Connected components of masks and label volumes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, Any]

CRUMBS = 0.02
"""Share of an organ that a slip of the pen may have left apart from it."""


def keep_largest(labels: Array, channels: Iterable[int], neighbors: Array | None = None) -> Array:
    """A label volume (X, Y, Z) with the largest component of each of these channels; what lies
    apart becomes background. Also the result of a V-Net is cleaned so, if at all.

    Args:
        labels: channel indices; left alone.
        channels: to clean.
        neighbors: as of :func:`all_but_largest`.
    """
    labels = labels.copy()
    for channel in channels:
        labels[all_but_largest(labels == channel, neighbors)] = 0
    return labels


def whole_channels(volumes: Iterable[Array], channels: int) -> list[int]:
    """Channels that are in one piece: whose largest component holds all but ``CRUMBS`` of them in
    each of these label volumes (X, Y, Z) that shows them. Two kidneys of one label are not."""
    whole = set(range(1, channels))
    for labels in volumes:
        for channel in sorted(whole):
            mask = np.asarray(labels) == channel
            if all_but_largest(mask).sum() > CRUMBS * mask.sum():
                whole.remove(channel)
    return sorted(whole)


def all_but_largest(mask: Array, neighbors: Array | None = None) -> Array:
    """What of a mask of any dimension lies outside its largest component.

    Args:
        mask: bool.
        neighbors: which voxels touch, as ``scipy.ndimage.label`` takes it; None: those that share a
            face.
    """
    components, count = ndimage.label(mask, neighbors)
    if count < 2:
        return np.zeros_like(mask)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    other: Array = mask & (components != sizes.argmax())
    return other
