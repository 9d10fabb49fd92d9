"""Stand-in for Slicer's Sample Data module: remembers what is registered."""

from __future__ import annotations

import sys
import types
from typing import Any


class SampleDataLogic:
    sources: list[dict[str, Any]] = []  # noqa: RUF012 - kept by the class, as in Slicer

    @classmethod
    def registerCustomSampleDataCategory(cls, category: str, title: str | None = None) -> None:
        pass

    @classmethod
    def registerCustomSampleDataSource(cls, **source: Any) -> None:
        cls.sources.append(source)


def installSampleData() -> None:
    """Put a module named ``SampleData`` into ``sys.modules``."""
    module = types.ModuleType("SampleData", __doc__)
    module.SampleDataLogic = SampleDataLogic
    sys.modules["SampleData"] = module
