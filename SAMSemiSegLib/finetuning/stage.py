"""Stage 2: adapt the foundation model to the labeled volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from SAMSemiSegLib.augmentation.augmentation import Augmentation
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.finetuning.strategy import STRATEGIES, FinetuningStrategy, Sample
from SAMSemiSegLib.foundation.weights import load_model
from SAMSemiSegLib.run.settings import RunSettings
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.loop import Optimization, Task, train
from SAMSemiSegLib.training.progress import Progress
from SAMSemiSegLib.training.randomness import seed_torch

ADVICE = (
    "lower stitching.max_pixels or preprocessing.scale, or set "
    "finetuning.gradient_checkpointing=true."
)


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


def build_strategy(settings: RunSettings, channels: int, context: Context) -> FinetuningStrategy:
    """The strategy named in the settings around its foundation model, before training.

    Raises:
        InputError: an unknown name or option, or weights that cannot be had.
    """
    entry = STRATEGIES[settings.finetuning.strategy]
    try:
        options = entry.Options(**settings.finetuning.options)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        known = ", ".join(sorted(entry.Options.model_fields)) or "none"
        raise InputError(
            f"The setting finetuning.options.{key} of {entry.title} cannot be used "
            f"({problem['msg']}); its options are: {known}."
        ) from error
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
        unlabeled: further cases, seen only by strategies that use them.
        settings: of the run.
        folder: for the checkpoint.
        context: collaborators.
        spacing: of the preprocessed volumes, in millimeters.
        name: of the stage in the event stream.
    """
    own = settings.finetuning
    augment = Augmentation(own.augmentation, spacing)

    def sample(case: VolumeCase, generator: np.random.Generator) -> Sample:
        image = torch.from_numpy(np.array(case.image, dtype=np.float32))
        labels = None if case.labels is None else torch.from_numpy(np.array(case.labels))
        image, labels, _ = augment(image, labels, None, generator)
        if own.patch is not None:
            box = _random_box(image.shape, own.patch, generator)
            image, labels = image[box], None if labels is None else labels[box]
        return Sample(case.id, image, labels)

    def draw(generator: np.random.Generator, progress: Progress) -> SampleBatch:
        return SampleBatch(
            [sample(case, generator) for case in _pick(labeled, own.batch_size, generator)],
            [sample(case, generator) for case in _pick(unlabeled, own.batch_size, generator)]
            if strategy.uses_unlabeled and unlabeled
            else [],
        )

    def step(batch: SampleBatch, progress: Progress) -> tuple[dict[str, Tensor], dict[str, float]]:
        moved = [
            [Sample(s.id, s.image.to(context.device), _to(s.labels, context)) for s in samples]
            for samples in (batch.labeled, batch.unlabeled)
        ]
        return strategy.step(moved[0], moved[1], progress), {}

    task = Task(
        name=name,
        module=strategy,
        draw=draw,
        step=step,
        after_step=strategy.after_step,
        state=strategy.trainable_state_dict,
        load_state=strategy.load_trainable_state_dict,
        advice=ADVICE,
    )
    optimization = Optimization(
        learning_rate=own.learning_rate, weight_decay=own.weight_decay, warmup=own.warmup
    )
    train(task, own.budget, optimization, folder / "checkpoint.pt", context)


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


def _pick(
    cases: Sequence[VolumeCase], count: int, generator: np.random.Generator
) -> list[VolumeCase]:
    """``count`` different cases, fewer where there are fewer."""
    order = generator.permutation(len(cases))[:count]
    return [cases[int(index)] for index in order]
