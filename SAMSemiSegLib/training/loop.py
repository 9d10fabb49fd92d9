"""The training loop of both stages.

It owns what is the same for every strategy and method: budget, learning rate, mixed precision,
several processes, checkpoints, progress, cancellation, and the early notice of divergence.
"""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from SAMSemiSegLib.errors import Cancelled, TrainingDivergedError
from SAMSemiSegLib.run.settings import Budget
from SAMSemiSegLib.training.checkpoint import load_checkpoint, save_checkpoint
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.memory import memory_sentence
from SAMSemiSegLib.training.progress import Progress
from SAMSemiSegLib.training.randomness import generator, seed_torch

Batch = TypeVar("Batch")

LEAST = 10
"""Steps that are made in however few minutes."""

CLIP = 5.0
"""Largest norm of a step's gradient."""


@dataclass
class Task(Generic[Batch]):
    """What is trained, and on what.

    Attributes:
        name: of the stage, in events and seeds.
        section: of the settings, where the learning rate is.
        module: holds the parameters; those with ``requires_grad`` are trained.
        draw: makes the batch of a step from that step's generator alone (it runs in a thread, one
            step ahead).
        step: loss terms by name from a batch, and further values to log.
        state, load_state: what a checkpoint keeps of the module.
        advice: what to lower when memory runs out.
        after_step: moving averages and the like.
        period: every so many steps one is costlier than the others.
        settles: steps become cheaper on the way, for what they compute is kept; the number that
            fits into the minutes is fixed anew after each quarter.
    """

    name: str
    section: Literal["finetuning", "retraining"]
    module: nn.Module
    draw: Callable[[np.random.Generator, Progress], Batch]
    step: Callable[[Batch, Progress], tuple[dict[str, Tensor], dict[str, float]]]
    state: Callable[[], dict[str, Any]]
    load_state: Callable[[dict[str, Any]], Any]
    advice: str
    after_step: Callable[[Progress], None] = lambda progress: None
    period: int = 1
    settles: bool = False


