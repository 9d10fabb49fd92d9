"""Smooth random fields: uniform cubic B-splines over a coarse grid of control points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def basis(size: int, intervals: int) -> Tensor:
    """Weights (size, intervals + 3) of the control points at ``size`` voxel centers.

    The control points are evenly spaced, ``intervals`` spacings across the axis and one more point
    at each end; each row sums to 1 and has four weights that are not 0.
    """
    position = (torch.arange(size) + 0.5) / size * intervals
    first = position.floor().clamp(max=intervals - 1)
    t = position - first
    weights = torch.stack(
        (
            (1 - t) ** 3 / 6,
            (3 * t**3 - 6 * t**2 + 4) / 6,
            (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
            t**3 / 6,
        ),
        dim=1,
    )
    columns = first.long()[:, None] + torch.arange(4)
    return torch.zeros(size, intervals + 3).scatter_(1, columns, weights)


def smooth_field(control: Tensor, size: Sequence[int]) -> Tensor:
    """The B-spline field (C, X, Y, Z) of control points (C, nx + 3, ny + 3, nz + 3)."""
    field = control
    for axis, voxels in enumerate(size, start=1):
        weights = basis(voxels, control.shape[axis] - 3).to(control)
        field = torch.tensordot(field, weights, dims=([axis], [1])).movedim(-1, axis)
    return field
