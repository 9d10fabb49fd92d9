"""Bringing volumes to the plan's grid and gray values, and results back to the source's grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMSemiSegLib.preprocessing.orientation import Orientation
from SAMSemiSegLib.preprocessing.plan import IntensityRule, Plan
from SAMSemiSegLib.preprocessing.resampling import largest, resample
from SAMSemiSegLib.volumes.volume import Geometry, Shape, Volume

SAME_SPACING = 1e-3
"""Spacings that differ by less than this share count as equal: the axis is not resampled."""


TIE = np.float32(1e-3)


class Preprocessor:
    """Applies a plan. NumPy arrays in and out; used alike in training and by exported models.

    Where the source's spacing equals the plan's nothing is interpolated, and the way back from
    one-hot labels is exact.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def shape(self, source: Geometry) -> Shape:
        """(X, Y, Z) of a volume on this grid once preprocessed; at least one voxel an axis."""
        orientation = Orientation.of(source)
        x, y, z = (
            size
            if abs(have / want - 1) < SAME_SPACING
            else max(1, int(np.floor(size * have / want + 0.5)))
            for size, have, want in zip(
                orientation.size(source),
                orientation.spacing(source),
                self.plan.spacing,
                strict=True,
            )
        )
        return x, y, z

    def image(self, volume: Volume) -> NDArray[np.float32]:
        """Gray values (X, Y, Z), float32, in RAS; voxels that are no number take the lowest one."""
        array = Orientation.of(volume.geometry).forward(volume.array)
        if np.issubdtype(array.dtype, np.floating):
            finite = np.isfinite(array)
            if not finite.all():
                lowest = array[finite].min() if finite.any() else 0
                array = np.where(finite, array, lowest)
        image = resample(array, self.shape(volume.geometry), antialias=True)
        return normalize(image, self.plan.intensity)

    def labels(self, volume: Volume) -> NDArray[np.uint8]:
        """Channel indices (X, Y, Z), uint8; where the grids differ each class (and 255, ignore) is
        interpolated by itself and the largest wins."""
        array = Orientation.of(volume.geometry).forward(volume.array).astype(np.uint8, copy=False)
        size = self.shape(volume.geometry)
        if array.shape == size:
            return np.array(array, order="C")
        present = [int(index) for index in np.unique(array)]
        nearest = array[
            np.ix_(
                *[
                    ((np.arange(new) + 0.5) * old / new).astype(int)
                    for old, new in zip(array.shape, size, strict=True)
                ]
            )
        ]

        def share(index: int) -> NDArray[np.float32]:
            # Halving the resolution gives many exact ties; were they left to the order of the
            # classes, every structure would shrink. The nearest voxel decides them fairly.
            return resample(array == index, size) + TIE * (nearest == index)

        return largest(present, share, size)

    def back(self, probabilities: NDArray[Any], source: Geometry) -> NDArray[np.uint8]:
        """Channel indices on the source's grid, of exactly its size.

        Args:
            probabilities: (K, X, Y, Z) on the preprocessed grid.
            source: the geometry the volume came with.

        Probabilities are interpolated class by class, so that memory holds two float32 volumes of
        the source's size whatever K is.
        """
        orientation = Orientation.of(source)
        size = orientation.size(source)
        self._check(probabilities.shape[1:], source)
        found = largest(range(len(probabilities)), lambda k: resample(probabilities[k], size), size)
        return np.ascontiguousarray(orientation.backward(found))

    def back_map(self, values: NDArray[Any], source: Geometry) -> NDArray[np.float32]:
        """A map (X, Y, Z), such as a confidence, interpolated linearly to the source's grid."""
        self._check(values.shape, source)
        orientation = Orientation.of(source)
        mapped = resample(values, orientation.size(source))
        return np.ascontiguousarray(orientation.backward(mapped))

    def _check(self, shape: tuple[int, ...], source: Geometry) -> None:
        if shape != self.shape(source):
            raise ValueError(f"shape {shape} is not {self.shape(source)}, the source's inside")


def normalize(image: NDArray[np.float32], rule: IntensityRule) -> NDArray[np.float32]:
    """Apply an intensity rule to a volume (X, Y, Z); a constant volume becomes zeros."""
    if rule.kind in ("zscore", "percentile"):
        low, high = (float(value) for value in np.percentile(image, (rule.lower, rule.upper)))
        if low == high:  # nearly all voxels alike, as in a mask: clipping would leave nothing
            low, high = float(image.min()), float(image.max())
    else:
        low, high = rule.lower, rule.upper
    clipped = np.clip(image, low, high)
    if rule.kind == "ct":
        center, spread = rule.mean, rule.std
    elif rule.kind == "zscore":
        center = float(clipped.mean(dtype=np.float64))
        spread = float(clipped.std(dtype=np.float64))
    else:
        center, spread = (low + high) / 2, (high - low) / 2
    clipped -= np.float32(center)
    clipped /= np.float32(spread if spread > 1e-8 else 1.0)
    return clipped
