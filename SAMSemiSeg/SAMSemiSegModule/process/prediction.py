"""A prediction's expected results: its kind of manifest."""

from __future__ import annotations

import json
import re
from pathlib import Path

SUFFIX = re.compile(r"\.(seg\.nrrd|nii\.gz|nrrd|nii|mha|mhd)$", re.IGNORECASE)
FILE = "expected.json"


def resultOf(image: Path, output: Path) -> Path:
    """Where ``samsemiseg predict`` writes the segmentation of an image."""
    return output / (SUFFIX.sub("", image.name) + ".seg.nrrd")


def expect(job: Path, results: list[Path]) -> None:
    """Note in the job's folder which files it is to make.

    Older files of these names must not be taken for results: their times are noted too.
    """
    job.mkdir(parents=True, exist_ok=True)
    content = {str(path): _time(path) for path in results}
    (job / FILE).write_text(json.dumps(content), encoding="utf-8")


def isComplete(job: Path) -> bool:
    """Whether every expected file is there, and new."""
    try:
        content = json.loads((job / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(content) and all(_time(Path(p)) not in (None, old) for p, old in content.items())


def _time(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
