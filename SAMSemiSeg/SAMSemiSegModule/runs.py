"""The project's runs, as their folders tell of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from SAMSemiSegModule.process.lower import LOWERED
from SAMSemiSegModule.process.runner import hasManifest

# Not among the settings on top of a preset: the command has options of their own for them.
OPTIONS = ("preset", "seed", "device")


def finishedRun(runs: Sequence[Path]) -> Path | None:
    """The run that was finished last, None where none is."""
    finished = [run for run in runs if hasManifest(run)]
    return max(finished, key=lambda run: (run / "manifest.json").stat().st_mtime, default=None)


def stoppedRun(runs: Sequence[Path]) -> Path | None:
    """The latest run that is not complete and on which no process is at work; None: there is none.

    Args:
        runs: the latest first.
    """
    return next((run for run in runs if not hasManifest(run) and not _isAtWork(run)), None)


def startedWith(run: Path) -> tuple[Any, dict[str, str]] | None:
    """The settings that a run was started with, None where they cannot be read.

    Returns:
        All of them, and what has to be set on top of their preset (as ``--set`` takes it) to have
        them again; among it all that a retry with less memory may lower.
    """
    from SAMSemiSegLib.errors import InputError
    from SAMSemiSegLib.run.folder import RunFolder
    from SAMSemiSegLib.run.presets import load_settings, preset_names

    try:
        settings = RunFolder(run).settings()
    except InputError:
        return None
    if settings.preset not in preset_names():  # a file of the command's user
        settings = settings.model_copy(update={"preset": "balanced"})
    own = _flat(settings.model_dump(mode="json"))
    preset = _flat(load_settings(settings.preset).model_dump(mode="json"))
    changed = {key for key, value in own.items() if key not in preset or preset[key] != value}
    # The preset's minutes win over steps unless they are set too.
    changed |= {key.replace(".steps", ".minutes") for key in changed if key.endswith(".steps")}
    kept = [key for key in own if key in (changed | LOWERED) and key not in OPTIONS]
    return settings, {key: _inWords(own[key]) for key in kept}


def readScores(run: Path) -> list[dict[str, Any]]:
    """The mean scores of a run's rows (how it was made, label, dice, hd95), as the report has."""
    try:
        content = json.loads((run / "evaluation" / "scores.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return content.get("summary", []) if isinstance(content, dict) else []


def _isAtWork(run: Path) -> bool:
    from SAMSemiSegLib.run.folder import RunFolder

    return RunFolder(run).is_locked()


def _flat(tree: dict[str, Any], parent: str = "") -> dict[str, Any]:
    """Settings by their full names (``retraining.net.width``); options of a strategy or method, of
    which the library knows no defaults here, are one setting."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict) and name != "options":
            flat.update(_flat(value, f"{parent}{name}."))
        else:
            flat[parent + name] = value
    return flat


def _inWords(value: Any) -> str:
    """A value as ``--set`` takes it: JSON, or else text."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value)
