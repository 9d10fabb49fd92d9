"""Which volumes to label: first the most representative ones, after a round the most instructive.

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
class FirstPick:
    """A representative volume.

    Attributes:
        index: of the volume.
        stands_for: how many volumes, itself counted, resemble it more than any other picked one.
    """

    index: int
    stands_for: int


@dataclass(frozen=True)
class NextPick:
    """A volume of which the network is unsure, and which differs from those labeled.

    Attributes:
        index: of the volume.
        distance: to the nearest labeled or earlier picked volume, as a share of the largest such
            distance before anything was picked; 0 for a copy of a labeled volume.
    """

    index: int
    distance: float


def first_to_label(points: Points, count: int, labeled: Sequence[int] = ()) -> list[FirstPick]:
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

    Returns:
        The picks, the most representative first.
    """
    apart = _distances(points)
    # Before anything is labeled every volume is as far away as the farthest two are: then the
    # largest gain is the medoid's.
    nearest = np.full(len(points), apart.max(initial=0.0))
    for index in labeled:
        nearest = np.minimum(nearest, apart[index])
    open_ = [i for i in range(len(points)) if i not in set(labeled)]
    picked: list[int] = []
    while open_ and len(picked) < count:
        gains = np.maximum(nearest[None] - apart[open_], 0).sum(1)
        best = open_.pop(_first_largest(gains))
        nearest = np.minimum(nearest, apart[best])
        picked.append(best)
    centers = [*labeled, *picked]
    # Of equally near ones the earlier pick stands for a volume, but a pick always for itself.
    owner = np.array(centers)[apart[:, centers].argmin(1)] if centers else np.array([], int)
    owner[picked] = picked
    return [FirstPick(index, int((owner == index).sum())) for index in picked]


def next_to_label(
    points: Points, confidence: Sequence[float | None], count: int, labeled: Sequence[int]
) -> list[NextPick]:
    """The volumes to label after a round: uncertainty with diversity.

    Each pick has the largest product of uncertainty (1 - confidence) and distance to the nearest
    labeled or picked volume, so that neither a difficult volume's twin nor an odd volume of which
    the network is sure is taken. Choosing by both is after Yang et al., Suggestive annotation,
    MICCAI 2017; distance as diversity after Sener, Savarese, Active learning for convolutional
    neural networks: a core-set approach, ICLR 2018.

    Args:
        points: (n, d) descriptors.
        confidence: 0..1 of each volume's segmentation; None, where it has none or a person rejected
            it, counts as the lowest there is.
        count: how many to pick; at most those without a label.
        labeled: indices of volumes that have a label; they are not picked.

    Returns:
        The picks, the most instructive first.
    """
    known = [c for c in confidence if c is not None]
    lowest = min(known, default=0.0)
    unsure = np.array([1 - (lowest if c is None else c) for c in confidence])
    apart = _distances(points)
    largest = apart.max(initial=0.0)
    nearest = np.full(len(points), largest)
    for index in labeled:
        nearest = np.minimum(nearest, apart[index])
    open_ = [i for i in range(len(points)) if i not in set(labeled)]
    scale = nearest[open_].max(initial=0.0) or 1.0
    picks: list[NextPick] = []
    while open_ and len(picks) < count:
        scores = unsure[open_] * nearest[open_]
        if not scores.any():  # only copies are left, or the network is sure of all
            scores = unsure[open_] if unsure[open_].any() else nearest[open_]
        best = open_.pop(_first_largest(scores))
        picks.append(NextPick(best, float(nearest[best] / scale)))
        nearest = np.minimum(nearest, apart[best])
    return picks


def _first_largest(values: Points) -> int:
    return int(np.flatnonzero(values >= values.max() * (1 - NEAREST))[0])


def _distances(points: Points) -> Points:
    """(n, n) Euclidean distances; exactly 0 between equal points, and symmetric."""
    from scipy.spatial.distance import cdist

    apart: Points = cdist(points, points)
    return apart
