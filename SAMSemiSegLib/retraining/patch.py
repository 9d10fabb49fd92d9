"""The size of the crops, chosen from the volumes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

VOXELS = 112 * 112 * 80
"""Budget of one crop for two classes: the patch of UA-MT and its heirs on the left atrium."""


def choose_patch(
    median_shape: Sequence[float], channels: int = 2, divisor: int = 16
) -> tuple[int, int, int]:
    """Sides that are multiples of ``divisor``, about as large as the median volume at most, within
    a budget of voxels, and as equal as that allows. Never 16x16x16, whose one voxel at the
    bottleneck could not be normalized.

    With the medians of the published data sets this gives their patches: 112x112x80 for the left
    atrium, 96x96x96 for 13 abdominal organs.

    Args:
        median_shape: median number of voxels along x, y, z.
        channels: K; the memory of the outputs grows with it, so the budget shrinks gently.
        divisor: 16 for the V-Net, more where the method cuts the patch into cubes.
    """
    budget = VOXELS * 92 / (90 + channels) / divisor**3
    # The nearest multiple, not the next: 48x64x48 around 35x50x35 would be mostly padding.
    caps = [max(1, min(round(side / divisor), 320 // divisor)) for side in median_shape]
    if max(caps) * divisor == 16:
        caps[median_shape.index(max(median_shape))] = 2
    fitting = [
        blocks
        for blocks in itertools.product(*(range(1, cap + 1) for cap in caps))
        if math.prod(blocks) <= max(budget, 1)
    ]
    largest = max(math.prod(blocks) for blocks in fitting)

    def unequal(blocks: tuple[int, ...]) -> tuple[float, float, float]:
        covered = [side / (b * divisor) for side, b in zip(median_shape, blocks, strict=True)]
        return max(blocks) / min(blocks), max(covered) / min(covered), -math.prod(blocks)

    x, y, z = min((b for b in fitting if math.prod(b) >= 0.9 * largest), key=unequal)
    return x * divisor, y * divisor, z * divisor
