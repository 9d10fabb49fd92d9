"""How long the panel keeps its user waiting, apart from how long the system keeps the panel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Linux counts, for each thread, the nanoseconds in which it was ready to run and had no core.
SCHEDULER = "/proc/thread-self/schedstat"


@dataclass(frozen=True)
class Pause:
    """One stretch of time in which the event loop did not turn.

    Attributes:
        what: what the user did, or what was waited for.
        wall: seconds by the clock.
        busy: seconds of these that are the panel's own: computing, reading, waiting for a lock,
            for the disk or for another process. What is left out is the time in which the thread
            could have gone on but the system had given its core to another process.
    """

    what: str
    wall: float
    busy: float

    def __str__(self) -> str:
        return f"{self.what}: {1000 * self.busy:.0f} ms, {1000 * self.wall:.0f} ms by the clock"


class Pauses:
    """The pauses of the thread that runs the event loop.

    Where the system does not tell how long a thread was kept off its core (Windows, macOS), a
    pause is all its own: ``busy`` is then ``wall``, never less than it should be.
    """

    def __init__(self) -> None:
        self.all: list[Pause] = []

    @contextmanager
    def measured(self, what: str) -> Iterator[None]:
        """Measure what happens inside ``with``, between two turns of the event loop."""
        began, kept = time.perf_counter(), _keptWaiting()
        yield
        wall = time.perf_counter() - began
        self.all.append(Pause(what, wall, max(wall - (_keptWaiting() - kept), 0.0)))

    @property
    def longest(self) -> Pause:
        """The pause in which the panel was busy for longest."""
        return max(self.all, key=lambda pause: pause.busy, default=Pause("nothing", 0.0, 0.0))

    def report(self, count: int = 3) -> str:
        """The longest pauses in words, the longest first."""
        found = sorted(self.all, key=lambda pause: -pause.busy)[:count]
        return f"of {len(self.all)} pauses the longest are " + "; ".join(map(str, found))


def _keptWaiting() -> float:
    """Seconds that this thread was ready to run without a core, so far; 0 where nobody counts."""
    try:
        with open(SCHEDULER, encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
