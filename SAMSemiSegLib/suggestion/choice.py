"""Which volumes to label: first the most representative ones, after a round those that stand for
many of which the network is unsure.

Volumes are points, their descriptors; see :mod:`SAMSemiSegLib.suggestion.descriptors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

NEAREST = 1e-9
"""Gains and scores that differ by less than this share of the largest are ties: the case that
stands earlier is taken, on every machine the same."""


@dataclass(frozen=True)
class Pick:
    """A volume to label.

    Attributes:
        index: of the volume.
        stands_for: how many volumes, itself counted, resemble it more than any other picked one.
    """

    index: int
    stands_for: int


def first_to_label(
    points: Points,
    count: int,
    labeled: Sequence[int] = (),
    weights: Points | None = None,
) -> list[Pick]:
    """The most representative volumes: greedy facility location, a form of k-medoids.

    Each pick brings the sum of all volumes' distances to their nearest labeled or picked one down
    the most; the first pick of all is the medoid. A copy of a picked volume brings nothing and so
    comes after everything else. The greedy way is within 1 - 1/e of the best choice (Nemhauser,
    Wolsey, Fisher, Mathematical Programming 14, 1978); for choosing what to label: Wei, Iyer,
    Bilmes, Submodularity in data subset selection and active learning, ICML 2015.

    Args:
        points: (n, d) descriptors.
        count: how many to pick; at most those without a label.
        labeled: indices of volumes that have a label already; they are not picked.
        weights: (n,) how much each volume counts; None: all alike.

    Returns:
        The picks, the most representative first.
    """
    apart = _distances(points)
    weights = np.ones(len(points)) if weights is None else weights
    # Before anything is labeled every volume is as far away as the farthest two are: then the
    # largest gain is the medoid's.
    nearest = np.full(len(points), apart.max(initial=0.0))
    for index in labeled:
        nearest = np.minimum(nearest, apart[index])
    open_ = [i for i in range(len(points)) if i not in set(labeled)]
    picked: list[int] = []
    while open_ and len(picked) < count:
        gains = np.maximum(nearest[None] - apart[open_], 0) @ weights
        best = open_.pop(_first_largest(gains))
        nearest = np.minimum(nearest, apart[best])
        picked.append(best)
    centers = [*labeled, *picked]
    # Of equally near ones the earlier pick stands for a volume, but a pick always for itself.
    owner = np.array(centers)[apart[:, centers].argmin(1)] if centers else np.array([], int)
    owner[picked] = picked
    return [Pick(index, int((owner == index).sum())) for index in picked]


def next_to_label(
    points: Points, confidence: Sequence[float | None], count: int, labeled: Sequence[int]
) -> list[Pick]:
    """The volumes to label after a round: those that stand for many of which the network is unsure.

    As :func:`first_to_label`, where each volume counts by its uncertainty (1 - confidence).
    Choosing by both is after Yang et al., Suggestive annotation, MICCAI 2017.

    Args:
        points: (n, d) descriptors.
        confidence: 0..1 of each volume's segmentation; None, where it has none or a person rejected
            it, counts as the lowest there is.
        count: how many to pick; at most those without a label.
        labeled: indices of volumes that have a label; they are not picked.

    Returns:
        The picks, the most instructive first.
    """
    lowest = min((c for c in confidence if c is not None), default=0.0)
    unsure = np.array([1 - (lowest if c is None else c) for c in confidence])
    return first_to_label(points, count, labeled, unsure if unsure.any() else None)


def _first_largest(values: Points) -> int:
    return int(np.flatnonzero(values >= values.max() * (1 - NEAREST))[0])


def _distances(points: Points) -> Points:
    """(n, n) Euclidean distances; exactly 0 between equal points, and symmetric."""
    from scipy.spatial.distance import cdist

    apart: Points = cdist(points, points)
    return apart
