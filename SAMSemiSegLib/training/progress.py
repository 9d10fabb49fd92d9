"""Where a training stage stands."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Step ``step`` (from 0) of ``total``. Schedules are functions of ``fraction`` alone, so that
    a short run is a scaled long one."""

    step: int
    total: int

    @property
    def fraction(self) -> float:
        """Share of the steps done, 0 up to (not including) 1."""
        return self.step / self.total


def sigmoid_ramp(fraction: float, length: float) -> float:
    """exp(-5(1-t)²) with t = min(fraction/length, 1): the ramp-up of Mean Teacher and its heirs.

    Args:
        fraction: share of the run done.
        length: share of the run after which the ramp has reached 1.
    """
    if length <= 0:
        return 1.0
    t = min(max(fraction / length, 0.0), 1.0)
    return math.exp(-5.0 * (1.0 - t) ** 2)
