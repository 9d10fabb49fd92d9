"""Augmentation: labels follow the image, the generator decides everything, strength scales it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from SAMSemiSegLib.augmentation.augmentation import Augmentation
from SAMSemiSegLib.augmentation.bspline import smooth_field
from SAMSemiSegLib.augmentation.intensity import curve
from SAMSemiSegLib.run.settings import AugmentationSettings

CHANGES = ("low_resolution", "blur", "bias_field", "brightness", "gamma", "curve", "noise")
NONE = dict.fromkeys((*CHANGES, "affine", "elastic"), 0.0)
ALL = dict.fromkeys((*CHANGES, "affine", "elastic"), 1.0)


def blob(size=(40, 36, 28), center=(18, 20, 14), radius=8.0) -> tuple[torch.Tensor, torch.Tensor]:
    axes = [torch.arange(n) - c for n, c in zip(size, center, strict=True)]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    distance = (x**2 + 1.5 * y**2 + 0.7 * z**2).sqrt()
    image = torch.sigmoid(radius - distance) * 3 - 1
    return image, (image > 0.5).to(torch.uint8)


@pytest.mark.parametrize("seed", range(8))
def test_labels_and_maps_follow_the_image(seed):
    image, labels = blob()
    how = AugmentationSettings(**NONE | {"affine": 1.0, "elastic": 1.0}, flip_axes=(0, 1, 2))
    soft = torch.stack((1 - labels.float(), labels.float()))
    before = image.clone()
    moved, moved_labels, moved_soft = Augmentation(how, (1, 1, 3))(
        image, labels, soft, np.random.default_rng(seed)
    )
    assert torch.equal(image, before), "the input is left alone"
    inside = moved_labels != 255
    assert inside.float().mean() > 0.4
    found = (moved > 0.5) & inside
    expected = moved_labels == 1
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.93
    assert ((moved_soft[1] > 0.5) & inside).eq(expected)[inside].float().mean() > 0.98
    assert not torch.equal(moved, image)
    assert set(moved_labels.unique().tolist()) <= {0, 1, 255}
    assert moved[~inside].max() <= image.max() and moved.min() >= image.min() - 1e-5


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(*[st.integers(2, 12)] * 3),
    spacing=st.tuples(*[st.sampled_from((0.5, 1.0, 3.0))] * 3),
    seed=st.integers(0, 10**6),
)
def test_a_view_looks_at_nothing_but_its_box(size, spacing, seed):
    """So that nothing else of a volume has to be read for a crop."""
    generator = np.random.default_rng(seed)
    volume = torch.from_numpy(generator.normal(size=(60, 60, 60)).astype(np.float32))
    labels = (volume > 0).to(torch.uint8)
    how = AugmentationSettings(**NONE | {"affine": 0.8, "elastic": 0.5}, flip_axes=(0,))
    view = Augmentation(how, spacing).draw_view(size, generator)
    first, count = view.box
    at = [24 + f for f in first]
    box = tuple(slice(a, a + n) for a, n in zip(at, count, strict=True))
    found = view.of(volume[box], labels[box], None, first)
    if view.grid is None:
        assert first == [0, 0, 0] and tuple(count) == size
        expected = volume[box].flip(view.flips)
    else:  # the whole volume, in which the crop begins at 24
        expected = view.of(volume, labels, None, (-24, -24, -24))[0]
    assert torch.allclose(found[0], expected, atol=1e-3) and found[0].shape == size
    assert (found[1] != 255).all()


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(*[st.integers(1, 20)] * 3),
    seed=st.integers(0, 10**6),
    strength=st.sampled_from((0.2, 1.0, 2.0)),
)
def test_every_shape_stays_finite_and_the_generator_decides(size, seed, strength):
    image = torch.from_numpy(np.random.default_rng(1).normal(size=size).astype(np.float32))
    labels = (image > 0).to(torch.uint8)
    augmentation = Augmentation(AugmentationSettings(**ALL, strength=strength, flip_axes=(1,)))
    one, one_labels, _ = augmentation(image, labels, None, np.random.default_rng(seed))
    two, two_labels, _ = augmentation(image, labels, None, np.random.default_rng(seed))
    assert torch.equal(one, two) and torch.equal(one_labels, two_labels)
    assert one.shape == image.shape and one.dtype == image.dtype
    assert torch.isfinite(one).all() and one.abs().max() < 40


def test_strength_zero_and_probability_zero_change_nothing():
    image, labels = blob()
    for how in (AugmentationSettings(**ALL, strength=0), AugmentationSettings(**NONE)):
        same, same_labels, extra = Augmentation(how)(image, labels, None, np.random.default_rng(0))
        assert torch.equal(same, image) and torch.equal(same_labels, labels) and extra is None


def test_flips_mirror_only_the_axes_that_may():
    image, labels = blob()
    augmentation = Augmentation(AugmentationSettings(**NONE, flip_axes=(2,)))
    generator = np.random.default_rng(0)
    seen = set()
    for _ in range(12):
        moved, moved_labels, _ = augmentation(image[None], labels, None, generator)
        flipped = torch.equal(moved[0], image.flip(2))
        assert flipped or torch.equal(moved[0], image)
        assert torch.equal(moved_labels, labels.flip(2) if flipped else labels)
        seen.add(flipped)
    assert seen == {True, False}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_of_gray_values_changes_them_but_little(change):
    image, _ = blob()
    image = image + 0.3 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    augmentation = Augmentation(AugmentationSettings(**NONE | {change: 1.0}))
    for seed in range(5):
        changed = augmentation.intensity(image, np.random.default_rng(seed))
        assert not torch.equal(changed, image)
        both = torch.stack((changed.flatten(), image.flatten()))
        assert torch.corrcoef(both)[0, 1] > 0.85


def test_a_thin_stack_is_not_turned_out_of_itself():
    """A voxel of 2 mm through the slices; what lies outside is labeled 255."""

    def kept(size, spacing):
        changes = Augmentation(AugmentationSettings(**(NONE | {"affine": 1.0})), spacing)
        labels = torch.zeros(size, dtype=torch.uint8)
        shares = []
        for seed in range(12):
            moved = changes(torch.zeros(size), labels, None, np.random.default_rng(seed))[1]
            shares.append((moved == 0).float().mean().item())
        return np.median(shares)

    assert kept((48, 48, 40), (1, 1, 1)) > 0.8
    assert kept((80, 80, 6), (1, 1, 2)) > 0.7
    assert kept((96, 96, 3), (1, 1, 1)) > 0.6


def test_curve_keeps_the_order_of_gray_values():
    image = torch.randn(1, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    order = image.flatten().argsort()
    for seed in range(5):
        changed = curve(image, 1.0, np.random.default_rng(seed)).flatten()
        assert (changed[order].diff() >= -1e-5).all()
        assert not torch.allclose(changed, image.flatten(), atol=0.05)


def test_smooth_field_of_equal_control_points_is_constant():
    field = smooth_field(torch.full((1, 5, 6, 4), 0.7), (9, 1, 12))
    assert field.shape == (1, 9, 1, 12) and torch.allclose(field, torch.tensor(0.7))


def test_an_axis_to_mirror_along_is_named_once() -> None:
    with pytest.raises(ValueError, match="named twice"):
        AugmentationSettings(flip_axes=(0, 0))
