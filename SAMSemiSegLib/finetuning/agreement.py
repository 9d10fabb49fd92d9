"""How far two decoders agree: the confidence of strategies that have two."""

from __future__ import annotations

from torch import Tensor

from SAMSemiSegLib.finetuning.strategy import Prediction


def agreement(one: Tensor, other: Tensor) -> Tensor:
    """1 - ½Σ|p - q|, the overlap of two distributions: 1 where they are equal, 0 where disjoint.

    Args:
        one, other: (K, ...) probabilities.

    Returns:
        (...) in 0..1.
    """
    return (1 - 0.5 * (one - other).abs().sum(0)).clamp(0, 1)


def prediction_of_two(maps: Tensor) -> Prediction:
    """The mean of two decoders with their agreement, from (2K, X, Y, Z): both one's
    probabilities, then the other's."""
    one, other = maps.chunk(2)
    return Prediction((one + other) / 2, agreement(one, other))
