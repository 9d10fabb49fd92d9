"""SAM's own network classes, imported with or without a working torchvision."""

from __future__ import annotations

from types import ModuleType

from SAMSemiSegLib.foundation.package_import import import_networks


def import_segment_anything(submodule: str = "modeling") -> ModuleType:
    """The module ``segment_anything.<submodule>``.

    Raises:
        InputError: the package is not installed.
    """
    return import_networks("segment_anything", submodule, "pip install segment-anything")
