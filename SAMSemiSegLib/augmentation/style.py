"""A labeled volume in the style of another one: its coarse contrast, under its own anatomy.

One labeled volume shows a network one contrast; the unlabeled ones show which others there are.
The amplitudes of a volume's lowest spatial frequencies say how bright its large parts are, their
phases where these parts lie. With the amplitudes of another volume under its own phases, and its
finer frequencies as they are, a volume keeps its outlines and looks about as that scan would.

Source: Yang and Soatto, FDA: Fourier Domain Adaptation for semantic segmentation, CVPR 2020, there
from a labeled domain to an unlabeled one in 2D. Here in 3D, among the volumes of one project, and
computed on a coarse grid, which holds all that is exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from SAMSemiSegLib.run.settings import AugmentationSettings

Array = np.ndarray[Any, Any]

GRID = 32
"""Cells of the coarse grid along each axis."""
HIGHEST = 5
"""Cycles along a volume's axis up to which amplitudes are exchanged, but no waves shorter than
``SHORTEST`` voxels: in a small volume those are its anatomy."""
SHORTEST = 16
CYCLES = np.abs(np.fft.fftfreq(GRID, 1 / GRID))
LOW = np.ix_(*[np.flatnonzero(CYCLES <= HIGHEST)] * 3)
"""Where these frequencies lie in a transform of the coarse grid."""


class Scan(Protocol):
    """A preprocessed volume; the array may be memory-mapped."""

    @property
    def image(self) -> Array:
        """(X, Y, Z) float32."""


class StyleExchange:
    """Random, but the same for the same generator state.

    Args:
        settings: how often (``style``) and how far (``strength``, 1 at most).
        donors: volumes whose style may be taken on.
    """

    def __init__(self, settings: AugmentationSettings, donors: Sequence[Scan]) -> None:
        self._share = min(settings.strength, 1.0)
        self._probability = settings.style if donors and self._share else 0.0
        self._donors = donors
        self._spectra: dict[int, tuple[Scan, Array]] = {}

    def __call__(
        self, box: Array, scan: Scan, start: Sequence[int], generator: np.random.Generator
    ) -> Array:
        """A part of a volume, in another volume's style or as it is.

        Args:
            box: (X, Y, Z) float32 of ``scan``; not changed.
            scan: what it is a part of.
            start: the box's first voxel in the volume along x, y, z; may be negative. What lies
                outside of the volume stays as it is.
            generator: the source of all randomness.

        Returns:
            (X, Y, Z) float32.
        """
        if not self._probability or generator.random() >= self._probability:
            return box
        donor = self._donors[int(generator.integers(len(self._donors)))]
        if donor is scan:
            return box
        own, other = self._spectrum(scan), self._spectrum(donor)
        change = np.zeros((GRID, GRID, GRID), complex)
        change[LOW] = np.abs(other) * np.exp(1j * np.angle(own)) - own
        limits = [min(HIGHEST, max(1, side // SHORTEST)) for side in scan.image.shape]
        low = [generator.integers(1, limit + 1) >= CYCLES for limit in limits]
        exchanged = low[0][:, None, None] & low[1][:, None] & low[2]
        field = self._share * np.fft.ifftn(exchanged * change).real.astype(np.float32)
        sides = zip(start, box.shape, scan.image.shape, strict=True)
        x, y, z = (_enlarging(first, count, voxels) for first, count, voxels in sides)
        planes = np.matmul(y, field @ z.T).reshape(GRID, -1)
        result: Array = box + (x @ planes).reshape(box.shape)
        return result

    def _spectrum(self, scan: Scan) -> Array:
        """The lowest frequencies of the volume on the coarse grid, complex."""
        # The scan is kept along, so that its place in memory stays its own.
        if id(scan) not in self._spectra:
            image = torch.from_numpy(np.array(scan.image, dtype=np.float32))
            coarse = F.adaptive_avg_pool3d(image[None, None], GRID)[0, 0]
            self._spectra[id(scan)] = scan, np.fft.fftn(coarse.double().numpy())[LOW]
        return self._spectra[id(scan)][1]


def _enlarging(first: int, count: int, voxels: int) -> Array:
    """(count, GRID) weights of the coarse grid's cells at ``count`` voxels from ``first`` on, of an
    axis of so many voxels: linear within the volume, 0 outside."""
    index = first + np.arange(count)
    place = ((index + 0.5) * GRID / voxels - 0.5).clip(0, GRID - 1)
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(GRID)))
    inside: Array = weights * ((index >= 0) & (index < voxels))[:, None]
    return inside.astype(np.float32)
