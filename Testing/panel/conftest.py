"""The panel on the host: PySide6 as PythonQt, Slicer's own MRML."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "SAMSemiSeg"), str(ROOT / "Testing" / "panel")]
MISSING = [name for name in ("slicer", "PySide6") if importlib.util.find_spec(name) is None]
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

if not MISSING:
    from host.application import startHost

    startHost()


@pytest.fixture
def scene():
    """Slicer's scene, empty, and settings of no other test."""
    if MISSING:
        pytest.skip(f"needs {' and '.join(MISSING)}: pip install slicer-core PySide6-Essentials")
    import qt
    import slicer

    slicer.mrmlScene.Clear(0)
    slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(slicer.mrmlScene)
    qt.QSettings().clear()
    return slicer.mrmlScene


@pytest.fixture
def widget(scene):
    """The module, open and on screen; closed afterwards, with every process it started."""
    from host.application import closeModule, openModule

    logging.disable(logging.NOTSET)
    opened = openModule()
    opened.parent.resize(460, 900)
    opened.parent.show()
    yield opened
    opened.panel.endWithSlicer()
    closeModule(opened)


@pytest.fixture
def panel(widget, tmp_path):
    """The panel, with dialogs that answer by themselves."""
    from SAMSemiSegModule.story import StoryDialogs

    widget.panel.services.dialogs = StoryDialogs(tmp_path / "project")
    return widget.panel


@pytest.fixture(scope="session")
def hippocampusFolder() -> Path:
    """Real brain MR crops with two labels."""
    shared = Path(os.environ.get("SAMSEMISEG_DATA", ROOT.parent / "shared" / "data"))
    folder = shared / "hippocampus"
    if not folder.is_dir():
        pytest.skip(f"needs real scans; there is no folder {folder} (set SAMSEMISEG_DATA)")
    return folder
