"""Cutting crops into cubes and putting them together again.

One order for both ways (z fastest), so that assembling is the exact inverse of cutting: MagicNet's
released code cuts in one order and reads in another, which returns 9 of 27 cubes to their place.
"""

from __future__ import annotations

import torch
from torch import Tensor

Count = tuple[int, int, int]


def cut(volume: Tensor, cube: int) -> tuple[Tensor, Count]:
    """(B, C, X, Y, Z) to (B, N, C, cube, cube, cube), and the number of cubes along each axis."""
    b, c, x, y, z = volume.shape
    count = (x // cube, y // cube, z // cube)
    split = volume.reshape(b, c, count[0], cube, count[1], cube, count[2], cube)
    cubes = split.permute(0, 2, 4, 6, 1, 3, 5, 7)
    return cubes.reshape(b, count[0] * count[1] * count[2], c, cube, cube, cube), count


def assemble(cubes: Tensor, count: Count) -> Tensor:
    """(B, N, C, cube, cube, cube) to (B, C, X, Y, Z): the inverse of :func:`cut`."""
    b, _, c, cube = cubes.shape[:4]
    split = cubes.reshape(b, *count, c, cube, cube, cube).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return split.reshape(b, c, count[0] * cube, count[1] * cube, count[2] * cube)


def draw_exchange(crops: int, cubes: int, device: torch.device) -> Tensor:
    """(B, N): for each location, a random order of the crops."""
    return torch.rand(crops, cubes).argsort(0).to(device)


def exchange(cubes: Tensor, order: Tensor) -> Tensor:
    """Take the cube at location n of crop b from crop ``order[b, n]``, at the same location.

    Args:
        cubes: (B, N, ...).
        order: (B, N), each column a permutation of the crops.
    """
    locations = torch.arange(order.shape[1], device=order.device)
    return cubes[order, locations]


def exchange_back(cubes: Tensor, order: Tensor) -> Tensor:
    """The inverse of :func:`exchange`."""
    return exchange(cubes, order.argsort(0))
