"""The project's runs, as their folders tell of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from SAMSemiSegModule.process.runner import hasManifest


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
