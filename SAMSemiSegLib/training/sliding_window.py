"""MONAI's sliding window, imported without what only MONAI's other networks need.

``import monai`` imports all of its networks. One of them imports ``transformers``, where that is
installed (peft needs it), and that a third of torch: seconds of each start, for nothing. Other code
that imports ``transformers`` later gets it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _missing(package: str) -> Iterator[None]:
    """Let an optional import of ``package`` fail within the block, as if it was not installed."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


with _missing("transformers"):
    from monai.inferers import SlidingWindowInferer

__all__ = ["SlidingWindowInferer"]
