"""First use: what is missing, and by which way it is installed."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
import slicer
from SAMSemiSegModule.install.installer import SlicerInstaller, restartNeeded
from SAMSemiSegModule.install.requirements import (
    Requirement,
    missing,
    readRequirements,
)

FILE = Path(__file__).resolve().parents[2] / "SAMSemiSeg" / "Resources" / "requirements.txt"


@pytest.fixture
def pip(monkeypatch):
    """Records what pip would be asked for, with the constraints at that time."""
    calls = []

    def install(words, **options):
        constraints = options.get("constraints")
        if constraints is None and "-c" in words:
            constraints = words[words.index("-c") + 1]
        calls.append((words, Path(constraints).read_text(encoding="utf-8")))

    monkeypatch.setattr(slicer.util, "pip_install", install)
    return calls


@pytest.fixture
def torchExtension(monkeypatch):
    """The PyTorch extension; what it was asked to install."""
    asked = []

    class PyTorchUtilsLogic:
        def installTorch(self, askConfirmation=False, torchVersionRequirement=None):
            asked.append((askConfirmation, torchVersionRequirement))
            return "torch"

    extension = types.ModuleType("PyTorchUtils")
    extension.PyTorchUtilsLogic = PyTorchUtilsLogic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
    return asked


def installer(*names: str) -> SlicerInstaller:
    """One that finds these packages missing."""
    wanted = [Requirement(name, "1.0") for name in names]
    return SlicerInstaller(FILE, lambda requirements: wanted)


def test_the_file_lists_names_and_lowest_versions():
    found = {r.name: r.lowest for r in readRequirements(FILE)}
    assert found["torch"] == "2.4" and "monai" in found


def test_what_is_absent_or_too_old_is_missing():
    there = Requirement("pytest", "1.0")
    old = Requirement("pytest", "9999")
    absent = Requirement("no-such-package", "1")
    assert missing([there, old, absent]) == [old, absent]


def test_the_panel_says_what_is_missing_and_how_large_it_is():
    isValid, reason = installer("torch", "monai").isValid()
    assert not isValid
    assert "torch, monai" in reason and "2502 MB" in reason


def test_nothing_missing_is_valid():
    assert installer().isValid() == (True, "")


def test_torch_comes_by_the_extension_and_the_rest_by_pip(pip, torchExtension, monkeypatch):
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)  # Slicer 5.10
    monkeypatch.delattr(slicer, "packaging", raising=False)
    installer("torch", "monai").install()
    assert torchExtension == [(True, ">=1.0")]
    ((words, constraints),) = pip
    assert words[0] == "monai>=1.0" and not [word for word in words if "torch" in word]
    assert "numpy==" in constraints and "SimpleITK==" in constraints


def test_slicers_own_helper_is_used_where_there_is_one(pip, torchExtension, monkeypatch):
    asked = []
    helper = types.ModuleType("slicer.packaging")
    helper.pip_ensure = lambda words, constraints, requester: asked.append((words, requester))
    monkeypatch.setitem(sys.modules, "slicer.packaging", helper)
    monkeypatch.setattr(slicer, "packaging", helper, raising=False)
    installer("monai").install()
    assert asked == [(["monai>=1.0"], "SAMSemiSeg")] and not pip


def test_a_folder_of_wheels_needs_no_network(pip, tmp_path):
    installer("torch", "monai").install(tmp_path)
    ((words, _constraints),) = pip
    assert "--no-index" in words and str(tmp_path) in words
    assert {"torch>=1.0", "monai>=1.0"} <= set(words)


@pytest.fixture
def cudaTorch(monkeypatch):
    """A torch and torchvision of the PyTorch extension's, for CUDA 11.8."""
    import importlib.metadata

    real = importlib.metadata.version
    builds = {"torch": "2.6.0+cu118", "torchvision": "0.21.0+cu118"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: builds.get(name) or real(name))


def test_a_torch_that_is_there_stays_the_very_build(pip, cudaTorch, tmp_path):
    """A newer monai asks for a newer torch, which pip would take from PyPI, for another CUDA."""
    installer("monai").install(tmp_path)
    ((_words, constraints),) = pip
    assert {"torch==2.6.0+cu118", "torchvision==0.21.0+cu118"} <= set(constraints.splitlines())


def test_a_torch_that_is_too_old_is_not_held(pip, cudaTorch, tmp_path):
    installer("torch", "monai").install(tmp_path)
    ((words, constraints),) = pip
    assert "torch>=1.0" in words and "torch==" not in constraints


def test_without_the_pytorch_extension_it_says_how_to_get_it(pip, monkeypatch):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    with pytest.raises(RuntimeError, match="Extensions Manager"):
        installer("torch").install()
    assert not pip


def test_restart_is_offered_only_when_a_package_in_use_was_replaced():
    import importlib.metadata

    now = importlib.metadata.version("pytest")
    assert not restartNeeded({"pytest": now})
    assert restartNeeded({"pytest": "0.1"})
