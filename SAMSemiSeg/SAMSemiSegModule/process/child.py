"""Runs the ``samsemiseg`` command for Slicer; the standard library alone, run as a script.

    python child.py --folder RUN_FOLDER --library LIBRARY_PARENT -- train PROJECT ...

It leaves ``process.json`` in the folder (who is at work, and with which exit code it ended), so
that a Slicer started later finds the process again. When Slicer ends, so does this process, unless
the file ``keep-running`` lies in the folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import threading
import time
from pathlib import Path

# Time for the library to save and stop by itself after the cancel file appears.
GRACE_SECONDS = 6.0


class ProcessRecord:
    """``process.json``, written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "process.json"
        self.content: dict[str, object] = {
            "host": platform.node(),
            "pid": os.getpid(),
            "started": time.time(),
            "exitCode": None,
        }

    def write(self, **changes: object) -> None:
        self.content.update(changes)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.content), encoding="utf-8")
        os.replace(temporary, self.path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--library", required=True)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    record = ProcessRecord(options.folder)
    record.write()
    _recordExitCode(record)
    threading.Thread(target=_watchParent, args=(options.folder,), daemon=True).start()
    sys.path.insert(0, options.library)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    sys.argv = ["samsemiseg", *command]
    code = 1
    try:
        from SAMSemiSegLib.command.app import main as runCommand

        runCommand()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    finally:
        with contextlib.suppress(OSError):
            record.write(exitCode=code)


def _recordExitCode(record: ProcessRecord) -> None:
    """The command ends by ``os._exit``, which runs no ``finally``."""
    leave = os._exit

    def recordAndLeave(code: int) -> None:
        try:
            record.write(exitCode=code)
        finally:  # the folder may be gone
            leave(code)

    os._exit = recordAndLeave  # type: ignore[assignment]


def _watchParent(folder: Path) -> None:
    """Standard input ends when Slicer does, also when it crashes."""
    # Not by sys.stdin: a thread that waits in it makes the interpreter's end fail.
    while os.read(0, 4096):
        pass
    # The folder may be gone, or on a disk that is: that must not keep this process alive.
    with contextlib.suppress(OSError):
        if (folder / "keep-running").exists():
            return
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline:
        # Written again and again: the library removes an old cancel file when it starts.
        with contextlib.suppress(OSError):
            (folder / "cancel").touch()
        time.sleep(0.5)
    with contextlib.suppress(OSError):
        (folder / "cancel").unlink(missing_ok=True)
    if hasattr(os, "killpg"):
        os.killpg(os.getpgid(0), signal.SIGKILL)
    os._exit(5)


if __name__ == "__main__":
    main()
