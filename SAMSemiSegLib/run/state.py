"""What can be said of a run from its folder alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.evaluation.scores import Scores
from SAMSemiSegLib.run.events import read_events
from SAMSemiSegLib.run.folder import RunFolder


@dataclass(frozen=True)
class RunState:
    """One run: ``complete``, ``running`` in some process, or ``stopped`` (can be resumed).

    Attributes:
        stage: the last one that was begun.
        preset, strategy, method, pseudo_label_mode, seed: of its settings; empty where they are
            damaged, which only --resume must tell.
        dice: mean of the last row that was scored, over cases and labels; None: none was.
    """

    name: str
    state: Literal["complete", "running", "stopped"]
    stage: str
    preset: str = ""
    strategy: str = ""
    method: str = ""
    pseudo_label_mode: str = ""
    seed: int | str = ""
    dice: float | None = None


def run_state(folder: RunFolder) -> RunState:
    """The state of one run."""
    stage = ""
    for event in read_events(folder.events):
        stage = event.get("stage") or stage
    state: Literal["complete", "running", "stopped"] = (
        "running" if folder.is_locked() else "complete" if folder.complete else "stopped"
    )
    return RunState(folder.path.name, state, stage, **_told(folder), dice=_dice(folder))


def _told(folder: RunFolder) -> dict[str, Any]:
    try:
        settings = folder.settings()
    except InputError:
        return {}
    return {
        "preset": settings.preset,
        "strategy": settings.finetuning.strategy,
        "method": settings.retraining.method,
        "pseudo_label_mode": settings.retraining.pseudo_label_mode,
        "seed": settings.seed,
    }


def _dice(folder: RunFolder) -> float | None:
    try:
        scores = Scores.from_json(folder / "evaluation" / "scores.json")
    except InputError:
        return None
    names = scores.row_names
    return scores.overall(names[-1]).figures["dice"].mean if names else None


def run_states(project: Path) -> list[RunState]:
    """The states of all runs of a project folder, by name; run-2 before run-10."""

    def in_numbers(path: Path) -> list[tuple[int, str]]:
        return [(int(p), "") if p.isdecimal() else (0, p) for p in re.split(r"(\d+)", path.name)]

    folders = [path.parent for path in (project / "runs").glob("*/config.json")]
    return [run_state(RunFolder(path)) for path in sorted(folders, key=in_numbers)]
