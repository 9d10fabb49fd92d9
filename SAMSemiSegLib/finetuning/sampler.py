"""Whole volumes (or crops of them) for the steps of fine-tuning, augmented."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch

from SAMSemiSegLib.augmentation.augmentation import Augmentation
from SAMSemiSegLib.augmentation.style import StyleExchange
from SAMSemiSegLib.finetuning.strategy import Sample
from SAMSemiSegLib.run.settings import FinetuningSettings
from SAMSemiSegLib.training.losses import IGNORE
from SAMSemiSegLib.training.randomness import generator as random_generator

KEPT, KEPT_BYTES = 96, 2**29
"""Augmented volumes that are remembered at most, for strategies with a fixed number of variants."""


class VolumeCase(Protocol):
    """A preprocessed case."""

    @property
    def id(self) -> str: ...

    @property
    def image(self) -> np.ndarray[Any, Any]: ...

    @property
    def labels(self) -> np.ndarray[Any, Any] | None: ...


@dataclass(frozen=True)
class SampleBatch:
    """The volumes of one step."""

    labeled: list[Sample]
    unlabeled: list[Sample]


class VolumeSampler:
    """Draws volumes in random order; labeled ones take on the style of all.

    Args:
        labeled: cases with labels.
        unlabeled: further cases.
        settings: batch size, crop and augmentation.
        spacing: of the preprocessed volumes, in millimeters.
        variants: how many augmentations there are of all labeled volumes, and of all unlabeled
            ones, for strategies that keep what they compute of one; None: each is drawn anew.
        seed, name: of the run and the stage, for those variants.
    """

    def __init__(
        self,
        labeled: Sequence[VolumeCase],
        unlabeled: Sequence[VolumeCase],
        settings: FinetuningSettings,
        spacing: tuple[float, float, float],
        variants: int | None,
        seed: int,
        name: str,
    ) -> None:
        self.labeled = labeled
        self.unlabeled = unlabeled
        self.settings = settings
        self.augment = Augmentation(settings.augmentation, spacing)
        self.style = StyleExchange(settings.augmentation, [*labeled, *unlabeled])
        self.variants = variants
        self._seed, self._name = seed, name
        self._cases = {case.id: case for case in [*labeled, *unlabeled]}
        # A float32 and a label a voxel.
        largest = max(5 * case.image.size for case in labeled)
        kept = max(1, min(KEPT, KEPT_BYTES // largest))
        self._variant = lru_cache(kept)(self._make_variant)

    def draw(self, generator: np.random.Generator, with_unlabeled: bool) -> SampleBatch:
        """The volumes of one step."""
        labeled = self._draw(self.labeled, generator)
        unlabeled = self.unlabeled if with_unlabeled else []
        return SampleBatch(labeled, self._draw(unlabeled, generator) if unlabeled else [])

    def _draw(self, cases: Sequence[VolumeCase], generator: np.random.Generator) -> list[Sample]:
        """``batch_size`` different ones, fewer where there are fewer."""
        order = generator.permutation(len(cases))[: self.settings.batch_size]
        chosen = [cases[int(index)] for index in order]
        if self.variants is None:
            return [self._sample(case, generator) for case in chosen]
        # Shared out among the volumes: four augmentations of a single one are learned by heart.
        count = math.ceil(self.variants / len(cases))
        return [self._variant(case.id, int(generator.integers(count))) for case in chosen]

    def _make_variant(self, id: str, number: int) -> Sample:
        own = random_generator(self._seed, f"{self._name} {id}", number)
        sample = self._sample(self._cases[id], own)
        return replace(sample, variant=number, seed=int(own.integers(2**32)))

    def _sample(self, case: VolumeCase, generator: np.random.Generator) -> Sample:
        array = np.array(case.image, dtype=np.float32)
        labels = torch.zeros(array.shape, dtype=torch.uint8)
        if case.labels is not None:
            array = self.style(array, case, (0, 0, 0), generator)
            labels = torch.from_numpy(np.array(case.labels))
        image, moved, _ = self.augment(torch.from_numpy(array), labels, None, generator)
        assert moved is not None
        if self.settings.patch is not None:
            box = _random_box(image.shape, self.settings.patch, generator)
            image, moved = image[box], moved[box]
        if case.labels is not None:
            return Sample(case.id, image, moved)
        return Sample(case.id, image, outside=moved == IGNORE)


def _random_box(
    shape: Sequence[int], patch: Sequence[int], generator: np.random.Generator
) -> tuple[slice, ...]:
    """A box of the patch's size anywhere inside; the whole of an axis that is shorter."""
    box = []
    for side, length in zip(shape, patch, strict=True):
        start = int(generator.integers(max(side - length, 0) + 1))
        box.append(slice(start, start + length))
    return tuple(box)
