"""Network classes out of a package whose own ``__init__`` asks for more than they need.

``import segment_anything`` also imports its predictor, which needs torchvision, and ``import sam2``
starts Hydra; the networks need torch alone. Where a package does not import as a whole, an empty
module with its path takes its name, so that its submodules import without its ``__init__``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

from SAMSemiSegLib.errors import InputError


def import_networks(package: str, submodule: str, install: str) -> ModuleType:
    """The module ``<package>.<submodule>``, with or without what else the package imports.

    Args:
        package: name in Python.
        submodule: dotted name within the package.
        install: command by which a user gets the package, for the error.

    Raises:
        InputError: the package, or one that the submodule itself imports, is not installed.
    """
    name = f"{package}.{submodule}"
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        # RuntimeError: a torchvision built for another torch fails so while registering operators.
        reason = str(error)
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise InputError(f"The package '{package}' is not installed; run: {install}.")
    if package not in sys.modules:  # its own ``__init__`` failed
        hollow = ModuleType(package)
        hollow.__path__ = list(spec.submodule_search_locations)
        hollow.__spec__ = spec
        sys.modules[package] = hollow
        try:
            return importlib.import_module(name)
        except (ImportError, RuntimeError) as error:
            del sys.modules[package]
            reason = str(error)
    raise InputError(f"The package '{package}' cannot be used ({reason}); run: {install}.")
