"""The training loop: how many steps fit into the minutes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from SAMSemiSegLib.run.cancellation import Cancellation
from SAMSemiSegLib.run.events import Events
from SAMSemiSegLib.run.settings import Budget
from SAMSemiSegLib.training import loop
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.devices import make_accelerator


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

    task = loop.Task(
        name="t",
        module=net,
        draw=lambda generator, progress: progress.step,
        step=step,
        after_step=lambda progress: None,
        state=net.state_dict,
        load_state=net.load_state_dict,
        advice="",
        period=period,
    )
    context = Context(make_accelerator("cpu"), Events(None), Cancellation(tmp_path / "cancel"))
    budget = Budget(minutes=10)
    steps = loop._fix_steps(task, budget, list(net.parameters()), context)
    assert steps == int(600 / (1 + 6 / period))
