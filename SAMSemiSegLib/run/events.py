"""The event stream of a run: one JSON object a line in ``events.jsonl``.

It is all that the command's progress bars, the report and the Slicer panel know of a running
process. Keys: ``time`` (seconds since 1970), ``kind``, ``stage``, and by kind ``step``, ``total``,
``seconds_left``, ``values`` (losses, scores by name), ``picture`` (path inside the run folder),
``message``.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

Kind = Literal[
    "start",
    "stage",
    "progress",
    "done",
    "scores",
    "picture",
    "warning",
    "message",
    "error",
    "end",
    "stopped",
]
Listener = Callable[[dict[str, Any]], None]

NO_LOSS = ("weight", "share", "agreement", "confidence")
"""Last words of the names of logged values that are no losses."""


class Events:
    """Writes the stream and tells listeners.

    Args:
        path: the file to append to; None: listeners only.
        listeners: called with each event as a dictionary.
    """

    def __init__(self, path: Path | None, listeners: tuple[Listener, ...] = ()) -> None:
        self._path = path
        self._listeners = listeners
        self._stage = ""
        self._started = 0.0
        self._first_step = 0

    def emit(self, kind: Kind, **fields: Any) -> None:
        """Append one event; numbers that JSON cannot hold become null."""
        event = {"time": round(time.time(), 3), "kind": kind, "stage": self._stage, **fields}
        if isinstance(event.get("values"), dict):
            event["values"] = {k: _finite(v) for k, v in event["values"].items()}
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event, ensure_ascii=False) + "\n")
        for listener in self._listeners:
            listener(event)

    def stage(self, name: str, total: int, first_step: int = 0) -> None:
        """A stage of ``total`` steps begins (or goes on, from ``first_step``)."""
        self._stage = name
        self._started = time.monotonic()
        self._first_step = first_step
        self.emit("stage", step=first_step, total=total)

    def progress(self, step: int, total: int, **values: float) -> None:
        """``step`` of ``total`` steps are done."""
        done = step - self._first_step
        elapsed = time.monotonic() - self._started
        left = elapsed / done * (total - step) if done > 0 else None
        seconds_left = None if left is None else round(left, 1)
        self.emit("progress", step=step, total=total, seconds_left=seconds_left, values=values)

    def done(self) -> None:
        """The stage is finished."""
        self.emit("done", values={"seconds": round(time.monotonic() - self._started, 1)})

    def message(self, text: str) -> None:
        """Something the user should read, no cause for worry."""
        self.emit("message", message=text)

    def warning(self, text: str) -> None:
        """Something the user should know before trusting the result."""
        self.emit("warning", message=text)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a file, oldest first; a last line cut off by a kill is passed over."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(event, dict):
                yield event


def _finite(value: float) -> float | None:
    number = float(value)
    return round(number, 6) if math.isfinite(number) else None


def is_loss(name: str) -> bool:
    """Whether a logged value is a loss term, by its name; others would crowd a plot."""
    return name.rpartition("_")[2] not in NO_LOSS
