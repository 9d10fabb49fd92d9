"""Locks of the operating system: they vanish with their process, so that a kill leaves none."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from SAMSemiSegLib.errors import InputError

HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
"""How the systems say that another process holds a lock."""

PATIENCE = 10.0
"""Seconds to wait for another process that changes a file."""


def lock(file: IO[str], shared: bool = False) -> None:
    """Lock an open file until it is closed; ``shared`` only asks whether another holds it.

    Raises:
        OSError: another does (``HELD``), or the drive knows no locks.
    """
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait for a lock beside ``path``, and hold it for the block; where a drive knows no locks, or
    nothing can be written, the block goes on without.

    Raises:
        InputError: another process does not let go of it.
    """
    try:
        file = path.with_name(path.name + ".lock").open("a+", encoding="utf-8")
    except OSError:  # what is written next tells why
        yield
        return
    with file:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                lock(file)
                break
            except OSError as error:
                if error.errno not in HELD:
                    break
                if time.monotonic() > end:
                    raise InputError(
                        f"Another process is changing '{path}' and does not end; try again."
                    ) from error
            time.sleep(0.02)
        yield
