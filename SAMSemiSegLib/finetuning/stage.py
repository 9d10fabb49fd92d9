"""Stage 2: adapt the foundation model to the labeled volumes."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from SAMSemiSegLib.augmentation.augmentation import Augmentation
from SAMSemiSegLib.augmentation.style import StyleExchange
from SAMSemiSegLib.finetuning.adapters.freeze import count_trainable
from SAMSemiSegLib.finetuning.strategy import STRATEGIES, FinetuningStrategy, Sample
from SAMSemiSegLib.foundation.weights import load_model
from SAMSemiSegLib.run.settings import FinetuningSettings, RunSettings, validated
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.loop import Optimization, Task, train
from SAMSemiSegLib.training.progress import Progress
from SAMSemiSegLib.training.randomness import generator as random_generator
from SAMSemiSegLib.training.randomness import seed_torch

log = logging.getLogger("SAMSemiSegLib")

ADVICE = (
    "lower stitching.max_pixels or preprocessing.scale, or set "
    "finetuning.gradient_checkpointing=true."
)


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


def read_options(settings: FinetuningSettings) -> FinetuningStrategy.Options:
    """The strategy's own options, validated.

    Raises:
        InputError: an unknown strategy or option, or a value that is not allowed.
    """
    entry = STRATEGIES[settings.strategy]
    return validated(entry.Options, settings.options, "finetuning.options", entry.title)


def build_strategy(settings: RunSettings, channels: int, context: Context) -> FinetuningStrategy:
    """The strategy named in the settings around its foundation model, before training.

    Raises:
        InputError: an unknown name or option, or weights that cannot be had.
    """
    entry = STRATEGIES[settings.finetuning.strategy]
    options = read_options(settings.finetuning)
    # One process fetches the weights, the others then find them.
    with context.accelerator.local_main_process_first():
        foundation = load_model(settings.foundation, context.device)
    if settings.finetuning.gradient_checkpointing:
        foundation.enable_gradient_checkpointing()
    seed_torch(settings.seed, "finetuning-init", 0)
    strategy = entry(foundation, channels, settings.stitching, options)
    strategy.mirror_axes = settings.finetuning.augmentation.flip_axes
    strategy.window = settings.finetuning.patch
    return strategy.to(context.device)


def finetune(
    strategy: FinetuningStrategy,
    labeled: Sequence[VolumeCase],
    unlabeled: Sequence[VolumeCase],
    settings: RunSettings,
    folder: Path,
    context: Context,
    spacing: tuple[float, float, float],
    name: str = "finetuning",
) -> None:
    """Train ``strategy`` in place; ``folder`` keeps its checkpoint.

    Args:
        strategy: from :func:`build_strategy`.
        labeled: cases with labels.
        unlabeled: further cases; of these, strategies that do not use them see the style alone.
        settings: of the run.
        folder: for the checkpoint.
        context: collaborators.
        spacing: of the preprocessed volumes, in millimeters.
        name: of the stage in the event stream.
    """
    own = settings.finetuning
    augment = Augmentation(own.augmentation, spacing)
    style = StyleExchange(own.augmentation, [*labeled, *unlabeled])

    def sample(case: VolumeCase, generator: np.random.Generator) -> Sample:
        array = np.array(case.image, dtype=np.float32)
        labels = None
        if case.labels is not None:
            array = style(array, case, (0, 0, 0), generator)
            labels = torch.from_numpy(np.array(case.labels))
        image = torch.from_numpy(array)
        image, labels, _ = augment(image, labels, None, generator)
        if own.patch is not None:
            box = _random_box(image.shape, own.patch, generator)
            image, labels = image[box], None if labels is None else labels[box]
        return Sample(case.id, image, labels)

    # A float32 and a label a voxel.
    largest = max(5 * case.image.size for case in labeled)
    kept = max(1, min(KEPT, KEPT_BYTES // largest))

    @lru_cache(kept)
    def variant(part: int, index: int, number: int) -> Sample:
        case = (labeled, unlabeled)[part][index]
        drawn = sample(case, random_generator(context.seed, f"{name} {case.id}", number))
        return replace(drawn, variant=number)

    def pick(part: int, generator: np.random.Generator) -> list[Sample]:
        cases = (labeled, unlabeled)[part]
        chosen = _pick(len(cases), own.batch_size, generator)
        if strategy.variants is None:
            return [sample(cases[index], generator) for index in chosen]
        # Shared out among the volumes: four augmentations of a single one are learned by heart.
        count = math.ceil(strategy.variants / len(cases))
        return [variant(part, index, int(generator.integers(count))) for index in chosen]

    def draw(generator: np.random.Generator, progress: Progress) -> SampleBatch:
        return SampleBatch(
            pick(0, generator),
            pick(1, generator) if strategy.uses_unlabeled and unlabeled else [],
        )

    def step(batch: SampleBatch, progress: Progress) -> tuple[dict[str, Tensor], dict[str, float]]:
        moved = [
            [
                replace(s, image=s.image.to(context.device), labels=_to(s.labels, context))
                for s in samples
            ]
            for samples in (batch.labeled, batch.unlabeled)
        ]
        return strategy.step(moved[0], moved[1], progress), {}

    task = Task(
        name=name,
        section="finetuning",
        module=strategy,
        draw=draw,
        step=step,
        after_step=strategy.after_step,
        state=strategy.trainable_state_dict,
        load_state=strategy.load_trainable_state_dict,
        advice=ADVICE,
        period=strategy.period,
        settles=strategy.variants is not None,
    )
    optimization = Optimization(
        learning_rate=own.learning_rate, weight_decay=own.weight_decay, warmup=own.warmup
    )
    log.info("%s: %s trained parameters", strategy.title, f"{count_trainable(strategy):,}")
    scratch = folder / f"scratch-{context.accelerator.process_index}"
    shutil.rmtree(scratch, ignore_errors=True)  # a run that was killed has left it
    strategy.use_scratch(scratch)
    try:
        train(task, own.budget, optimization, folder / "checkpoint.pt", context)
    finally:
        strategy.use_scratch(None)
        shutil.rmtree(scratch, ignore_errors=True)


def _random_box(
    shape: Sequence[int], patch: Sequence[int], generator: np.random.Generator
) -> tuple[slice, ...]:
    """A box of the patch's size anywhere inside; the whole of an axis that is shorter."""
    box = []
    for side, length in zip(shape, patch, strict=True):
        start = int(generator.integers(max(side - length, 0) + 1))
        box.append(slice(start, start + length))
    return tuple(box)


def _to(labels: Tensor | None, context: Context) -> Tensor | None:
    return None if labels is None else labels.to(context.device)


def _pick(cases: int, count: int, generator: np.random.Generator) -> list[int]:
    """``count`` different cases' indices, fewer where there are fewer."""
    return [int(index) for index in generator.permutation(cases)[:count]]
