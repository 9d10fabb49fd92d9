"""The module on Slicer's own MRML (slicer-core), without Qt."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "SAMSemiSeg"), str(ROOT / "Testing" / "panel")]

if importlib.util.find_spec("slicer") is not None:
    from host.scene import startScene

    startScene()


@pytest.fixture
def scene():
    """Slicer's scene, empty."""
    import slicer

    slicer.mrmlScene.Clear(0)
    slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(slicer.mrmlScene)
    return slicer.mrmlScene


@pytest.fixture(scope="session")
def hippocampusFolder() -> Path:
    """Real brain MR crops with two labels."""
    return realScans("hippocampus")


@pytest.fixture(scope="session")
def dicomFolder() -> Path:
    """Two folders of real DICOM slices."""
    return realScans("dicom")


def realScans(name: str) -> Path:
    shared = Path(os.environ.get("SAMSEMISEG_DATA", ROOT.parent / "shared" / "data"))
    folder = shared / name
    if not folder.is_dir():
        pytest.skip(f"needs real scans; there is no folder {folder} (set SAMSEMISEG_DATA)")
    return folder
