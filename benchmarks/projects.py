"""Projects that benchmarks make once and find again."""

from __future__ import annotations

import shutil
from pathlib import Path

from SAMSemiSegLib.project.project import Project


def is_whole(folder: Path) -> bool:
    """Whether the project is there with its cases; one whose import was interrupted has none, and
    goes."""
    if not (folder / "project.json").exists():
        return False
    if Project.load(folder).cases:
        return True
    shutil.rmtree(folder)
    return False
