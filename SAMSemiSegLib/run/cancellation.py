"""Ending a run when the user asks, within seconds, so that it can be resumed.

Three ways to ask: a file named ``cancel`` in the run folder, SIGTERM or Ctrl-C, and (for a process
that Slicer started) the end of its standard input. The working thread notices between two steps
and saves; if one step lasts longer than the grace time, the process ends at once, which is safe
because every file is written whole and the last checkpoint stands.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from SAMSemiSegLib.errors import Cancelled

GRACE_SECONDS = 4.0


class Cancellation:
    """Watches for a request to stop.

    Args:
        cancel_file: its appearance is a request.
        watch_stdin: also take the end of standard input as a request.
        last_words: called before the process ends in the middle of a step.
    """

    def __init__(
        self,
        cancel_file: Path,
        watch_stdin: bool = False,
        last_words: Callable[[], None] = lambda: None,
    ) -> None:
        self._file = cancel_file
        self._requested = threading.Event()
        self._finished = threading.Event()
        self._watch_stdin = watch_stdin
        self._last_words = last_words
        self._handlers: dict[int, Any] = {}

    def start(self) -> None:
        """Begin to watch; an old cancel file is removed first."""
        self._file.unlink(missing_ok=True)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._handlers[number] = signal.signal(number, self._on_signal)
        threading.Thread(target=self._watch, name="cancel-watch", daemon=True).start()
        if self._watch_stdin:
            threading.Thread(target=self._read_stdin, name="stdin-watch", daemon=True).start()

    def stop(self) -> None:
        """The run has ended by itself; a late request does nothing, a signal what it did before."""
        self._finished.set()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        self._file.unlink(missing_ok=True)

    def request(self) -> None:
        """Ask for the end of the run."""
        self._requested.set()

    def check(self) -> None:
        """Raise :class:`Cancelled` if the end was asked for; called between steps."""
        if self._requested.is_set() or self._file.exists():
            self._requested.set()
            raise Cancelled

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.request()

    def _read_stdin(self) -> None:
        # Not sys.stdin, whose lock a thread may not hold when the interpreter ends.
        while os.read(0, 4096):
            pass
        self.request()

    def _watch(self) -> None:
        while not self._finished.is_set():
            if self._file.exists():
                self.request()
            if self._requested.wait(0.25):
                time.sleep(GRACE_SECONDS)
                if not self._finished.is_set():
                    # The step under way is one long call into torch; Python cannot interrupt it.
                    # Not here: words may wait for a pipe that nobody reads.
                    words = threading.Thread(target=self._last_words, daemon=True)
                    words.start()
                    words.join(1.0)
                    os._exit(Cancelled.exit_code)
                return
