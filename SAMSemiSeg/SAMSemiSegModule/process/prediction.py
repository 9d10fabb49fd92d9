"""A prediction: its expected results, its kind of manifest, and how it ended, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from SAMSemiSegModule.process.outcome import End, Outcome

FILE = "expected.json"
# How the library's answer begins; sentences about single volumes stand before it.
ANSWER = '{\n  "results"'
MOST_TOLD = 3


def resultOf(image: Path, output: Path) -> Path:
    """Where ``samsemiseg predict`` writes the segmentation of an image."""
    from SAMSemiSegLib.volumes.formats import stem_of

    return output / (stem_of(image) + ".seg.nrrd")


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


def messageOf(outcome: Outcome, job: Path) -> str:
    """What happened and what to do; names the volumes that could not be segmented, and why."""
    if outcome.end is End.SUCCEEDED:
        return _("Finished.")
    results = _answer(job / "console.log")
    failures = [str(result["error"]) for result in results if "error" in result]
    if failures:
        done = len(results) - len(failures)
        words = _("{done} of {all} volumes are segmented.").format(done=done, all=len(results))
        told = [words if done else _("Nothing was segmented."), *failures[:MOST_TOLD]]
        if len(failures) > MOST_TOLD:
            told.append(_("And {count} more.").format(count=len(failures) - MOST_TOLD))
        return " ".join(told)
    sentence = {
        End.CANCELLED: _("Stopped."),
        End.USER_ERROR: _("Nothing was segmented."),
        End.OUT_OF_MEMORY: _(
            "There was not enough memory. Close other programs, then apply the model again."
        ),
        End.DISK_FULL: _("The disk is full. Free some space, then apply the model again."),
        End.INCOMPLETE: _("It ended without a complete result. Apply the model again."),
        End.KILLED: _(
            "It was ended from outside, perhaps because the machine ran out of memory. Close other "
            "programs, then apply the model again."
        ),
    }.get(outcome.end, _("It ended by an error of the program."))
    return f"{sentence} {outcome.detail}".strip()


def _answer(log: Path) -> list[dict[str, Any]]:
    """What ``samsemiseg predict --json`` says of each image; empty where it says nothing."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
        content, _end = json.JSONDecoder().raw_decode(text, text.index(ANSWER))
    except (OSError, ValueError):
        return []
    return list(content["results"])


def _time(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
