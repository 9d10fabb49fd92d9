"""Following files that another process writes."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

# Read at most this much at once: a flood of output must not hold up Slicer.
MOST_BYTES = 64 * 1024


class TextTail:
    """New text of a growing file, decoded as UTF-8; what is not UTF-8 is replaced."""

    def __init__(self, path: Path, position: int = 0) -> None:
        self._path = path
        self._position = position
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self) -> str:
        """The text since the last call, at most ``MOST_BYTES`` of it."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                data = file.read(MOST_BYTES)
        except OSError:
            return ""
        self._position += len(data)
        return self._decoder.decode(data)

    def skipToLast(self) -> None:
        """Pass over what is more than one ``read`` away from the end."""
        try:
            self._position = max(self._position, self._path.stat().st_size - MOST_BYTES)
        except OSError:
            return


class EventTail:
    """New events of a run's ``events.jsonl``; lines that are no events are passed over."""

    def __init__(self, path: Path) -> None:
        self._text = TextTail(path)
        self._rest = ""

    def read(self) -> list[dict[str, Any]]:
        """Events since the last call, oldest first."""
        *lines, self._rest = (self._rest + self._text.read()).split("\n")
        events = []
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "kind" in event:
                events.append(event)
        return events
