"""The augmentation of both training stages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from SAMSemiSegLib.augmentation import intensity, spatial
from SAMSemiSegLib.run.settings import AugmentationSettings

Augmented = tuple[Tensor, Tensor | None, Tensor | None]


class Augmentation:
    """Random, but the same for the same generator state: geometry first, then gray values.

    ``spatial`` and ``intensity`` are apart for methods that show one network a weakly and another a
    strongly augmented view of the same voxels.

    Args:
        settings: probabilities, strength (0 leaves the volume untouched but for the flips) and the
            axes that may be mirrored.
        spacing: of the volumes, in any unit; only the ratios count.
    """

    def __init__(
        self, settings: AugmentationSettings, spacing: Sequence[float] = (1.0, 1.0, 1.0)
    ) -> None:
        self.settings = settings
        self.spacing = tuple(spacing)

    def __call__(
        self,
        image: Tensor,
        labels: Tensor | None,
        extra: Tensor | None,
        generator: np.random.Generator,
    ) -> Augmented:
        """Augment a volume and everything that lies on its grid; the inputs are not changed.

        Args:
            image: (X, Y, Z) or (C, X, Y, Z) float, about zero mean and unit spread.
            labels: (X, Y, Z) uint8 channel indices with 255 = ignore, or None.
            extra: (E, X, Y, Z) float maps such as soft pseudo-labels and confidence, or None.
            generator: the source of all randomness.

        Returns:
            The three in the same shapes. Outside the source volume the image has its minimum,
            labels are 255 and maps 0.
        """
        image, labels, extra = self.spatial(image, labels, extra, generator)
        return self.intensity(image, generator), labels, extra

    def spatial(
        self,
        image: Tensor,
        labels: Tensor | None,
        extra: Tensor | None,
        generator: np.random.Generator,
    ) -> Augmented:
        """Flips, affine and elastic deformation; arguments and result as of a call."""
        size = image.shape[-3:]
        flips = [axis - 3 for axis in spatial.draw_flips(self.settings, generator)]
        grid = spatial.draw_grid(size, self.spacing, self.settings, generator)
        if grid is not None:
            stack = image.reshape(-1, *size).float()
            moved, labels, extra = spatial.resample(stack, labels, extra, grid)
            image = moved.reshape(image.shape).to(image.dtype)
        if flips:
            image = image.flip(flips)
            labels = None if labels is None else labels.flip(flips)
            extra = None if extra is None else extra.flip(flips)
        return image, labels, extra

    def intensity(self, image: Tensor, generator: np.random.Generator) -> Tensor:
        """Changes of gray values alone, of (X, Y, Z) or (C, X, Y, Z)."""
        settings = self.settings
        if settings.strength == 0:
            return image
        changes = (
            (settings.low_resolution, intensity.low_resolution),
            (settings.blur, intensity.blur),
            (settings.bias_field, intensity.bias_field),
            (settings.brightness, intensity.brightness),
            (settings.gamma, intensity.gamma),
            (settings.curve, intensity.curve),
            (settings.noise, intensity.noise),
        )
        stack = image.reshape(-1, *image.shape[-3:]).float()
        for probability, change in changes:
            if generator.random() < probability:
                stack = change(stack, settings.strength, generator)
        return stack.reshape(image.shape).to(image.dtype)
