"""SFR+: which volumes the re-trained net is sure of.

Source: SFR+, IEEE TMI 44(10):3909-3923, 2025, eq. (8): C = mean over voxels of max_c softmax_c of
the re-trained net; volumes with C >= 0.985 fine-tune the foundation model, the others get its
pseudo-label in re-training. The mean is dominated by the background, and an empty prediction has
C ≈ 1; hence the mean over the foreground, the quantile and the guards, which are our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from SAMSemiSegLib.run.settings import SelectionSettings
from SAMSemiSegLib.training.losses import IGNORE
from SAMSemiSegLib.volumes.components import all_but_largest

Array = np.ndarray[Any, Any]

BAND = 0.1
"""Foreground probability from which on a voxel belongs to the foreground band."""


@dataclass(frozen=True)
class Shape:
    """What a label map looks like.

    Attributes:
        foreground: share of the volume that is foreground.
        classes: share of each foreground class.
        largest: share of a class's voxels in its largest component; 0 for an empty class.
    """

    foreground: float
    classes: tuple[float, ...]
    largest: tuple[float, ...]

    @classmethod
    def of(cls, labels: Array, channels: int) -> Shape:
        """Of a label map (X, Y, Z) of channel indices; ignored voxels (255) are not foreground."""
        masks = [labels == c for c in range(1, channels)]
        classes = tuple(float(mask.mean()) for mask in masks)
        return cls(sum(classes), classes, tuple(_largest_share(mask) for mask in masks))


@dataclass(frozen=True)
class Evidence:
    """What the re-trained net says of one volume.

    Attributes:
        everywhere: C, mean of the largest probability over all voxels.
        foreground: the same over the foreground band; 0 if there is none.
        shape: of the prediction.
    """

    everywhere: float
    foreground: float
    shape: Shape

    @classmethod
    def of(cls, probabilities: Array, inside: Array | None = None) -> Evidence:
        """From the probabilities (K, X, Y, Z) of a whole volume, or of a crop that reaches beyond
        it: ``inside`` (X, Y, Z) says which voxels count."""
        largest = probabilities.max(axis=0)
        if inside is None:
            inside = np.ones(largest.shape, bool)
        band = (1 - probabilities[0] > BAND) & inside
        return cls(
            float(largest[inside].mean(dtype=np.float64)) if inside.any() else 0.0,
            float(largest[band].mean(dtype=np.float64)) if band.any() else 0.0,
            Shape.of(np.where(inside, probabilities.argmax(axis=0), IGNORE), len(probabilities)),
        )


@dataclass(frozen=True)
class Decision:
    """Whether a volume is confident, how much, and why (not), in a sentence; ``implausible`` where
    a guard refused it."""

    confident: bool
    confidence: float
    reason: str
    implausible: bool = False


def select(
    evidence: Mapping[str, Evidence], labeled: Sequence[Shape], settings: SelectionSettings
) -> dict[str, Decision]:
    """Decide for each volume; the guards come first, so that a quantile is filled with plausible
    predictions only.

    Args:
        evidence: by case id.
        labeled: the labeled volumes' label maps, at least one.
        settings: which confidence, threshold or quantile, and whether the guards are up.
    """
    confidence = {id: getattr(e, settings.confidence) for id, e in evidence.items()}
    faults = {id: implausible(e.shape, labeled, settings) for id, e in evidence.items()}
    if settings.mode == "quantile":
        plausible = sorted((id for id in evidence if not faults[id]), key=lambda i: confidence[i])
        room = round(settings.quantile * len(evidence))
        chosen = set(plausible[len(plausible) - min(room, len(plausible)) :])
        rule = f"the best {settings.quantile:.0%} of the volumes"
    else:
        chosen = {id for id in evidence if confidence[id] >= settings.threshold}
        rule = f"a confidence of at least {settings.threshold:g}"
    decisions = {}
    for id, value in confidence.items():
        if faults[id]:
            decisions[id] = Decision(False, value, faults[id], implausible=True)
        elif id in chosen:
            decisions[id] = Decision(True, value, f"Confidence {value:.4f}: within {rule}.")
        else:
            decisions[id] = Decision(False, value, f"Confidence {value:.4f}: not within {rule}.")
    return decisions


def implausible(shape: Shape, labeled: Sequence[Shape], settings: SelectionSettings) -> str:
    """Why a prediction cannot be right, or nothing."""
    if shape.foreground == 0:
        return "The prediction is empty."
    if not settings.guards:
        return ""
    usual = float(np.median([known.foreground for known in labeled]))
    if usual > 0:
        ratio = shape.foreground / usual
        if not settings.smallest <= ratio <= settings.largest:
            return f"The predicted foreground is {ratio:.2g} times as large as the labeled one."
    for c, share in enumerate(shape.largest):
        present = [known.largest[c] for known in labeled if known.classes[c] > 0]
        if share == 0 and len(present) == len(labeled):
            return f"Label {c + 1}, which every labeled volume has, is not predicted."
        if present and 0 < share < settings.wholeness * min(present):
            return f"Label {c + 1} is in pieces: its largest one is {share:.0%} of it."
    return ""


def _largest_share(mask: Array) -> float:
    if not mask.any():
        return 0.0
    apart = all_but_largest(mask, np.ones((3, 3, 3)))
    return float((mask.sum() - apart.sum()) / mask.sum())
