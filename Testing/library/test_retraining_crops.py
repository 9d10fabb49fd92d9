"""Crops of volumes, and the size chosen for them."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from SAMSemiSegLib.augmentation.augmentation import Augmentation
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.retraining.crops import CropSampler, read_padded
from SAMSemiSegLib.retraining.patch import choose_patch
from SAMSemiSegLib.run.settings import AugmentationSettings, RetrainingSettings


@dataclass
class Pseudo:
    hard: np.ndarray
    probabilities: np.ndarray
    confidence: np.ndarray


@dataclass
class OneCase:
    image: np.ndarray
    labels: np.ndarray | None = None
    pseudo_label: Pseudo | None = None
    selected: bool = True


def numbered(shape: tuple[int, int, int]) -> np.ndarray:
    """Every voxel's value is its own number, so that a crop shows where it came from."""
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def make_cases(shape: tuple[int, int, int]) -> list[OneCase]:
    labels = np.zeros(shape, np.uint8)
    labels[-2:, -3:, 4:6] = 1
    labels[0, 0, 0] = 2
    probabilities = np.stack([1 - labels.clip(0, 1), labels == 1, labels == 2]).astype(np.float16)
    pseudo = Pseudo(labels, probabilities, np.full(shape, 0.5, np.float32))
    image = numbered(shape)
    return [OneCase(image, labels), OneCase(image, None, pseudo), OneCase(image, selected=False)]


@pytest.mark.parametrize("shape", [(40, 24, 20), (10, 30, 8)])
def test_crops_are_what_the_volume_holds(shape: tuple[int, int, int]) -> None:
    settings = RetrainingSettings(pseudo_label_target="soft")
    cases = make_cases(shape)
    sampler = CropSampler(cases, (16, 16, 16), settings)
    labeled, unlabeled = sampler.draw(np.random.default_rng(0))
    assert labeled.image.shape == (2, 1, 16, 16, 16) and labeled.labels.dtype == torch.uint8
    inside = labeled.labels != 255
    index = labeled.image[:, 0][inside].long()
    assert torch.equal(torch.from_numpy(cases[0].labels).flatten()[index], labeled.labels[inside])
    expected = np.prod([min(16, side) for side in shape])
    assert inside.sum() == 2 * expected
    assert (labeled.image[:, 0][~inside] == 0).all()  # the image's minimum

    assert unlabeled is not None and unlabeled.selected is not None
    row = int(unlabeled.selected.nonzero())  # the volume that has a pseudo-label
    hard, soft = unlabeled.pseudo_hard, unlabeled.pseudo_soft
    assert hard is not None and soft is not None and unlabeled.confidence is not None
    known = hard[row] != 255
    assert known.sum() == expected and (hard[1 - row] == 255).all()
    assert torch.equal(soft[row].argmax(0)[known], hard[row][known].long())
    assert (unlabeled.confidence[row][known] == 0.5).all()
    assert unlabeled.confidence[1 - row].sum() == 0


def test_same_generator_same_crops_and_one_volume_gives_different_ones() -> None:
    sampler = CropSampler(make_cases((64, 64, 64))[:1], (16, 16, 16), RetrainingSettings())
    first, none = sampler.draw(np.random.default_rng(3))
    again, _ = sampler.draw(np.random.default_rng(3))
    assert none is None
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image[0], first.image[1])


def test_foreground_crops_hold_foreground_of_every_class() -> None:
    settings = RetrainingSettings(foreground_crops=1.0, labeled_batch=1)
    sampler = CropSampler(make_cases((64, 64, 64))[:1], (16, 16, 16), settings)
    seen = [set(sampler.draw_labeled(np.random.default_rng(i)).labels.unique().tolist())
            for i in range(12)]  # fmt: skip
    assert all(s & {1, 2} for s in seen)
    assert any(1 in s for s in seen) and any(2 in s for s in seen)


