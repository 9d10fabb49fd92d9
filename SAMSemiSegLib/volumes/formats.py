"""Which file formats there are, by the endings of their names.

Nothing is imported here that Slicer lacks before the first installation.
"""

from __future__ import annotations

import os
from pathlib import Path

from SAMSemiSegLib.errors import InputError

SUFFIXES = (".seg.nrrd", ".nii.gz", ".nrrd", ".nii", ".mha", ".mhd")
"""Of labels; those of scans are all but the first. A longer one stands before what it ends in."""

FORMATS = ".nrrd, .nii, .nii.gz, .mha, .mhd, .seg.nrrd or a folder of DICOM slices"
PATTERNS = " ".join(f"*{suffix}" for suffix in SUFFIXES[1:])
"""Scans, as Qt's file dialogs ask for them."""


def suffix_of(path: Path | str) -> str:
    """The image suffix of a file name (".nii.gz"), empty if it has none that can be read."""
    name = Path(path).name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def check_name(path: Path) -> None:
    """Refuse a path that ITK and JSON cannot hold, as old archives and shares have them on Linux.

    Raises:
        InputError: it is no UTF-8.
    """
    raw = os.fsencode(path)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        shown = raw.decode("utf-8", "replace")
        raise InputError(
            f"The name '{shown}' is not in UTF-8, as names from an old archive or share may be; "
            "rename it."
        ) from error


def stem_of(path: Path | str) -> str:
    """A file name without its image suffix; any other suffix stays part of the name."""
    name = Path(path).name
    return name[: len(name) - len(suffix_of(name))]
