"""What a report is made of: whatever a run folder holds so far."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.evaluation.scores import Scores
from SAMSemiSegLib.run.events import is_loss, read_events


@dataclass
class Curve:
    """Losses of one stage: the total and its terms, by name, as (step, value) pairs."""

    total: int = 0
    series: dict[str, dict[int, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgment:
    """What the selection of SFR+ made of one volume.

    Attributes:
        confident: whether it was selected.
        confidence: of the re-trained net, 0..1.
        reason: for or against, in a sentence.
        implausible: whether a guard refused it, whatever the confidence.
    """

    confident: bool
    confidence: float
    reason: str
    implausible: bool


@dataclass
class Material:
    """Contents of a run folder; what is missing is empty.

    Attributes:
        name: of the run folder.
        settings, versions: of the run, as written.
        seconds: time spent in each stage, in the order in which they began.
        curves: losses by stage.
        notes: (kind, sentence) of warnings and messages.
        scores: of the cases that no stage has trained on, or None.
        pseudo_scores: score by case id.
        pictures: PNG by case id.
        selections: judgment by case id, by the round's name.
        crops: judgments on the last crops, where the selection was made crop by crop.
        counts: numbers of labeled and unlabeled cases, where the model's card is there.
        complete: whether the run has ended well.
    """

    name: str
    settings: dict[str, Any]
    versions: dict[str, Any]
    seconds: dict[str, float]
    curves: dict[str, Curve]
    notes: list[tuple[str, str]]
    scores: Scores | None
    pseudo_scores: dict[str, float]
    pictures: dict[str, Path]
    selections: dict[str, dict[str, Judgment]]
    crops: list[Judgment]
    counts: dict[str, int]
    complete: bool


def gather(folder: Path) -> Material:
    """Read a run folder, also one of a run under way. Files that cannot be read count as missing,
    since a report on the rest is worth more than none."""
    seconds, curves, notes = _read_events(folder / "events.jsonl")
    scores = None
    if (folder / "evaluation" / "scores.json").exists():
        try:
            scores = Scores.from_json(folder / "evaluation" / "scores.json")
        except InputError as error:
            notes.append(("warning", str(error)))
    card = _object(folder / "model" / "model_card.json")
    data = card.get("data")
    counts = {
        name: number
        for name, number in (data if isinstance(data, dict) else {}).items()
        if isinstance(number, int)
    }
    pseudo_scores = {
        case: float(score)
        for case, score in _object(folder / "pseudolabels" / "scores.json").items()
        if isinstance(score, (int, float))
    }
    return Material(
        name=folder.resolve().name,
        settings=_object(folder / "config.json"),
        versions=_object(folder / "versions.json"),
        seconds=seconds,
        curves=curves,
        notes=notes,
        scores=scores if scores is not None and scores.rows else None,
        pseudo_scores=pseudo_scores,
        # A name that begins with a dot was being written when a run was killed.
        pictures={p.stem: p for p in sorted((folder / "pseudolabels").glob("[!.]*.png"))},
        selections=_selections(folder),
        crops=_crops(folder / "retraining" / "crops.json"),
        counts=counts,
        complete=_ended(folder / "events.jsonl"),
    )


def _selections(folder: Path) -> dict[str, dict[str, Judgment]]:
    """What each round's selection has decided; entries that cannot be read are left out."""
    found: dict[str, dict[str, Judgment]] = {}
    for path in sorted(folder.glob("round-*/selection.json"), key=_number):
        entries = ((case, _judgment(entry)) for case, entry in _object(path).items())
        judgments = {case: judgment for case, judgment in entries if judgment is not None}
        if judgments:
            found[path.parent.name.replace("-", " ")] = judgments
    return found


def _crops(path: Path) -> list[Judgment]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    judgments = map(_judgment, entries if isinstance(entries, list) else [])
    return [judgment for judgment in judgments if judgment is not None]


def _judgment(entry: Any) -> Judgment | None:
    """None where it cannot be read."""
    try:
        return Judgment(
            bool(entry["confident"]),
            float(entry["confidence"]),
            str(entry["reason"]),
            bool(entry.get("implausible", False)),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _number(selection: Path) -> int:
    digits = selection.parent.name.rpartition("-")[2]
    return int(digits) if digits.isdigit() else 0


def _ended(events: Path) -> bool:
    """Whether the last thing the run told is its end. The manifest cannot be asked: it is written
    after the report."""
    last = deque(read_events(events), maxlen=1)
    return bool(last) and last[0].get("kind") == "end"


def _read_events(
    path: Path,
) -> tuple[dict[str, float], dict[str, Curve], list[tuple[str, str]]]:
    seconds: dict[str, float] = {}
    curves: dict[str, Curve] = {}
    notes: list[tuple[str, str]] = []
    last: float | None = None
    for event in read_events(path):
        stage, kind, time = event.get("stage"), event.get("kind"), event.get("time")
        if not isinstance(stage, str) or not isinstance(time, (int, float)):
            continue
        # Times between two events of one stage add up; a pause before a resumed run begins
        # with a new "stage" event and is left out.
        if kind == "stage" or stage not in seconds:
            seconds.setdefault(stage, 0.0)
        elif last is not None:
            seconds[stage] += max(0.0, time - last)
        last = time
        if kind in ("warning", "message") and event.get("message"):
            note = (str(kind), str(event["message"]))
            if note not in notes:
                notes.append(note)
        if kind == "progress":
            _add_to_curve(curves, stage, event)
    seconds.pop("", None)
    return seconds, {s: c for s, c in curves.items() if c.series}, notes


def _add_to_curve(curves: dict[str, Curve], stage: str, event: dict[str, Any]) -> None:
    curve = curves.setdefault(stage, Curve())
    step, total, values = event.get("step"), event.get("total"), event.get("values")
    if not isinstance(step, int) or not isinstance(values, dict):
        return
    if isinstance(total, int):
        curve.total = max(curve.total, total)
    for name, value in values.items():
        if is_loss(name) and isinstance(value, (int, float)):
            # Steps that a resumed run did again replace the former ones.
            curve.series.setdefault(name, {})[step] = float(value)


def _object(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none to be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
