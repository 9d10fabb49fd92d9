"""The log of a run: the course of its stages, and what went wrong."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

log = logging.getLogger("SAMSemiSegLib")


def log_event(event: dict[str, Any]) -> None:
    """The course of the run in the log: stages and sentences, not the single steps."""
    kind, stage, message = event["kind"], event["stage"], event.get("message", "")
    if kind == "stage":
        log.info("%s: step %d of %d", stage, event["step"], event["total"])
    elif kind == "done":
        log.info("%s: done in %.1f s", stage, event["values"]["seconds"])
    elif kind == "warning":
        log.warning("%s", message)
    elif kind in ("start", "end", "message"):
        log.info("%s", message or "complete")


class _LogFile(logging.FileHandler):
    """A log that cannot be written (a full disk) is no reason to say anything else."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def log_to(path: Path) -> logging.Handler:
    """Append what is logged to a file, until the handler is removed."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    return handler
