"""The module on Slicer's own MRML (slicer-core), without Qt."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "SAMSemiSeg"), str(ROOT / "Testing" / "panel")]
from host.scans import dicomFolder, hippocampusFolder  # noqa: E402, F401 - fixtures

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
