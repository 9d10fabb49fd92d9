"""Largest component and hole filling, on probabilities.

A voxel that changes its class moves the old class's probability to the new one, so that the
stored probabilities and the hard label agree. What was overruled was nevertheless predicted: the
voxel's confidence is multiplied by 1 - (the probability moved). A confident mistake thus has next
to no weight in training, and neither has its correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.volumes.components import all_but_largest

Array = np.ndarray[Any, Any]


def clean(
    probabilities: Array,
    confidence: Array,
    label_names: Sequence[str],
    largest_component: bool | Sequence[str],
    fill_holes: bool | Sequence[str],
) -> tuple[Array, Array]:
    """Keep each label's largest component, then fill its holes.

    Components are 6-connected. A hole is background that its label encloses on all sides; another
    label inside is none.

    Args:
        probabilities: (K, X, Y, Z) with the background first; left as it is.
        confidence: (X, Y, Z) in 0..1; left as it is.
        label_names: names of the channels 1..C.
        largest_component, fill_holes: True for all labels, False for none, or names.

    Returns:
        New probabilities and confidence of the same shapes.

    Raises:
        InputError: a name that is not among the labels.
    """
    probabilities, confidence = probabilities.copy(), confidence.copy()
    hard = probabilities.argmax(axis=0)
    for channel in channels_of(largest_component, label_names, "pseudolabels.largest_component"):
        where = all_but_largest(hard == channel)
        _move(probabilities, confidence, hard, where, source=channel, target=0)
    for channel in channels_of(fill_holes, label_names, "pseudolabels.fill_holes"):
        where = _holes(hard == channel) & (hard == 0)
        _move(probabilities, confidence, hard, where, source=0, target=channel)
    return probabilities, confidence


def channels_of(choice: bool | Sequence[str], names: Sequence[str], setting: str) -> list[int]:
    """Channels of the labels that a setting names: all, none, or those listed. ``auto`` is none: a
    run has put names in its place.

    Raises:
        InputError: a name that is not among the labels.
    """
    if choice == "auto":
        return []
    if isinstance(choice, bool):
        return list(range(1, len(names) + 1)) if choice else []
    unknown = [name for name in choice if name not in names]
    if unknown:
        raise InputError(
            f"The setting {setting} names '{unknown[0]}', which is no label of the project; "
            f"choose from: {', '.join(names)}."
        )
    return [names.index(name) + 1 for name in choice]


def _move(
    probabilities: Array, confidence: Array, hard: Array, where: Array, source: int, target: int
) -> None:
    moved = probabilities[source][where]
    probabilities[target][where] += moved
    probabilities[source][where] = 0
    confidence[where] *= 1 - moved
    hard[where] = target


def _holes(mask: Array) -> Array:
    filled = np.zeros_like(mask)
    box = ndimage.find_objects(mask.astype(np.uint8))
    if not box:
        return filled
    # Holes lie inside the bounding box, which is much smaller than most volumes.
    filled[box[0]] = ndimage.binary_fill_holes(mask[box[0]])
    return filled & ~mask
