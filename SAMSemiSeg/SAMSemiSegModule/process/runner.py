"""Starting, following and ending one child process."""

from __future__ import annotations

import contextlib
import json
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from SAMSemiSegModule.process.command import ChildCommand, ownGroup
from SAMSemiSegModule.process.outcome import Outcome, outcomeOf
from SAMSemiSegModule.process.tail import EventTail, TextTail
from SAMSemiSegModule.process.tree import ProcessTree, isChildOf

# The cancel ladder, in seconds after the click: the library has saved and stopped long before.
TERMINATE_AFTER = 3.0
KILL_AFTER = 4.4
LONGEST_LAST_LINE = 500
# When all is over, what is left of the events is read at one go, but never for longer than this.
LAST_READING_SECONDS = 0.05


@dataclass
class Update:
    """What is new since the last poll."""

    text: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    outcome: Outcome | None = None


class Runner(Protocol):
    """One child process at a time, and its folder."""

    def isRunning(self) -> bool: ...

    def start(self, arguments: Sequence[str], folder: Path) -> None: ...

    def attach(self, folder: Path) -> bool: ...

    def poll(self) -> Update: ...

    def cancel(self) -> None: ...

    def stopNow(self) -> None: ...

    def letGoOn(self) -> None: ...


def hasManifest(folder: Path) -> bool:
    """Whether the run in the folder is complete: its manifest is written last."""
    return (folder / "manifest.json").is_file()


class ProcessRunner:
    """The runner of real processes.

    Args:
        makeCommand: how the library is started; asked at each start, when it is installed.
        isComplete: whether a folder holds the whole result.
    """

    def __init__(
        self,
        makeCommand: Callable[[], ChildCommand],
        isComplete: Callable[[Path], bool] = hasManifest,
    ) -> None:
        self.folder: Path | None = None
        self._makeCommand = makeCommand
        self._isComplete = isComplete
        self._process: subprocess.Popen[bytes] | None = None
        self._tree: ProcessTree | None = None
        self._text: TextTail | None = None
        self._events: EventTail | None = None
        self._lastLine = ""
        self._cancelledAt: float | None = None

    def isRunning(self) -> bool:
        """Whether a process is at work and its outcome is still to come."""
        return self._tree is not None

    def start(self, arguments: Sequence[str], folder: Path) -> None:
        """Start the library's command with these arguments; returns at once.

        Args:
            arguments: of ``samsemiseg``.
            folder: of the run, where process, log and events are found again.

        Raises:
            RuntimeError: a process is at work already.
            OSError: the folder or the interpreter cannot be used.
        """
        if self.isRunning():
            raise RuntimeError("a process is at work already")
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("cancel", "keep-running", "process.json"):
            (folder / name).unlink(missing_ok=True)
        command = self._makeCommand()
        # Output goes to a file, not to a pipe: a pipe that nobody reads would stop the child, and
        # a child that outlives Slicer must still have somewhere to write to.
        with (folder / "console.log").open("ab") as log:
            end = log.tell()
            self._process = subprocess.Popen(
                command.line(folder, arguments),
                env=command.environment or None,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                **ownGroup(),
            )
        self._follow(folder, ProcessTree(self._process.pid), textFrom=end)

    def attach(self, folder: Path) -> bool:
        """Follow a process that an earlier Slicer left at work in this folder.

        Returns:
            Whether there is one.
        """
        record = readRecord(folder)
        if self.isRunning() or record.get("exitCode") is not None:
            return False
        pid, started = record.get("pid"), record.get("started")
        if not isinstance(pid, int) or not isinstance(started, (int, float)):
            return False
        # The folder may lie on a drive that other machines use too, or have come from one. Records
        # of before name no machine.
        if record.get("host", platform.node()) != platform.node():
            return False
        if not isChildOf(folder, pid, started):
            return False
        self._process = None
        self._follow(folder, ProcessTree.holding(pid))
        return True

    def poll(self) -> Update:
        """New output and events, and the outcome once all is over. Never waits."""
        if self.folder is None or self._text is None or self._events is None:
            return Update()
        isOver = self._tree is not None and self._hasEnded()
        if isOver:
            self._text.skipToLast()  # nobody reads megabytes; the file keeps them
        update = Update(self._text.read(), self._events.read())
        deadline = time.monotonic() + LAST_READING_SECONDS
        while isOver and time.monotonic() < deadline and (more := self._events.read()):
            update.events += more
        self._rememberLastLine(update.text)
        if self._tree is not None:
            self._climbCancelLadder()
        # The outcome waits until all output has been read.
        if isOver and not update.text and not update.events:
            update.outcome = self._finish()
        return update

    def cancel(self) -> None:
        """Ask the process to stop; ``poll`` sees to it that it does, within five seconds."""
        if self.folder is not None and self._tree is not None and self._cancelledAt is None:
            # First of all: a folder that has gone keeps nobody from the later rungs.
            self._cancelledAt = time.monotonic()
            self._leaveWord("cancel")

    def stopNow(self) -> None:
        """Stop and wait for it: for the end of Slicer."""
        self.cancel()
        deadline = time.monotonic() + KILL_AFTER + 3.0
        while self._tree is not None and time.monotonic() < deadline:
            if self._hasEnded():
                self._finish()
            else:
                self._climbCancelLadder()
                time.sleep(0.05)

    def letGoOn(self) -> None:
        """Let the process outlive Slicer, and forget it; ``attach`` finds it again."""
        if self.folder is not None and self._tree is not None:
            self._leaveWord("keep-running")
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()
        self._forget()

    def _follow(self, folder: Path, tree: ProcessTree, textFrom: int = 0) -> None:
        self.folder = folder
        self._tree = tree
        self._text = TextTail(folder / "console.log", textFrom)
        self._events = EventTail(folder / "events.jsonl")
        self._lastLine = ""
        self._cancelledAt = None

    def _hasEnded(self) -> bool:
        assert self._tree is not None
        if self._process is not None and self._process.poll() is None:
            return False
        return not self._tree.isAlive()

    def _climbCancelLadder(self) -> None:
        if self._cancelledAt is None or self._tree is None or self.folder is None:
            return
        waited = time.monotonic() - self._cancelledAt
        if waited > KILL_AFTER:
            self._tree.kill()
        elif waited > TERMINATE_AFTER:
            self._tree.terminate()
        elif not (self.folder / "cancel").exists() and not self._hasEnded():
            self._leaveWord("cancel")  # the library removes an old one when it starts

    def _leaveWord(self, name: str) -> None:
        """A file for the process to see; the folder may have been moved meanwhile."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                (self.folder / name).touch()

    def _finish(self) -> Outcome:
        assert self.folder is not None
        code = readRecord(self.folder).get("exitCode")
        if not isinstance(code, int):
            code = self._process.returncode if self._process is not None else None
        wasCancelled = self._cancelledAt is not None
        outcome = outcomeOf(code, self._isComplete(self.folder), self._lastLine)
        if wasCancelled and code != 0:
            outcome = outcomeOf(5, False)
        with contextlib.suppress(OSError):
            (self.folder / "cancel").unlink(missing_ok=True)
        self._forget()
        return outcome

    def _forget(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None
        self._tree = None
        self._cancelledAt = None

    def _rememberLastLine(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if lines:
            self._lastLine = lines[-1][:LONGEST_LAST_LINE]


def readRecord(folder: Path) -> dict[str, Any]:
    """``process.json`` of a folder, empty where there is none."""
    try:
        record = json.loads((folder / "process.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
