"""Points of a class' region: a grid whose interval follows the region's size, a center, a chance.

Source: the adaptive grid of CPAC-SAM (Medical Image Analysis 110:103973, 2026); center and random
point of CPC-SAM (MICCAI 2024). Points are (N, 2) pairs of row and column.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from SAMSemiSegLib.volumes.components import all_but_largest


def grid_interval(area: int, density: int) -> int:
    """max(⌊√area / s⌋, 1): about s² points whatever the region's size.

    Args:
        area: pixels of the region.
        density: s.
    """
    return max(int(math.sqrt(area) / density), 1)


def grid_points(region: Tensor, density: int) -> Tensor:
    """The points of a regular grid that lie in the region; none where all miss it.

    The grid is centered in the region's bounding box.

    Args:
        region: (H, W) bool.
        density: s, see :func:`grid_interval`.
    """
    inside = region.nonzero()
    if len(inside) == 0:
        return inside
    step = grid_interval(len(inside), density)
    low, high = inside.amin(0), inside.amax(0)
    shift = (inside - low - (high - low) % step // 2) % step
    return inside[(shift == 0).all(1)]


def random_point(region: Tensor) -> Tensor:
    """One pixel of the region, (1, 2), from torch's global generator; (0, 2) where it is empty."""
    inside = region.nonzero()
    if len(inside) == 0:
        return inside
    return inside[int(torch.randint(len(inside), ()).item())][None]


def center_point(region: Tensor) -> Tensor:
    """The pixel of the largest component that is farthest from its border, (1, 2)."""
    mask = region.cpu().numpy()
    if not mask.any():
        return region.nonzero()
    largest = mask & ~all_but_largest(mask)
    # The frame counts as border: a region cut off by the canvas has its center inside.
    depth = ndimage.distance_transform_edt(np.pad(largest, 1))[1:-1, 1:-1]
    place = np.unravel_index(int(depth.argmax()), mask.shape)
    return torch.tensor([[int(i) for i in place]], device=region.device)


def thin_out(points: Tensor, most: int) -> Tensor:
    """At most ``most`` of the points (N, 2), chosen by torch's global generator."""
    if len(points) <= most:
        return points
    chosen = torch.randperm(len(points))[:most].sort().values
    return points[chosen.to(points.device)]
