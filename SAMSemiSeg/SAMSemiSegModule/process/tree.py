"""A process and all it has started.

The process that was started may be a launcher (``PythonSlicer``), whose end leaves the real one
alive: only the whole tree counts.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

# Seconds between a process' making and the time that it wrote down itself. An interpreter on a slow
# drive takes some, and on Linux a process seems to have been made at another time once the clock
# has been set right, which is a matter of seconds too. What differs by more is taken for another
# process: to lose sight of a run does less harm than to end a stranger's.
CLOCK_TOLERANCE = 60.0


@dataclass(frozen=True)
class ProcessTree:
    """The processes below ``pid``, in whose group or session they stay."""

    pid: int

    @classmethod
    def holding(cls, pid: int) -> ProcessTree:
        """The whole tree that a process belongs to: the launcher that started it, if one did."""
        if sys.platform != "win32":
            try:
                session = os.getsid(pid)
            except OSError:
                return cls(pid)
            if session != os.getsid(0):  # never our own
                return cls(session)
        return cls(pid)

    def isAlive(self) -> bool:
        """Whether any process of the tree runs."""
        # Asked often: the look through all processes of the machine comes last.
        return isRunning(self.pid) or bool(self._members())

    def terminate(self) -> None:
        """Ask all to end (SIGTERM; on Windows they end at once)."""
        self._signal(force=False)

    def kill(self) -> None:
        """End all."""
        self._signal(force=True)

    def _members(self) -> list:
        import psutil

        found = {}
        try:
            top = psutil.Process(self.pid)
            found = {p.pid: p for p in [top, *top.children(recursive=True)]}
        except psutil.Error:
            pass
        if sys.platform != "win32":
            # A launcher that has ended leaves orphans behind, but in its session.
            for process in psutil.process_iter():
                try:
                    if os.getsid(process.pid) == self.pid:
                        found[process.pid] = process
                except (OSError, psutil.Error):
                    continue
        return [p for p in found.values() if _isRunning(p)]

    def _signal(self, force: bool) -> None:
        import psutil

        members = self._members()
        if sys.platform != "win32":
            try:
                if os.getpgid(self.pid) == self.pid:  # never our own group
                    os.killpg(self.pid, signal.SIGKILL if force else signal.SIGTERM)
            except (ProcessLookupError, PermissionError):
                pass
        for process in members:
            try:
                process.kill() if force else process.terminate()
            except psutil.Error:
                continue


def _isRunning(process) -> bool:
    import psutil

    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def isRunning(pid: int) -> bool:
    """Whether a process of this id runs."""
    import psutil

    try:
        return _isRunning(psutil.Process(pid))
    except psutil.Error:
        return False


def isChildOf(folder: Path, pid: int, started: float) -> bool:
    """Whether the process of this id is the one that wrote down this start time in this folder: ids
    come again, and a folder that is copied while a run is at work holds the record of another."""
    import psutil

    try:
        process = psutil.Process(pid)
        return (
            _isRunning(process)
            and abs(process.create_time() - started) <= CLOCK_TOLERANCE
            and _worksIn(folder, process.cmdline())
        )
    except psutil.Error:
        return False


def _worksIn(folder: Path, words: list[str]) -> bool:
    """Whether this is the command line of ``child.py`` for the folder."""
    try:
        return os.path.samefile(words[words.index("--folder") + 1], folder)
    except (ValueError, IndexError, OSError):
        return False
