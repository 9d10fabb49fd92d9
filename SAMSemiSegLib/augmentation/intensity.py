"""Augmentation of gray values: what differs between scanners, protocols and patients.

The kinds and orders of magnitude are those of nnU-Net (Isensee et al., Nature Methods 18, 2021),
with the bias field of MR added. All work on (C, X, Y, Z) of about zero mean and unit spread, keep
shape and device, and draw from the generator alone.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from SAMSemiSegLib.augmentation.bspline import smooth_field

CURVE_PIECES = 8
SAMPLED = 50_000
"""Voxels from which quantiles are taken."""


def low_resolution(image: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """As if scanned with voxels up to twice as long (at strength 1), each axis by itself."""
    size = image.shape[1:]
    factors = 1 + generator.uniform(0, 1, 3) * strength
    small = [
        max(2, round(n / factor)) if n > 2 else n for n, factor in zip(size, factors, strict=True)
    ]
    down = F.interpolate(image[None], size=small, mode="trilinear", align_corners=False)
    return F.interpolate(down, size=size, mode="trilinear", align_corners=False)[0]


def blur(image: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """Gaussian blur with a standard deviation of 0.3 to 1 voxel (at strength 1)."""
    sigma = generator.uniform(0.3, 1.0) * strength
    reach = max(1, round(3 * sigma))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps /= taps.sum()
    for axis in (1, 2, 3):
        first = image.narrow(axis, 0, 1)
        last = image.narrow(axis, image.shape[axis] - 1, 1)
        padded = torch.cat([first] * reach + [image] + [last] * reach, dim=axis)
        blurred = torch.zeros_like(image)
        for i, tap in enumerate(taps):
            blurred.add_(padded.narrow(axis, i, image.shape[axis]), alpha=float(tap))
        image = blurred
    return image


def bias_field(image: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """Multiply by a smooth field of about 0.7 to 1.4 (at strength 1), as of an MR coil.

    The field acts on gray values measured from the volume's darkest, so that air stays dark.
    """
    intervals = generator.integers(1, 3, 3)
    log_field = generator.uniform(-1, 1, (1, *(intervals + 3))) * 0.5 * strength
    field = smooth_field(torch.from_numpy(log_field).to(image), image.shape[1:]).exp_()
    lowest = image.amin()
    return _restore((image - lowest) * field + lowest, image)


def brightness(image: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """Contrast about the mean times 0.75 to 1.33, brightness up to 0.2 spreads up or down."""
    contrast = np.exp(generator.uniform(-1, 1) * 0.29 * strength)
    shift = generator.uniform(-1, 1) * 0.2 * strength
    mean, std = image.mean(), image.std(correction=0)
    return (image - mean) * float(contrast) + (mean + float(shift) * std)


def gamma(image: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """Gamma of 0.7 to 1.5 on the values between minimum and maximum; mean and spread are kept.

    One time in four the gray values are turned over before and after, which stretches the bright
    end instead of the dark one.
    """
    exponent = np.exp(generator.uniform(np.log(0.7), np.log(1.5)) * strength)
    turned = generator.random() < 0.25
    lowest, highest = image.amin(), image.amax()
    unit = (image - lowest) / (highest - lowest).clamp_min(1e-6)
    if turned:
        unit = 1 - unit
    unit = unit.clamp_(0, 1).pow_(float(exponent))
    if turned:
        unit = 1 - unit
    return _restore(unit, image)


def curve(image: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """A random rising curve from old to new gray values; mean and spread are kept.

    As if scanned with another protocol: tissues keep the order of their gray values, but not the
    distances between them. (Zhou et al., Models Genesis, Medical Image Analysis 67, 2021, with
    Bézier curves; here piecewise linear, the slope of each of the eight pieces drawn by itself.)
    """
    values = image.flatten()
    values = values[:: max(1, len(values) // SAMPLED)]
    lowest, highest = values.quantile(torch.tensor([0.005, 0.995]).to(values))
    slopes = np.exp(generator.standard_normal(CURVE_PIECES) * 0.8 * strength)
    heights = np.concatenate([[0.0], np.cumsum(slopes) / slopes.sum()])
    knots = torch.from_numpy(heights).to(image)
    place = (image - lowest) / (highest - lowest).clamp_min(1e-6) * CURVE_PIECES
    piece = place.floor().clamp_(0, CURVE_PIECES - 1)
    left = knots[piece.long()]
    right = knots[piece.long() + 1]
    return _restore(left + (right - left) * (place - piece), image)


def noise(image: Tensor, strength: float, generator: np.random.Generator) -> Tensor:
    """Gaussian noise of up to 0.15 spreads (at strength 1)."""
    level = float(generator.uniform(0.02, 0.15) * strength) * image.std(correction=0)
    values = torch.from_numpy(generator.standard_normal(image.shape, dtype=np.float32))
    return image + values.to(image) * level


def _restore(image: Tensor, before: Tensor) -> Tensor:
    """``image`` with the mean and the standard deviation of ``before``."""
    std = image.std(correction=0).clamp_min(1e-6)
    return (image - image.mean()) * (before.std(correction=0) / std) + before.mean()
