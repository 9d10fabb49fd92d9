"""A process that asks for more memory than there is ends with a sentence, not silently.

On Linux a program may reserve more than the machine has; when it then uses it, the system kills it
without a word. Held to what is free, the program is refused the reservation instead, and can say
which setting to lower.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from SAMSemiSegLib.errors import OutOfMemoryError

SPARE = 256 * 2**20
"""Bytes left for others: files read, programs started."""
CONTAINER = Path("/sys/fs/cgroup")

ALLOCATION_FAILED = (
    "not enough memory",
    "can't allocate memory",
    "bad_alloc",
    "out of memory",
    "STATUS_ALLOC_FAILED",
)
"""How torch says that memory was refused: the machine's, Apple's, cuDNN's and cuBLAS's."""

WHOLE_VOLUMES = "lower preprocessing.scale; whole volumes are held at once."
"""What to do where memory does not suffice beyond training."""

_before: list[int] = []
"""The limit that the process had, while it is held."""


def hold_to_free_memory() -> int | None:
    """Limit this process (not the machine's graphics cards) to the memory that is free now, until
    :func:`let_go`; a second call limits it anew.

    Returns:
        Bytes that it may still take, or None where the system knows no such limit (not Linux).
    """
    if not sys.platform.startswith("linux"):
        return None
    import resource

    let_go()
    free = max(0, free_memory() - SPARE)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _in_use() + free
    bounds = [bound for bound in (soft, hard, limit) if bound != resource.RLIM_INFINITY]
    _before.append(soft)
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    return min(bounds) - _in_use()


def let_go() -> None:
    """Take back the limit of :func:`hold_to_free_memory`: a notebook goes on after a run."""
    if not _before:
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_before.pop(), hard))


def free_memory() -> int:
    """Bytes that are free on this machine, or in this container where it has less."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        most = (CONTAINER / "memory.max").read_text(encoding="ascii").strip()
        used = int((CONTAINER / "memory.current").read_text(encoding="ascii"))
        parts = dict(
            line.split()
            for line in (CONTAINER / "memory.stat").read_text(encoding="ascii").splitlines()
        )
    except (OSError, ValueError):
        return free
    # Files that were read count as used, but are given up for whoever asks.
    kept = sum(int(parts.get(name, 0)) for name in ("active_file", "inactive_file"))
    return free if most == "max" else min(free, max(0, int(most) - used + kept))


def _in_use() -> int:
    """Bytes of this process that the limit counts."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def memory_sentence(advice: Callable[[], str] | str) -> Iterator[None]:
    """Turn an out-of-memory failure into a sentence with advice on which setting to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        text = advice if isinstance(advice, str) else advice()
        raise OutOfMemoryError(f"There is not enough memory: {text}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this says that memory was refused."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(said in str(error) for said in ALLOCATION_FAILED)
    )
