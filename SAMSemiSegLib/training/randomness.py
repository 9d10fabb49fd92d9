"""Randomness without state.

Every draw of step ``i`` comes from a generator seeded by (seed, stage, i, rank). A resumed run
therefore needs no saved generator: it starts step ``i`` as the run that was never killed would.
"""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, stage: str, step: int, rank: int = 0) -> np.random.Generator:
    """The NumPy generator of one step, for crops and augmentation."""
    return np.random.default_rng([seed, zlib.crc32(stage.encode()), step, rank])


def seed_torch(seed: int, stage: str, step: int, rank: int = 0) -> None:
    """Seed torch's global generators (dropout, noise, initialization) for one step."""
    import torch

    torch.manual_seed(int(generator(seed, stage, step, rank).integers(2**62)))


def draw_seed() -> int:
    """A seed from torch's global generator, for what draws by a seed of its own."""
    import torch

    return int(torch.randint(2**31, ()))
