"""The panel on the host: PySide6 as PythonQt, Slicer's own MRML."""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "SAMSemiSeg"), str(ROOT / "Testing" / "panel")]
from host.scans import dicomFolder, hippocampusFolder  # noqa: E402, F401 - fixtures

MISSING = [name for name in ("slicer", "PySide6") if importlib.util.find_spec(name) is None]
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
FAKE = ROOT / "Testing" / "module" / "fake_library"

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


class PreparedAnswers:
    """What the library says of itself, without the seconds that asking it takes."""

    def __init__(self, command, arguments) -> None:
        self._arguments = tuple(arguments)

    def poll(self):
        lora = {"name": "lora", "title": "Stitched LoRA (SFR)", "source": "a paper", "needs": []}
        box = {"name": "box", "title": "Boxes drawn by the V-Net", "guided": True}
        teacher = {"name": "mean_teacher", "title": "Mean Teacher", "needs": ["unlabeled volumes"]}
        small = {"name": "lite_medsam", "title": "LiteMedSAM", "weights": {"megabytes": 39.0}}
        weights = {**small, "megabytes": 39.0, "license": "Apache-2.0", "cached": False}
        large = {**weights, "name": "sam_vit_b", "title": "SAM ViT-B", "megabytes": 375.0}
        own = {**weights, "name": "medsam2", "title": "MedSAM-2", "url": None}
        return {
            ("methods",): {"foundation": [small], "finetuning": [lora, box], "ssl": [teacher]},
            ("doctor",): {"devices": [{"name": "cpu", "about": "2 cores"}], "free_memory_gb": 5.0},
            ("weights", "list"): [weights, large, own],
        }[self._arguments]

    def end(self) -> None:
        pass


@pytest.fixture
def widget(scene, request, monkeypatch):
    """The module, open and on screen; closed afterwards, with every process it started."""
    from host.application import closeModule, isAlive, openModule

    if "hippocampusFolder" not in request.fixturenames:  # the story asks the library itself
        monkeypatch.setattr("SAMSemiSegModule.assembly.CommandQuery", PreparedAnswers)
    logging.disable(logging.NOTSET)
    opened = openModule()
    opened.parent.resize(460, 900)
    opened.parent.show()
    # The 400,000 objects of the test tools, which Slicer has not, would make each of Python's full
    # collections take 0.1 s; they are set aside. What the panel makes from here on is collected.
    gc.collect()
    gc.freeze()
    yield opened
    gc.unfreeze()
    if isAlive(opened.parent):  # a test may have closed it
        opened.panel.endWithSlicer()
        closeModule(opened)


@pytest.fixture
def panel(widget, tmp_path):
    """The panel, with dialogs that answer by themselves."""
    from SAMSemiSegModule.story import StoryDialogs

    widget.panel.services.dialogs = StoryDialogs(tmp_path / "project")
    return widget.panel


@pytest.fixture
def openProject(panel):
    """A project of three scans, the first of them labeled."""
    from actions import aScan, aSegmentation

    first = aScan("first")
    aSegmentation(first)
    aScan("second")
    aScan("third")
    panel.project.ui.newProjectButton.click()
    panel.project.ui.addSceneButton.click()
    assert panel.services.store.counts() == (1, 2, 0), panel.ui.messageLabel.text
    return panel


@pytest.fixture
def fakeTraining(openProject, monkeypatch):
    """The panel with a library that behaves as it is told to."""
    from SAMSemiSegModule.process.command import ChildCommand
    from SAMSemiSegModule.process.runner import ProcessRunner

    def start(behavior: str):
        environment = {**os.environ, "FAKE_BEHAVIOR": behavior}
        openProject.services.trainer = ProcessRunner(
            lambda: ChildCommand(sys.executable, FAKE, environment)
        )
        openProject.ui.trainingButton.collapsed = False
        openProject.train.ui.trainButton.click()
        assert openProject.services.trainer.isRunning(), openProject.ui.messageLabel.text
        return openProject.train

    yield start
    openProject.services.trainer.stopNow()
