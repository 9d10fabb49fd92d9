"""SAM's own network classes, imported with or without a working torchvision.

``import segment_anything`` also imports its predictor, which needs torchvision; the networks need
torch alone. Where torchvision is missing, or does not fit the installed torch, an empty package
module with the real package's path takes the name ``segment_anything``, so that its ``modeling``
and ``build_sam`` import without running the package's ``__init__``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

from SAMSemiSegLib.errors import InputError


def import_segment_anything(submodule: str = "modeling") -> ModuleType:
    """The module ``segment_anything.<submodule>``.

    Raises:
        InputError: the package is not installed.
    """
    name = f"segment_anything.{submodule}"
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError):
        # RuntimeError: a torchvision built for another torch fails so while registering operators.
        pass
    spec = importlib.util.find_spec("segment_anything")
    if spec is None or spec.submodule_search_locations is None:
        raise InputError(
            "The package 'segment-anything' is not installed; run: pip install segment-anything."
        )
    package = ModuleType("segment_anything")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules["segment_anything"] = package
    return importlib.import_module(name)
