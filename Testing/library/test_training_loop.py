"""The training loop: how many steps fit into the minutes, and what a step does to weights."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from SAMSemiSegLib.errors import Cancelled, OutOfMemoryError, TrainingDivergedError
from SAMSemiSegLib.run.cancellation import Cancellation
from SAMSemiSegLib.run.events import Events, read_events
from SAMSemiSegLib.run.presets import load_settings
from SAMSemiSegLib.run.settings import Budget
from SAMSemiSegLib.training import loop
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.devices import make_accelerator
from SAMSemiSegLib.training.progress import Progress


@pytest.mark.parametrize("period", [1, 4, 6])
def test_minutes_become_steps_by_the_mean_of_whole_periods(
    period: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes 1 s, every ``period``-th 7 s: a minute holds 60 / (1 + 6 / period) of them."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock.now)
    net = nn.Linear(1, 1)

    def step(batch: int, progress: object) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        clock.now += 7 if batch % period == 0 else 1
        return {"loss_term": net(torch.ones(1, 1)).sum()}, {}

    context = Context(make_accelerator("cpu"), Events(None), Cancellation(tmp_path / "cancel"))
    steps = loop._fix_steps(
        task_of(net, step, period=period), Budget(minutes=10), loop.Optimization(), context
    )
    assert steps == int(600 / (1 + 6 / period))


@pytest.mark.parametrize("minutes, steps", [(10, int(600 / 2.5)), (0.6, int(36 / 3))])
def test_minutes_are_filled_where_a_term_begins_on_the_way(
    minutes: float, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes 1 s in the first quarter of the run and 3 s later; where there is no time to
    measure both, the later ones count."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock.now)
    net = nn.Linear(1, 1)

    def step(batch: int, progress: Progress) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        clock.now += 1 if progress.fraction < 0.25 else 3
        return {"loss_term": net(torch.ones(1, 1)).sum()}, {}

    context = Context(make_accelerator("cpu"), Events(None), Cancellation(tmp_path / "cancel"))
    budget = Budget(minutes=minutes)
    assert loop._fix_steps(task_of(net, step), budget, loop.Optimization(), context) == steps


def test_a_batch_that_is_drawn_meanwhile_costs_no_minutes(tmp_path: Path) -> None:
    """Timed as training does it: drawing and learning take 0.1 s each, at the same time."""
    net = nn.Linear(1, 1)

    def step(batch: int, progress: Progress) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        time.sleep(0.1)
        return {"loss_term": net(torch.ones(1, 1)).sum()}, {}

    task = task_of(net, step)
    task.draw = lambda generator, progress: time.sleep(0.1) or progress.step
    context = Context(make_accelerator("cpu"), Events(None), Cancellation(tmp_path / "cancel"))
    steps = loop._fix_steps(task, Budget(minutes=1), loop.Optimization(), context)
    assert 400 < steps <= 600  # one after the other: 300


def test_what_comes_after_the_gradient_counts_as_part_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock.now)
    net = nn.Linear(1, 1)
    before = net.weight.item()

    def step(batch: int, progress: Progress) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        clock.now += 1
        return {"loss_term": net(torch.ones(1, 1)).sum()}, {}

    def average(progress: Progress) -> None:
        clock.now += 2

    context = Context(make_accelerator("cpu"), Events(None), Cancellation(tmp_path / "cancel"))
    task = task_of(net, step, after_step=average)
    assert loop._fix_steps(task, Budget(minutes=10), loop.Optimization(), context) == 600 // 3
    assert net.weight.item() == before and net.weight.grad is None


def test_minutes_that_are_too_few_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock.now)
    net, told = nn.Linear(1, 1), []

    def step(batch: int, progress: Progress) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        clock.now += 30
        return {"loss_term": net(torch.ones(1, 1)).sum()}, {}

    context = Context(
        make_accelerator("cpu"), Events(None, (told.append,)), Cancellation(tmp_path / "cancel")
    )
    budget = Budget(minutes=1)
    assert loop._fix_steps(task_of(net, step), budget, loop.Optimization(), context) == 10
    assert "The 1 minutes of t are not enough for 10 steps" in told[-1]["message"]


class Keeping:
    """Steps that take 8 s, but 1 s where one of the 40 volumes has been met before."""

    def __init__(self, clock: SimpleNamespace) -> None:
        self.clock = clock
        self.net = nn.Linear(1, 1)
        self.met: set[int] = set()
        self.done: list[tuple[int, int]] = []

    def step(
        self, batch: int, progress: Progress
    ) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        volume = random.Random(batch + 1).randrange(40)
        self.clock.now += 1 if volume in self.met else 8
        self.met.add(volume)
        self.done.append((progress.step, progress.total))
        return {"loss_term": self.net(torch.ones(1, 1)).sum()}, {}


@pytest.mark.parametrize("stopped_after", [None, 30, 100])
def test_steps_that_become_cheaper_fill_the_minutes(
    stopped_after: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock.now)
    keeping = Keeping(clock)
    task = task_of(keeping.net, keeping.step, settles=True)

    def train() -> None:
        context = Context(make_accelerator("cpu"), Events(None), Cancellation(cancel))
        loop.train(
            task, Budget(minutes=10), loop.Optimization(), tmp_path / "checkpoint.pt", context
        )

    cancel = tmp_path / "cancel"
    if stopped_after is not None:
        task.after_step = lambda progress: progress.step + 1 == stopped_after and cancel.touch()
        with pytest.raises(Cancelled):
            train()
        last, total = keeping.done[-1]
        assert last + 1 == stopped_after
        cancel.unlink()
        keeping.met.clear()  # what was kept is gone with the process
    train()
    if stopped_after is not None:
        assert (last + 1, total) in keeping.done, "a resumed run does the same steps"
    steps = keeping.done[5:]  # without those that were timed
    assert [step for step, _ in steps] == list(range(steps[-1][1]))
    assert steps[-1][1] > 1.5 * steps[0][1]
    assert clock.now == pytest.approx(600, rel=0.1)


def test_what_no_step_uses_decays_as_with_several_processes(tmp_path: Path) -> None:
    """With several its gradient is the mean of zeros, not missing; AdamW tells the two apart."""
    net = nn.ModuleDict({"used": nn.Linear(1, 1), "idle": nn.Linear(1, 1, bias=False)})
    nn.init.ones_(net["idle"].weight)

    def step(batch: int, progress: Progress) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        return {"loss_term": net["used"](torch.ones(1, 1)).sum()}, {}

    context = Context(make_accelerator("cpu"), Events(None), Cancellation(tmp_path / "cancel"))
    optimization = loop.Optimization(learning_rate=0.1, weight_decay=0.5)
    loop.train(
        task_of(net, step), Budget(steps=1), optimization, tmp_path / "checkpoint.pt", context
    )
    assert net["idle"].weight.item() == pytest.approx(1 - 0.1 * 0.5)


def test_gradients_are_means_over_the_processes(tmp_path: Path) -> None:
    """The other one of two has twice the gradient."""

    def reduce(gradient: torch.Tensor, how: str) -> torch.Tensor:
        assert how == "mean"
        return (gradient + 2 * gradient) / 2

    accelerator: Any = SimpleNamespace(num_processes=2, reduce=reduce)
    context = Context(accelerator, Events(None), Cancellation(tmp_path / "cancel"))
    used, idle = (nn.Parameter(torch.ones(2)) for _ in range(2))
    (3 * used).sum().backward()
    context.average_gradients([used, idle])
    assert used.grad is not None and used.grad.tolist() == [4.5, 4.5]
    assert idle.grad is not None and idle.grad.tolist() == [0, 0]


@pytest.mark.parametrize("grows", ["by another term", "by itself", "beside a term now and then"])
def test_a_loss_that_doubles_is_told_but_not_a_term_that_begins_later(
    grows: str, tmp_path: Path
) -> None:
    net = nn.Linear(1, 1)

    def step(batch: int, progress: Progress) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        known, late = 0 * net(torch.ones(1, 1)).sum() + 1, progress.step >= 30
        if grows != "by another term":
            more = batch % 2 == 0 and grows != "by itself"
            losses = {"supervised": known * (3 if late else 1)}
            return losses | ({"pseudo_label": known} if more else {}), {}
        return {"supervised": known} | ({"consistency": 2 * known} if late else {}), {}

    events = Events(tmp_path / "events.jsonl")
    context = Context(make_accelerator("cpu"), events, Cancellation(tmp_path / "cancel"))
    loop.train(
        task_of(net, step),
        Budget(steps=80),
        loop.Optimization(),
        tmp_path / "checkpoint.pt",
        context,
    )
    told = [e["message"] for e in read_events(tmp_path / "events.jsonl") if e["kind"] == "warning"]
    assert len(told) == (grows != "by another term")
    assert all("has doubled" in message for message in told)


@pytest.mark.parametrize(
    "words",
    [
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.",
        "MPS backend out of memory (MPS allocated: 5 GB). Tried to allocate 2 GB.",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
@pytest.mark.parametrize("where", ["to the device", "from the checkpoint"])
def test_memory_that_is_refused_before_the_first_step_ends_with_advice(
    where: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(words)

    checkpoint = tmp_path / "checkpoint.pt"
    net = nn.Linear(1, 1)
    if where == "to the device":
        monkeypatch.setattr(net, "to", refuse)
    else:
        checkpoint.write_bytes(b"whole")
        monkeypatch.setattr(torch, "load", refuse)
    context = Context(make_accelerator("cpu"), Events(None), Cancellation(tmp_path / "cancel"))
    task = task_of(net, lambda batch, progress: ({}, {}), advice="lower the patch.")
    with pytest.raises(OutOfMemoryError, match="not enough memory: lower the patch"):
        loop.train(task, Budget(steps=1), loop.Optimization(), checkpoint, context)


@pytest.mark.parametrize(
    "name, section", [("warm-start", "retraining"), ("finetuning:round 1", "finetuning")]
)
def test_a_loss_that_is_no_number_ends_with_settings_that_can_be_set(
    name: str, section: str, tmp_path: Path
) -> None:
    net = nn.Linear(1, 1)

    def step(batch: int, progress: Progress) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        return {"supervised": net(torch.ones(1, 1)).sum() / (progress.step < 2)}, {}

    context = Context(make_accelerator("cpu"), Events(None), Cancellation(tmp_path / "cancel"))
    task = task_of(net, step, name=name, section=section)
    with pytest.raises(TrainingDivergedError, match=f"loss of {name} is no longer") as told:
        loop.train(task, Budget(steps=9), loop.Optimization(), tmp_path / "checkpoint.pt", context)
    named = re.findall(r"--set ([\w.]+)=([\w.]+)", str(told.value))
    assert [key for key, _ in named] == [f"{section}.learning_rate", "mixed_precision"]
    for key, value in named:
        load_settings("quick", [f"{key}={value.replace('...', '0.001')}"])


def test_a_processor_that_is_asked_for_fp16_computes_all_in_float32(tmp_path: Path) -> None:
    """As a run of a graphics card that is continued without one: it would train in one format and
    predict in the other."""
    accelerator = make_accelerator("cpu", "fp16")
    context = Context(accelerator, Events(None), Cancellation(tmp_path / "cancel"))
    assert accelerator.mixed_precision == "no" and context.autocast_dtype is None


@pytest.mark.parametrize(
    "optimization, expected",
    [
        # (1 - t)^0.9 at t = 0, 0.5, 0.9 of 10 steps
        (loop.Optimization(learning_rate=2.0), {0: 2.0, 5: 2 * 0.5**0.9, 9: 2 * 0.1**0.9}),
        # UA-MT: 6,000 steps, tenfold lower after 2,500 and after 5,000
        (
            loop.Optimization(learning_rate=0.01, schedule="step"),
            {0: 1e-2, 2499: 1e-2, 2500: 1e-3, 4999: 1e-3, 5000: 1e-4, 5999: 1e-4},
        ),
        # a fifth of 10 steps: a third, two thirds, then as without
        (
            loop.Optimization(learning_rate=3.0, warmup=0.2),
            {0: 1.0, 1: 2.0, 2: 3 * 0.8**0.9, 9: 3 * 0.1**0.9},
        ),
    ],
)
def test_the_learning_rate_by_hand(
    optimization: loop.Optimization, expected: dict[int, float]
) -> None:
    total = 6000 if optimization.schedule == "step" else 10
    found = {step: optimization.rate(Progress(step, total)) for step in expected}
    assert found == pytest.approx(expected)


def test_sgd_has_momentum_and_a_gradient_is_no_longer_than_its_limit(tmp_path: Path) -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    weights = []

    def step(batch: int, progress: Progress) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        return {"supervised": 1000 * net(torch.ones(1, 1)).sum()}, {}

    context = Context(make_accelerator("cpu"), Events(None), Cancellation(tmp_path / "cancel"))
    task = task_of(net, step, after_step=lambda progress: weights.append(net.weight.item()))
    optimization = loop.Optimization("sgd", 0.1, weight_decay=0, schedule="step")
    loop.train(task, Budget(steps=2), optimization, tmp_path / "checkpoint.pt", context)
    # The gradient of 1000 is cut to 5; 2 steps are before and after 5/12 of the run.
    assert weights == pytest.approx([-0.1 * 5, -0.1 * 5 - 0.01 * (0.9 * 5 + 5)])


def task_of(net: nn.Module, step: Callable[..., Any], **more: Any) -> loop.Task[int]:
    """Steps of nothing but their own number."""
    given: dict[str, Any] = {
        "name": "t", "section": "retraining", "after_step": lambda progress: None, "advice": "",
    }  # fmt: skip
    return loop.Task(
        module=net,
        draw=lambda generator, progress: progress.step,
        step=step,
        state=net.state_dict,
        load_state=net.load_state_dict,
        **(given | more),
    )
