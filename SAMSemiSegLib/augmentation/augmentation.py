"""The augmentation of both training stages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from SAMSemiSegLib.augmentation import intensity
from SAMSemiSegLib.augmentation.spatial import View, draw_view
from SAMSemiSegLib.run.settings import AugmentationSettings

Augmented = tuple[Tensor, Tensor | None, Tensor | None]


class Augmentation:
    """Random, but the same for the same generator state: geometry first, then gray values.

    ``draw_view`` and ``intensity`` are apart for crops, of which only what the view looks at is
    read, and for methods that show one network a weakly and another a strongly augmented view of
    the same voxels.

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
        view = self.draw_view(image.shape[-3:], generator)
        image, labels, extra = view.of(image, labels, extra)
        return self.intensity(image, generator), labels, extra

    def draw_view(self, size: Sequence[int], generator: np.random.Generator) -> View:
        """Flips, affine and elastic deformation of so many voxels along x, y, z."""
        return draw_view(size, self.spacing, self.settings, generator)

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
