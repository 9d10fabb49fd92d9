"""Measurements: each a function that gives rows of a table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

Row = dict[str, float | str]
ROWS: dict[str, Callable[[str], list[Row]]] = {}


def row(function: Callable[[str], list[Row]]) -> Callable[[str], list[Row]]:
    """Register a measurement; its name is the function's."""
    ROWS[function.__name__] = function
    return function


def peak_gb(device: str) -> float:
    """Most memory this process has held, on the device or (cpu) in main memory."""
    if device == "cuda":
        import torch

        return round(torch.cuda.max_memory_allocated() / 2**30, 2)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def timed(function: Callable[[], object], device: str, times: int = 3) -> float:
    """Median seconds of a call, after one that is not counted."""
    import torch

    seconds = []
    for _ in range(times + 1):
        began = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return round(statistics.median(seconds[1:]), 3)