@dataclass(frozen=True)
class Optimization:
    """Optimizer and learning rate; the rate is a function of the progress alone."""

    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    schedule: Literal["poly", "step"] = "poly"
    warmup: float = 0.0

    def build(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """A fresh optimizer."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                parameters, self.learning_rate, momentum=0.9, weight_decay=self.weight_decay
            )
        return torch.optim.AdamW(parameters, self.learning_rate, weight_decay=self.weight_decay)

    def rate(self, progress: Progress) -> float:
        """The learning rate of a step: poly (1-t)^0.9, or tenfold lower at 5/12 and 10/12 of the
        run (UA-MT's 2,500 of 6,000 steps)."""
        t = progress.fraction
        if self.warmup > 0 and t < self.warmup:
            return (
                self.learning_rate * (t + 1 / progress.total) / (self.warmup + 1 / progress.total)
            )
        if self.schedule == "poly":
            return self.learning_rate * (1 - t) ** 0.9
        return self.learning_rate * 0.1 ** int(t * 12 / 5)


@dataclass
class _Watch:
    """Notices early when training goes wrong. A loss begins anew with a term never seen before."""

    first: list[float] = field(default_factory=list)
    last: deque[float] = field(default_factory=lambda: deque(maxlen=20))
    warned: bool = False
    terms: frozenset[str] = frozenset()

    def see(self, losses: Mapping[str, float], task: Task[Any], context: Context) -> None:
        loss = losses["loss"]
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"The loss of {task.name} is no longer a number; start again with a lower learning "
                f"rate (--set {task.section}.learning_rate=...) or without mixed precision "
                "(--set mixed_precision=no)."
            )
        if not self.terms.issuperset(losses):
            self.terms = self.terms.union(losses)
            self.first.clear()
            self.last.clear()
        self.last.append(loss)
        if len(self.first) < 20:
            self.first.append(loss)
        elif not self.warned and float(np.mean(self.last)) > 2 * float(np.mean(self.first)):
            self.warned = True
            context.events.warning(
                f"The loss of {task.name} has doubled since the start; the learning rate is "
                "probably too high."
            )


def train(
    task: Task[Batch],
    budget: Budget,
    optimization: Optimization,
    checkpoint: Path,
    context: Context,
) -> None:
    """Train ``task`` to the end of its budget, from its checkpoint if there is one.

    Raises:
        Cancelled: asked to stop; the checkpoint is up to date.
        TrainingDivergedError: the loss is not finite.
        OutOfMemoryError: the device's memory does not suffice.
    """
    accelerator, rank = context.accelerator, context.accelerator.process_index
    scaler = accelerator.scaler
    first, total, spent = 0, 0, 0.0
    with memory_sentence(task.advice):
        task.module.to(context.device).train()
        parameters = [p for p in task.module.parameters() if p.requires_grad]
        optimizer = optimization.build(parameters)
        if checkpoint.exists():
            kept = load_checkpoint(checkpoint)
            task.load_state(kept["module"])
            optimizer.load_state_dict(kept["optimizer"])
            if scaler is not None and kept["scaler"]:
                scaler.load_state_dict(kept["scaler"])
            first, total, spent = kept["step"], kept["total"], kept["seconds"]
        total = total or _fix_steps(task, budget, optimization, context)
    context.events.stage(task.name, total, first)
    started = saved = time.monotonic()

    def save(step: int) -> None:
        if context.main:
            contents = {
                "module": task.state(),
                "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else {},
                "step": step,
                "total": total,
                "seconds": spent + time.monotonic() - started,
            }
            save_checkpoint(checkpoint, contents)

    def draw(step: int) -> Batch:
        return task.draw(generator(context.seed, task.name, step, rank), Progress(step, total))

    watch, running = _Watch(), _Running()
    with ThreadPoolExecutor(1, "batches") as thread, memory_sentence(task.advice):
        upcoming: Future[Batch] | None = thread.submit(draw, first) if first < total else None
        step, measured, since = first, first, started
        while step < total:
            try:
                context.cancellation.check()
            except Cancelled:
                save(step)
                raise
            assert upcoming is not None
            batch = upcoming.result()
            progress = Progress(step, total)
            if task.settles and budget.minutes and step > measured and _quarter_is_over(progress):
                now = time.monotonic()
                left = 60 * budget.minutes - (spent + now - started)
                more = int(left * (step - measured) / max(now - since, 1e-9))
                total = _agreed(step + max(1, more), context)
                measured, since = step, now
            upcoming = thread.submit(draw, step + 1) if step + 1 < total else None
            for group in optimizer.param_groups:
                group["lr"] = optimization.rate(progress)
            seed_torch(context.seed, task.name, step, rank)
            losses, values = _learn(task, batch, progress, parameters, optimizer, context)
            watch.see(losses, task, context)
            running.see(losses | values)
            now = time.monotonic()
            step += 1
            if running.due(now) or step == total:
                context.events.progress(step, total, **running.take(now))
            if now - saved > context.checkpoint_seconds:
                save(step)
                saved = time.monotonic()
    save(total)
    context.wait()
    context.events.done()


def _learn(
    task: Task[Batch],
    batch: Batch,
    progress: Progress,
    parameters: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    context: Context,
) -> tuple[dict[str, float], dict[str, float]]:
    """One whole step; gradients are averaged over the processes. Losses and values to log."""
    scaler = context.accelerator.scaler
    with context.accelerator.autocast():
        terms, values = task.step(batch, progress)
    total = torch.stack([term.float() for term in terms.values()]).sum()
    if total.requires_grad:
        context.accelerator.backward(total)
    context.average_gradients(parameters)
    if scaler is not None:
        scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(parameters, CLIP)
    if scaler is not None:
        scaler.step(optimizer)
        scaler.update()
    else:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    task.after_step(progress)
    losses = {name: float(term.detach()) for name, term in terms.items()}
    return {"loss": float(total.detach()), **losses}, values


def _fix_steps(
    task: Task[Batch], budget: Budget, optimization: Optimization, context: Context
) -> int:
    """The number of steps: as given, or what fits into the minutes, by timing a few steps whose
    effect is taken back.

    They are spread over the run, for terms of a method may begin on the way; the latest come first,
    so that where there is time for few of them, those are of the costly kind.
    """
    if budget.minutes is None:
        return budget.steps
    before = copy.deepcopy(task.state())
    scaler = context.accelerator.scaler
    scale = scaler.state_dict() if scaler is not None else {}
    parameters = [p for p in task.module.parameters() if p.requires_grad]
    optimizer = replace(optimization, learning_rate=0.0).build(parameters)
    seconds: list[float] = []
    periods = math.ceil(4 / task.period)
    timed, stride = periods * task.period, 100 * task.period

    def progress_of(step: int) -> Progress:
        # Whole strides apart but for one step each, so that a period is met as in the run.
        return Progress((timed - max(step, 1)) * stride + stride // 2 + step, timed * stride)

    def draw(step: int) -> Batch:
        return task.draw(generator(context.seed, task.name, step), progress_of(step))

    # As in training, a batch is drawn while the one before it is learned from.
    with ThreadPoolExecutor(1, "batches") as thread:
        upcoming = thread.submit(draw, 0)
        for step in range(1 + timed):
            context.cancellation.check()
            began = time.monotonic()
            batch = upcoming.result()
            upcoming = thread.submit(draw, min(step + 1, timed))
            seed_torch(context.seed, task.name, step)
            _learn(task, batch, progress_of(step), parameters, optimizer, context)
            seconds.append(time.monotonic() - began)
            # Each process has a clock of its own, and all must make the same steps.
            if _agreed(int(sum(seconds) > 6 * budget.minutes), context):
                break
    task.load_state(before)
    if scaler is not None and scale:
        scaler.load_state_dict(scale)
    # Means over whole periods, without the first step, which warms up.
    whole = (len(seconds) - 1) // task.period * task.period
    typical = float(np.mean(seconds[1 : 1 + whole] or seconds))
    steps = _agreed(int(60 * budget.minutes / typical), context)
    if steps < LEAST:
        context.events.message(
            f"The {budget.minutes:g} minutes of {task.name} are not enough for {LEAST} steps, "
            "which it makes all the same."
        )
    return max(LEAST, steps)


def _quarter_is_over(progress: Progress) -> bool:
    """Whether this step begins the second, third or last quarter: by the step alone, so that all
    processes, and a run that is resumed, look at the clock at the same step."""
    return progress.step in (progress.total * quarter // 4 for quarter in (1, 2, 3))


def _agreed(steps: int, context: Context) -> int:
    """The first process's number, in all."""
    if context.accelerator.num_processes == 1:
        return steps
    from accelerate.utils import broadcast

    return int(broadcast(torch.tensor(steps, device=context.device)))


class _Running:
    """Means of logged values since the last event; an event about every second."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}
        self._last = 0.0

    def see(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._sums.setdefault(name, []).append(value)

    def due(self, now: float) -> bool:
        return now - self._last >= 1.0

    def take(self, now: float) -> dict[str, float]:
        self._last = now
        means = {name: float(np.mean(values)) for name, values in self._sums.items()}
        self._sums = {}
        return means
