"""Boxes around what a mask holds on each slice, as prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

FEWEST = 4
"""Pixels below which a mask on a slice is taken for noise."""


@dataclass(frozen=True)
class Boxes:
    """One box for each class on each slice where there is something of it.

    Attributes:
        slices: (N,) index of the slice.
        classes: (N,) channel index, from 1.
        corners: (N, 4) first row, first column, last row, last column, in pixels of the slice.
    """

    slices: Tensor
    classes: Tensor
    corners: Tensor

    @staticmethod
    def around(labels: Tensor, channels: int) -> Boxes:
        """Around each class of labels (S, H, W)."""
        slices, classes, corners = [], [], []
        for k in range(1, channels):
            mask = labels == k
            for s in (mask.sum((1, 2)) >= FEWEST).nonzero()[:, 0].tolist():
                rows = mask[s].any(1).nonzero()
                columns = mask[s].any(0).nonzero()
                slices.append(s)
                classes.append(k)
                corners.append([rows[0, 0], columns[0, 0], rows[-1, 0], columns[-1, 0]])
        return Boxes(
            torch.tensor(slices, dtype=torch.long),
            torch.tensor(classes, dtype=torch.long),
            torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
        )

    def __len__(self) -> int:
        return len(self.slices)

    def grown(self, pixels: float) -> Boxes:
        """Each side that many pixels farther out."""
        outward = pixels * torch.tensor([-1.0, -1.0, 1.0, 1.0])
        return Boxes(self.slices, self.classes, self.corners + outward)

    def shaken(self, pixels: float) -> Boxes:
        """Each side moved in or out by up to that many pixels, from torch's global generator."""
        shift = (2 * torch.rand(self.corners.shape) - 1) * pixels
        return Boxes(self.slices, self.classes, self.corners + shift)


def largest_parts(labels: Tensor, channels: int) -> Tensor:
    """Labels (X, Y, Z) with the largest component of each class alone: a speck far away would make
    a box around half the slice."""
    array = labels.cpu().numpy()
    kept = np.zeros_like(array)
    for k in range(1, channels):
        parts, count = ndimage.label(array == k)
        if count:
            kept[parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())] = k
    return torch.from_numpy(kept)
