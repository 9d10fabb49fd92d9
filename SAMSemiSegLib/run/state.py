"""What can be said of a run from its folder alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from SAMSemiSegLib.run.events import read_events
from SAMSemiSegLib.run.folder import RunFolder


@dataclass(frozen=True)
class RunState:
    """One run: ``complete``, ``running`` in some process, or ``stopped`` (can be resumed)."""

    name: str
    state: Literal["complete", "running", "stopped"]
    stage: str
    preset: str


def run_state(folder: RunFolder) -> RunState:
    """The state of one run."""
    stage = ""
    for event in read_events(folder.events):
        stage = event.get("stage") or stage
    preset = _preset(folder)
    if folder.is_locked():
        return RunState(folder.path.name, "running", stage, preset)
    state: Literal["complete", "stopped"] = "complete" if folder.complete else "stopped"
    return RunState(folder.path.name, state, stage, preset)


def _preset(folder: RunFolder) -> str:
    """Of the run's settings; empty where they are damaged, which only --resume must tell."""
    try:
        settings = json.loads(folder.config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(settings.get("preset", "")) if isinstance(settings, dict) else ""


def run_states(project: Path) -> list[RunState]:
    """The states of all runs of a project folder, by name."""
    configs = sorted((project / "runs").glob("*/config.json"))
    return [run_state(RunFolder(path.parent)) for path in configs]
