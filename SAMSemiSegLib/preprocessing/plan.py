"""What all cases of a run are brought to, decided once from the cases themselves.

The plan is small, made of numbers only, and travels with the run and with every exported model, so
that a new scan is treated as the training scans were. The scheme (median spacing, z-scores for MR,
one intensity window of the whole data set for CT) is nnU-Net's: Isensee et al., Nature Methods 18,
2021.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.preprocessing.orientation import Orientation
from SAMSemiSegLib.run.settings import PreprocessingSettings
from SAMSemiSegLib.volumes.volume import Shape, Triple, Volume

VOXELS_PER_CASE = 20_000
LOWER, UPPER = 0.5, 99.5
"""Percentiles to which gray values are clipped."""
AIR = (-1100, -900)
"""Hounsfield units taken for air."""
BODY = -500
"""Hounsfield units above which a CT voxel is taken for the patient's body."""
SMALL = 250_000
"""Voxels of a median volume that two processor cores train on in minutes; with ``scale = auto``
larger ones are looked at coarser."""

Modality = Literal["CT", "MR"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fingerprint(_Frozen):
    """What the cases look like.

    Attributes:
        cases: how many there are.
        modality: guessed from the gray values; everything that is not CT counts as MR.
        spacing, size: medians over the cases along R, A, S (millimeters, voxels).
        percentiles: 0.5th, 50th and 99.5th of the gray values of the foreground.
        mean, std: of the same. The foreground is, for CT, what is denser than -500 HU; else what is
            brighter than a tenth of the way from the volume's darkest to its brightest percentile.
    """

    cases: int
    modality: Modality
    spacing: Triple
    size: Shape
    percentiles: Triple
    mean: float
    std: float


class IntensityRule(_Frozen):
    """How gray values become network input.

    ``zscore``: each volume is clipped to its own percentiles ``lower`` and ``upper``, then brought
    to mean 0 and standard deviation 1. ``percentile``: the same clip, then linearly to -1..1.
    ``ct``: clipped to the gray values ``lower`` and ``upper`` of the whole data set, then
    (value - ``mean``) / ``std``. ``window``: clipped to the gray values ``lower`` and ``upper``,
    then linearly to -1..1.
    """

    kind: Literal["zscore", "percentile", "ct", "window"]
    lower: float = LOWER
    upper: float = UPPER
    mean: float = 0.0
    std: float = 1.0


class Plan(_Frozen):
    """Orientation, spacing (millimeters along R, A, S) and intensity of preprocessed volumes."""

    orientation: Literal["RAS"] = "RAS"
    spacing: Triple
    intensity: IntensityRule
    fingerprint: Fingerprint


def make_plan(volumes: Iterable[Volume], settings: PreprocessingSettings) -> Plan:
    """Look at every volume once, keep a sample of each, and decide.

    Memory does not grow with the size of the volumes: of each case 20,000 voxels are kept.

    Raises:
        InputError: there are no volumes, or the intensity window is missing or empty.
    """
    fingerprint = take_fingerprint(volumes)
    spacing = settings.spacing or fingerprint.spacing
    if settings.scale == "auto":
        spacing = _coarser(spacing, fingerprint)
    else:
        x, y, z = (step / settings.scale for step in spacing)
        spacing = (x, y, z)
    return Plan(
        spacing=spacing,
        intensity=_choose_rule(fingerprint, settings),
        fingerprint=fingerprint,
    )


def take_fingerprint(volumes: Iterable[Volume]) -> Fingerprint:
    """Spacing, size and gray values of the cases; see :class:`Fingerprint`."""
    spacings: list[Triple] = []
    sizes: list[Shape] = []
    samples: list[NDArray[np.float32]] = []
    for volume in volumes:
        orientation = Orientation.of(volume.geometry)
        spacings.append(orientation.spacing(volume.geometry))
        sizes.append(orientation.size(volume.geometry))
        samples.append(_sample(volume.array, seed=len(samples)))
    if not samples:
        raise InputError("There are no volumes to plan the preprocessing from: import some first.")
    modality: Modality = "CT" if 2 * sum(map(_looks_like_ct, samples)) > len(samples) else "MR"
    gray = np.concatenate([_foreground(sample, modality) for sample in samples])
    low, middle, high = (float(value) for value in np.percentile(gray, (LOWER, 50, UPPER)))
    sx, sy, sz = (float(value) for value in np.median(spacings, axis=0))
    nx, ny, nz = (int(value) for value in np.round(np.median(sizes, axis=0)))
    return Fingerprint(
        cases=len(samples),
        modality=modality,
        spacing=(sx, sy, sz),
        size=(nx, ny, nz),
        percentiles=(low, middle, high),
        mean=float(gray.mean(dtype=np.float64)),
        std=float(gray.std(dtype=np.float64)),
    )


def _coarser(spacing: Triple, fingerprint: Fingerprint) -> Triple:
    """The finest axes made coarser until the median volume is small, at most to twice the finest
    spacing: an organ must not vanish because there is much around it."""
    extent = np.multiply(fingerprint.size, fingerprint.spacing)
    for factor in np.linspace(1, 2, 101):
        x, y, z = (max(step, float(factor) * min(spacing)) for step in spacing)
        if np.prod(extent / (x, y, z)) <= SMALL:
            break
    return x, y, z


def read_window(settings: PreprocessingSettings) -> tuple[float, float]:
    """The lower and upper gray value of ``intensity = window``.

    Raises:
        InputError: they are missing, or no range.
    """
    if settings.window is None or settings.window[0] >= settings.window[1]:
        raise InputError(
            "preprocessing.intensity is 'window', but preprocessing.window is no pair of a "
            "lower and a higher gray value: set it, for example to [-160, 240]."
        )
    return settings.window


def _choose_rule(fingerprint: Fingerprint, settings: PreprocessingSettings) -> IntensityRule:
    kind = settings.intensity
    if kind == "auto":
        kind = "ct" if fingerprint.modality == "CT" else "zscore"
    if kind == "window":
        lower, upper = read_window(settings)
        return IntensityRule(kind=kind, lower=lower, upper=upper)
    if kind == "ct":
        low, _, high = fingerprint.percentiles
        std = fingerprint.std or 1.0
        return IntensityRule(kind=kind, lower=low, upper=high, mean=fingerprint.mean, std=std)
    return IntensityRule(kind=kind)


def _sample(array: NDArray[np.generic], seed: int) -> NDArray[np.float32]:
    """Gray values at random voxels, drawn alike at every call; all finite."""
    flat = array.ravel(order="K")
    if flat.size > VOXELS_PER_CASE:
        flat = flat[np.random.default_rng(seed).integers(0, flat.size, VOXELS_PER_CASE)]
    values = flat.astype(np.float32)
    finite = values[np.isfinite(values)]
    return finite if finite.size else np.zeros(1, np.float32)


def _looks_like_ct(sample: NDArray[np.float32]) -> bool:
    """Whole numbers, some of them air in Hounsfield units, and the body denser than air."""
    whole = np.abs(sample - np.round(sample)) < 1e-3
    air = (sample > AIR[0]) & (sample < AIR[1])
    return bool(whole.mean() > 0.99 and air.mean() > 0.005 and (sample > BODY).mean() > 0.02)


def _foreground(sample: NDArray[np.float32], modality: Modality) -> NDArray[np.float32]:
    if modality == "CT":
        threshold = float(BODY)
    else:
        low, high = np.percentile(sample, (LOWER, UPPER))
        threshold = float(low + 0.1 * (high - low))
    inside = sample[sample > threshold]
    return inside if inside.size else sample
