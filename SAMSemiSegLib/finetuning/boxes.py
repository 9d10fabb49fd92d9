"""Boxes around what a mask holds on each slice, as prompts."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

FEWEST = 4
"""Pixels below which a piece of a mask on a slice is taken for noise."""


@dataclass(frozen=True)
class Boxes:
    """One box for each class on each slice where there is something of it; for each piece where a
    class has several.

    Attributes:
        slices: (N,) index of the slice.
        classes: (N,) channel index, from 1.
        corners: (N, 4) first row, first column, last row, last column, in pixels of the slice.
    """

    slices: Tensor
    classes: Tensor
    corners: Tensor

    @staticmethod
    def around(labels: Tensor, channels: int, whole: Container[int]) -> Boxes:
        """Around each class of labels (S, H, W).

        Args:
            labels: channel indices; 255 = ignore.
            channels: K, classes with the background.
            whole: classes that are one organ: one box, although a slice may cut it in pieces.
        """
        array = labels.cpu().numpy()
        slices, classes, corners = [], [], []
        for s, k in ((s, k) for k in range(1, channels) for s in range(len(array))):
            mask = array[s] == k
            pieces = mask.astype(np.uint8) if k in whole else ndimage.label(mask)[0]
            for piece, place in enumerate(ndimage.find_objects(pieces), 1):
                if (pieces[place] == piece).sum() >= FEWEST:
                    rows, columns = place
                    slices.append(s)
                    classes.append(k)
                    corners.append([rows.start, columns.start, rows.stop - 1, columns.stop - 1])
        return Boxes(
            torch.tensor(slices, dtype=torch.long),
            torch.tensor(classes, dtype=torch.long),
            torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
        )

    def __len__(self) -> int:
        return len(self.slices)

    def of(self, chosen: Tensor) -> Boxes:
        """Those of an index or a mask (N,)."""
        return Boxes(self.slices[chosen], self.classes[chosen], self.corners[chosen])

    def split(self, most: int) -> list[Boxes]:
        """So many at a time, in their order."""
        return [self.of(part) for part in torch.arange(len(self)).split(most) if len(part)]

    def grown(self, pixels: float) -> Boxes:
        """Each side that many pixels farther out."""
        outward = pixels * torch.tensor([-1.0, -1.0, 1.0, 1.0])
        return Boxes(self.slices, self.classes, self.corners + outward)

    def shaken(self, pixels: float) -> Boxes:
        """Each side moved in or out by up to that many pixels, from torch's global generator."""
        shift = (2 * torch.rand(self.corners.shape) - 1) * pixels
        return Boxes(self.slices, self.classes, self.corners + shift)

    def inside(self, height: int, width: int) -> Tensor:
        """(N, H, W) bool: the pixels of each box."""
        rows, columns = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
        top, left, bottom, right = self.corners.view(-1, 4, 1, 1).unbind(1)
        return (rows >= top) & (rows <= bottom) & (columns >= left) & (columns <= right)
