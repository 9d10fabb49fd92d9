"""Geometric augmentation: one grid, one resampling.

Rotation, scaling, shear, shift and elastic deformation are composed into one sampling grid, so that
the image is interpolated once, whatever was drawn. The grid is drawn before anything is read: it
says which part of a volume a crop of it looks at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from SAMSemiSegLib.augmentation.bspline import smooth_field
from SAMSemiSegLib.run.settings import AugmentationSettings
from SAMSemiSegLib.training.losses import IGNORE

ROTATION = 20.0
"""Degrees, about each axis."""
SCALE = 1.25
"""Largest enlargement; the inverse is the largest reduction."""
STRETCH = 1.06
"""Further enlargement of each axis by itself."""
SHEAR = 0.06
SHIFT = 0.1
"""Share of the axis's length."""
ELASTIC = 0.2
"""Largest shift of a control point as a share of the spacing between them. Below 0.4 a cubic
B-spline deformation cannot fold: Choi and Lee, Graphical Models 62, 2000."""
CONTROL_INTERVALS = (3, 5)
"""Smallest and largest number of control point spacings along the longest axis."""


@dataclass(frozen=True)
class View:
    """A look at a volume, or at a crop of it, that is as large as the result.

    Attributes:
        size: voxels of the result along x, y, z.
        grid: (X, Y, Z, 3) for ``grid_sample``, where -1..1 is the crop as it lies; None for no
            change.
        flips: axes that are mirrored.
    """

    size: tuple[int, int, int]
    grid: Tensor | None
    flips: Sequence[int] = ()

    @property
    def box(self) -> tuple[list[int], list[int]]:
        """What it looks at: first voxel from the crop's own first one (below 0: before it), and
        number of voxels, along x, y, z."""
        if self.grid is None:
            return [0, 0, 0], list(self.size)
        sides = torch.tensor(self.size).flip(0)
        lowest, highest = (
            ((end(self.grid.view(-1, 3), 0) + 1) / 2 * sides - 0.5).flip(0)
            for end in (torch.amin, torch.amax)
        )
        first = lowest.floor().int().tolist()
        last = highest.ceil().int().tolist()
        return first, [b - a + 1 for a, b in zip(first, last, strict=True)]

    def of(
        self,
        image: Tensor,
        labels: Tensor | None,
        extra: Tensor | None,
        first: Sequence[int] = (0, 0, 0),
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The result, from a volume of its size, or from the part that :attr:`box` names.

        Args:
            image: (X, Y, Z) or (C, X, Y, Z) float.
            labels: (X, Y, Z) uint8 or None.
            extra: (E, X, Y, Z) float or None.
            first: of :attr:`box`, where only that part is given.
        """
        if self.grid is not None:
            sides, given, start = (
                torch.tensor(list(values)).flip(0).float()
                for values in (self.size, image.shape[-3:], first)
            )
            grid = self.grid
            if not (start == 0).all() or not (given == sides).all():
                grid = ((grid + 1) * sides - 2 * start) / given - 1
            stack = image.reshape(-1, *image.shape[-3:]).float()
            moved, labels, extra = resample(stack, labels, extra, grid)
            image = moved.reshape(*image.shape[:-3], *self.size).to(image.dtype)
        if self.flips:
            axes = [axis - 3 for axis in self.flips]
            image = image.flip(axes)
            labels = None if labels is None else labels.flip(axes)
            extra = None if extra is None else extra.flip(axes)
        return image, labels, extra


def draw_view(
    size: Sequence[int],
    spacing: Sequence[float],
    settings: AugmentationSettings,
    generator: np.random.Generator,
) -> View:
    """Flips, affine and elastic deformation.

    Args:
        size: voxels of the result along x, y, z.
        spacing: of the volume, in any unit: rotations turn the anatomy, not the voxel grid.
        settings: probabilities, strength and the axes that may be mirrored.
        generator: the source of all randomness.
    """
    flips = [axis for axis in settings.flip_axes if generator.random() < 0.5]
    x, y, z = size
    return View((x, y, z), _draw_grid(size, spacing, settings, generator), flips)


def _draw_grid(
    size: Sequence[int],
    spacing: Sequence[float],
    settings: AugmentationSettings,
    generator: np.random.Generator,
) -> Tensor | None:
    """A random sampling grid (X, Y, Z, 3) for ``grid_sample``, or None for no change."""
    strength = settings.strength
    use_affine = generator.random() < settings.affine and strength > 0
    use_elastic = generator.random() < settings.elastic and strength > 0
    if not (use_affine or use_elastic):
        return None
    extent = np.array(size) * np.array(spacing, dtype=float)
    matrix, shift = np.eye(3), np.zeros(3)
    if use_affine:
        matrix = draw_affine(spacing, extent, strength, generator)
        shift = generator.uniform(-1, 1, 3) * SHIFT * strength
    # In grid_sample's units -1..1 is the extent of each axis, whatever its length.
    to_units = torch.from_numpy(matrix * extent[None, :] / extent[:, None]).float()
    x, y, z = (_centers(n) for n in size)
    grid = torch.empty(*size, 3)
    for axis in range(3):
        a, b, c = to_units[axis]
        plane = (a * x)[:, None] + (b * y)[None, :]
        torch.add(
            plane[:, :, None], c * z + 2 * float(shift[axis]), out=grid[..., 2 - axis]
        )  # grid_sample wants the last axis first
    if use_elastic:
        grid += draw_displacement(size, extent, strength, generator).flip(0).movedim(0, -1)
    return grid


def draw_affine(
    spacing: Sequence[float],
    extent: Sequence[float],
    strength: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """A 3x3 matrix from places in the result to places in the source, in the units of spacing.

    Where one axis is sampled much more coarsely than another, turning one into the other would mix
    sharp with blurred: the range of that rotation shrinks with the ratio of the spacings beyond 2.
    And a thin stack is not turned out of itself: by its diagonal's angle at most.
    """
    matrix = np.eye(3)
    for axis in range(3):
        first, second = (i for i in range(3) if i != axis)
        ratio = max(spacing[first], spacing[second]) / min(spacing[first], spacing[second])
        limit = np.deg2rad(ROTATION * strength) * min(1.0, 2.0 / ratio)
        thinness = min(extent[first], extent[second]) / max(extent[first], extent[second])
        limit = min(limit, float(np.arctan(thinness)))
        angle = generator.uniform(-limit, limit)
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    shear = np.eye(3)
    shear[np.triu_indices(3, 1)] = generator.uniform(-1, 1, 3) * SHEAR * strength
    log_scale = generator.uniform(-1, 1) * np.log(SCALE) + generator.uniform(-1, 1, 3) * np.log(
        STRETCH
    )
    return matrix @ shear @ np.diag(np.exp(-log_scale * strength))


def draw_displacement(
    size: Sequence[int], extent: np.ndarray, strength: float, generator: np.random.Generator
) -> Tensor:
    """A smooth random displacement (3, X, Y, Z) in units of half an extent, without folding."""
    longest = generator.integers(CONTROL_INTERVALS[0], CONTROL_INTERVALS[1] + 1)
    intervals = np.maximum(1, np.round(longest * extent / extent.max())).astype(int)
    share = min(ELASTIC * strength, 0.4) * generator.uniform(0.3, 1)
    control = generator.uniform(-1, 1, (3, *(intervals + 3))) * share
    control *= (2 / intervals)[:, None, None, None]
    return smooth_field(torch.from_numpy(control).float(), size)


def resample(
    image: Tensor, labels: Tensor | None, extra: Tensor | None, grid: Tensor
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Sample all three on one grid: image and maps linearly, labels by the nearest voxel.

    What lies outside the volume becomes the image's minimum, as the blank around the cells of a
    canvas, and is labeled 255: nobody knows what is there, so no loss should. Maps become 0 there,
    so that a map of confidences trusts nothing.

    Args:
        image: (C, X, Y, Z).
        labels: (X, Y, Z) or None.
        extra: (E, X, Y, Z) or None.
        grid: (X, Y, Z, 3).
    """
    grid = grid.to(image.device).unsqueeze(0)
    lowest = image.amin(dim=(1, 2, 3), keepdim=True)
    maps = image - lowest if extra is None else torch.cat((image - lowest, extra.to(image)))
    sampled = F.grid_sample(maps[None], grid, mode="bilinear", align_corners=False)[0]
    channels = image.shape[0]
    moved_image = sampled[:channels] + lowest
    moved_extra = None if extra is None else sampled[channels:].to(extra)
    moved_labels = None
    if labels is not None:
        shifted = labels[None, None].to(image.dtype) - IGNORE  # 0 outside is then 255
        nearest = F.grid_sample(shifted, grid, mode="nearest", align_corners=False)
        moved_labels = (nearest[0, 0] + IGNORE).round().to(labels.dtype)
    return moved_image, moved_labels, moved_extra


def _centers(size: int) -> Tensor:
    """Voxel centers along an axis in grid_sample's units."""
    return (2 * torch.arange(size, dtype=torch.float32) + 1) / size - 1
