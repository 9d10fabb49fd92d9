"""Real scans, for the tests of the module and of the panel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def hippocampusFolder() -> Path:
    """Brain MR crops with two labels."""
    return realScans("hippocampus")


@pytest.fixture(scope="session")
def dicomFolder() -> Path:
    """Two folders of DICOM slices."""
    return realScans("dicom")


def realScans(name: str) -> Path:
    """A set's folder in ``SAMSEMISEG_DATA``, or in ``shared/data`` beside the repository."""
    shared = Path(os.environ.get("SAMSEMISEG_DATA", ROOT.parent / "shared" / "data"))
    folder = shared / name
    if not folder.is_dir():
        pytest.skip(f"needs real scans; there is no folder {folder} (set SAMSEMISEG_DATA)")
    return folder
