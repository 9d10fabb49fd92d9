"""Stage 2: adapt the foundation model to the labeled volumes."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from SAMSemiSegLib.finetuning.adapters.freeze import count_trainable
from SAMSemiSegLib.finetuning.sampler import SampleBatch, VolumeCase, VolumeSampler
from SAMSemiSegLib.finetuning.strategy import STRATEGIES, FinetuningStrategy
from SAMSemiSegLib.foundation.weights import load_model
from SAMSemiSegLib.run.settings import FinetuningSettings, RunSettings, validated
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.loop import Optimization, Task, train
from SAMSemiSegLib.training.progress import Progress
from SAMSemiSegLib.training.randomness import seed_torch

log = logging.getLogger("SAMSemiSegLib")


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
    shape = np.median([case.image.shape for case in labeled], axis=0).astype(int)
    x, y, z = (shape if own.patch is None else np.minimum(shape, own.patch)).tolist()
    strategy.typical_shape = (x, y, z)
    sampler = VolumeSampler(labeled, unlabeled, own, spacing, strategy.variants, context.seed, name)

    def draw(generator: np.random.Generator, progress: Progress) -> SampleBatch:
        return sampler.draw(generator, strategy.uses_unlabeled)

    def step(batch: SampleBatch, progress: Progress) -> tuple[dict[str, Tensor], dict[str, float]]:
        moved = [
            [
                replace(
                    s,
                    image=s.image.to(context.device),
                    labels=_to(s.labels, context),
                    outside=_to(s.outside, context),
                )
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
        state=strategy.trainable_state_dict,
        load_state=strategy.load_trainable_state_dict,
        advice=strategy.advice,
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


def _to(labels: Tensor | None, context: Context) -> Tensor | None:
    return None if labels is None else labels.to(context.device)
