"""Turning arrays to RAS by permuting and mirroring axes, and back: no voxel changes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMSemiSegLib.volumes.volume import Geometry, Shape, Triple


@dataclass(frozen=True)
class Orientation:
    """How the axes of an array become right, anterior, superior.

    Attributes:
        axes: for each of R, A, S the axis of the source that runs closest to it.
        flips: whether that axis runs the other way (to L, P or I).
    """

    axes: Shape
    flips: tuple[bool, bool, bool]

    @classmethod
    def of(cls, geometry: Geometry) -> Orientation:
        """The orientation of a grid; oblique axes go to the nearest one.

        All six assignments are compared by the sum of their direction cosines, so that no two axes
        are given the same name however oblique the grid is.
        """
        cosines = np.array(geometry.direction, dtype=float).reshape(3, 3)
        cosines[:2] *= -1  # SimpleITK's world is LPS
        r, a, s = max(
            permutations(range(3)), key=lambda p: sum(abs(cosines[i, p[i]]) for i in range(3))
        )
        backwards = [bool(cosines[i, axis] < 0) for i, axis in enumerate((r, a, s))]
        return cls((r, a, s), (backwards[0], backwards[1], backwards[2]))

    def forward(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view of ``array`` (X, Y, Z) in RAS."""
        turned = array.transpose(self.axes)
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]

    def backward(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view of a RAS ``array`` in the source's orientation: the inverse of ``forward``."""
        turned = array[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]
        return turned.transpose(np.argsort(self.axes))

    def size(self, geometry: Geometry) -> Shape:
        """Voxels of the grid along R, A, S."""
        r, a, s = self.axes
        return geometry.size[r], geometry.size[a], geometry.size[s]

    def spacing(self, geometry: Geometry) -> Triple:
        """Millimeters between the voxels of the grid along R, A, S."""
        r, a, s = self.axes
        return geometry.spacing[r], geometry.spacing[a], geometry.spacing[s]