def test_an_unlabeled_crop_says_what_is_of_its_volume() -> None:
    cases = make_cases((40, 24, 20))
    for mode in ("off", "on"):
        settings = RetrainingSettings(pseudo_label_mode=mode)
        drawn = CropSampler(cases, (48, 24, 16), settings).draw_unlabeled(np.random.default_rng(0))
        assert drawn.valid.float().mean() == pytest.approx(5 / 6)
        assert (drawn.image[:, 0][~drawn.valid] == drawn.image.min()).all()


def test_online_a_crop_without_pseudo_label_still_says_what_is_outside() -> None:
    settings = RetrainingSettings(pseudo_label_mode="selected", unlabeled_batch=1)
    whole = make_cases((40, 24, 20))
    cases = [replace(case, selected=True) for case in whole if case.pseudo_label is None]
    for alternation in ("rounds", "online"):
        settings.selection.alternation = alternation  # type: ignore[assignment]
        sampler = CropSampler(cases, (48, 24, 16), settings)
        drawn = sampler.draw_unlabeled(np.random.default_rng(0))
        if alternation == "rounds":
            assert drawn.pseudo_hard is None
        else:
            assert drawn.pseudo_hard is not None and drawn.selected is not None
            assert (drawn.pseudo_hard == 255).float().mean() == pytest.approx(1 / 6)
            assert not drawn.selected.any()
    # One whose pseudo-label cannot be right gets no other.
    without_part = [replace(case, selected=False) for case in cases]
    sampler = CropSampler(without_part, (48, 24, 16), settings)
    assert sampler.draw_unlabeled(np.random.default_rng(0)).pseudo_hard is None


def test_an_augmented_crop_shows_nothing_but_its_volume_where_there_is_some() -> None:
    """However it is turned or made smaller; only beyond the volume there is no label."""
    shape = (120, 120, 90)
    image, labels = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    labels[56:64, 56:64, 41:49] = 1  # where all crops are
    settings = RetrainingSettings(foreground_crops=1, augmentation=AugmentationSettings(style=0))
    case = make_cases(shape)[0]
    middle = replace(case, image=image + labels, labels=labels)
    augment = Augmentation(settings.augmentation)
    sampler = CropSampler([middle], (32, 32, 16), settings, augment)
    for seed in range(60):
        drawn = sampler.draw_labeled(np.random.default_rng(seed))
        assert drawn.image.shape[2:] == drawn.labels.shape[1:] == (32, 32, 16)
        assert drawn.valid.all()


def test_without_labels_there_is_nothing_to_train_on() -> None:
    with pytest.raises(InputError, match="label at least one"):
        CropSampler(make_cases((16, 16, 16))[1:], (16, 16, 16), RetrainingSettings())


@given(st.integers(-12, 12), st.integers(1, 12))
def test_padded_reading(start: int, size: int) -> None:
    array = numbered((6, 5, 4))
    box = read_padded(array[None], (start, 0, 0), (size, 5, 4), -1)[0]
    for i in range(size):
        inside = 0 <= start + i < 6
        assert (box[i] == (array[start + i] if inside else -1)).all()


@pytest.mark.parametrize(
    ("median", "channels", "expected"),
    [
        ((175, 132, 88), 2, (112, 112, 80)),  # left atrium, as published
        ((300, 220, 110), 14, (96, 96, 96)),  # 13 abdominal organs, as published
        ((35, 51, 35), 3, (32, 48, 32)),  # hippocampus: nearly all of it
        ((5, 5, 5), 2, (32, 16, 16)),  # 16x16x16 would leave one voxel at the bottleneck
        ((16, 17, 23), 2, (16, 16, 32)),
    ],
)
def test_patch(median: tuple[int, int, int], channels: int, expected: tuple[int, ...]) -> None:
    assert choose_patch(median, channels) == expected


def test_patch_of_cubes() -> None:
    assert choose_patch((175, 132, 88), 2, divisor=32) == (96, 96, 96)
