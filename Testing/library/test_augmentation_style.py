"""A labeled volume in the style of another one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from SAMSemiSegLib.augmentation.style import GRID, HIGHEST, StyleExchange
from SAMSemiSegLib.retraining.crops import CropSampler, read_padded
from SAMSemiSegLib.run.settings import AugmentationSettings, RetrainingSettings

ALWAYS = AugmentationSettings(style=1)


@dataclass
class Scan:
    image: np.ndarray
    labels: np.ndarray | None = None
    pseudo_label: None = None
    selected: bool = True


def a_scan(seed: int, shape: tuple[int, int, int] = (40, 32, 20), sigma: float = 2.0) -> Scan:
    """Smoothed noise of zero mean and unit spread, on a slope."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    image = (
        ndimage.gaussian_filter(noise, sigma) + np.linspace(0, 0.1 * seed, shape[0])[:, None, None]
    )
    return Scan(((image - image.mean()) / image.std()).astype(np.float32))


def spectrum(image: np.ndarray) -> np.ndarray:
    coarse = F.adaptive_avg_pool3d(torch.from_numpy(image)[None, None].double(), GRID)
    return np.fft.fftn(coarse[0, 0].numpy())


def test_the_lowest_frequencies_have_the_donors_amplitudes_and_their_own_phases() -> None:
    shape = (GRID, GRID, GRID)
    own, donor = a_scan(1, shape), a_scan(2, shape, sigma=5)
    found = StyleExchange(ALWAYS, [donor])(own.image, own, (0, 0, 0), np.random.default_rng(0))
    assert found.dtype == np.float32
    before, after, other = spectrum(own.image), spectrum(found), spectrum(donor.image)
    lowest = np.ix_([0, 1], [0, 1], [0, 1])
    assert np.allclose(np.abs(after[lowest]), np.abs(other[lowest]), rtol=1e-3, atol=0.05)
    ways = np.exp(1j * (np.angle(after[lowest]) - np.angle(before[lowest]))).ravel()[1:]
    assert np.allclose(ways, 1, atol=1e-2)
    beyond = slice(HIGHEST + 1, GRID - HIGHEST)
    assert np.allclose(after[beyond], before[beyond], atol=0.05)


def test_a_volume_in_its_own_style_is_itself() -> None:
    scan, copy = a_scan(1), a_scan(1)
    for donor in (scan, copy):
        found = StyleExchange(ALWAYS, [donor])(
            scan.image, scan, (0, 0, 0), np.random.default_rng(0)
        )
        np.testing.assert_allclose(found, scan.image, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(
    start=st.tuples(*(st.integers(-8, 24) for _ in range(3))),
    size=st.tuples(*(st.integers(1, 40) for _ in range(3))),
)
def test_a_crop_in_a_style_is_a_crop_of_the_volume_in_it(
    start: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    own, donor = a_scan(1), a_scan(3, (20, 50, 40))
    exchange = StyleExchange(ALWAYS, [donor])
    whole = exchange(own.image, own, (0, 0, 0), np.random.default_rng(5))
    box = read_padded(own.image, start, size, -9)
    found = exchange(box, own, start, np.random.default_rng(5))
    np.testing.assert_allclose(found, read_padded(whole, start, size, -9), atol=1e-5)


@pytest.mark.parametrize("off", [{"style": 0}, {"strength": 0}, None])
def test_switched_off_it_draws_nothing(off: dict[str, float] | None) -> None:
    """Runs whose settings switch it off see the same crops as if it was not there."""
    scan = a_scan(1)
    exchange = StyleExchange(
        AugmentationSettings(**(off or {"style": 1})), [] if off is None else [a_scan(2)]
    )
    generator, untouched = np.random.default_rng(0), np.random.default_rng(0)
    assert exchange(scan.image, scan, (0, 0, 0), generator) is scan.image
    assert generator.random() == untouched.random()


def test_labeled_crops_take_on_a_style_and_unlabeled_ones_do_not() -> None:
    labeled, other = a_scan(1), a_scan(4)
    labeled.labels = np.zeros(labeled.image.shape, np.uint8)
    plain, styled = (
        CropSampler([labeled, other], (32, 32, 16), RetrainingSettings(), style=style).draw(
            np.random.default_rng(0)
        )
        for style in (None, StyleExchange(ALWAYS, [other]))
    )
    assert not torch.allclose(plain[0].image[0], styled[0].image[0], atol=1e-2)
    assert torch.equal(plain[0].labels[0], styled[0].labels[0])
    assert styled[1] is not None
    values = other.image.ravel()
    assert np.isin(styled[1].image.numpy().ravel(), values).all()
