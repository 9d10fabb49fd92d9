"""Signed distance maps of labels, the regression target of DTC."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from SAMSemiSegLib.training.losses import IGNORE


def signed_distance(labels: Tensor, channels: int) -> Tensor:
    """Distance to each foreground class's border, -1 deep inside to 1 far outside.

    The inner and the outer part are each divided by their own maximum, as in DTC's released code;
    voxels on the inner side of the border are 0. A class that is not in the crop is 1 everywhere, a
    crop filled by one class -1. Where voxels are ignored there is no border and no farthest voxel,
    as there is none at the crop's own edge; what the map says of them is to be ignored too.

    Args:
        labels: (B, X, Y, Z) channel indices with 255 = ignore.
        channels: K.

    Returns:
        (B, K-1, X, Y, Z) float32 on the device of the labels.
    """
    array = labels.cpu().numpy()
    maps = np.ones((len(array), channels - 1, *array.shape[1:]), np.float32)
    for b in range(len(array)):
        for c in range(1, channels):
            inside = array[b] == c
            if inside.any():
                maps[b, c - 1] = _one(inside, array[b] == IGNORE)
    return torch.from_numpy(maps).to(labels.device)


def _one(inside: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    perhaps = inside | ignored
    if perhaps.all():
        return np.full(inside.shape, -1, np.float32)
    inner = ndimage.distance_transform_edt(perhaps)
    outer = ndimage.distance_transform_edt(~inside)
    border = inside & ~ndimage.binary_erosion(perhaps, border_value=1)
    result = np.where(inside, -inner / inner[inside].max(), outer / outer[~perhaps].max())
    result[border] = 0
    return result.astype(np.float32)
