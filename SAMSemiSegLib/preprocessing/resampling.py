"""Resampling between two grids that cover the same box."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from SAMSemiSegLib.volumes.volume import Shape


def resample(array: NDArray[Any], size: Shape, antialias: bool = False) -> NDArray[np.float32]:
    """Linear resampling of (X, Y, Z) to ``size``, in two passes of bilinear interpolation.

    The outer faces of the first and last voxels stay where they are.

    Args:
        array: of any real type.
        size: wanted shape.
        antialias: along axes that shrink, widen the triangle filter by the factor. Right for gray
            values; labels and probabilities would shrink by it, small structures most.
    """
    volume = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    x, y, z = size
    if volume.shape[1:] != (y, z):
        volume = _bilinear(volume, (y, z), antialias)
    if volume.shape[0] != x:
        volume = _bilinear(volume.transpose(0, 1), (x, z), antialias).transpose(0, 1)
    return volume.contiguous().numpy()


def largest(
    classes: Iterable[int], map_of: Callable[[int], NDArray[np.float32]], size: Shape
) -> NDArray[np.uint8]:
    """At each voxel the class whose map is largest, holding one map at a time.

    Args:
        classes: candidates; the first wins a tie.
        map_of: the map (X, Y, Z) of a class.
        size: shape of the maps.
    """
    winner = np.zeros(size, dtype=np.uint8)
    best: NDArray[np.float32] | None = None
    for index in classes:
        values = map_of(index)
        if best is None:
            best = np.array(values, dtype=np.float32)
            winner[...] = index
        else:
            better = values > best
            np.copyto(winner, index, where=better, casting="unsafe")
            np.maximum(best, values, out=best)
    return winner


def _bilinear(stack: torch.Tensor, size: tuple[int, int], antialias: bool) -> torch.Tensor:
    """Resample the last two axes of a stack of images (N, H, W)."""
    images = stack.contiguous().unsqueeze(0)
    return F.interpolate(
        images, size=size, mode="bilinear", align_corners=False, antialias=antialias
    ).squeeze(0)
