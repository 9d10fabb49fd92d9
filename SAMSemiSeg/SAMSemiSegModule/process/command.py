"""The command line and environment of a child process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("child.py")
LIBRARY = "SAMSemiSegLib"


@dataclass(frozen=True)
class ChildCommand:
    """How the library's command is started.

    Attributes:
        python: the interpreter; in Slicer ``PythonSlicer``.
        library: the folder that holds the library's package.
        environment: of the child.
    """

    python: str
    library: Path
    environment: dict[str, str] = field(default_factory=dict)

    def line(self, folder: Path, arguments: Sequence[str]) -> list[str]:
        """The whole command line."""
        start = [self.python, str(CHILD), "--folder", str(folder)]
        return [*start, "--library", str(self.library), "--", *arguments]


def slicerCommand() -> ChildCommand:
    """The command in the Slicer that this module runs in."""
    import slicer

    # Slicer's own variables (PYTHONHOME, LD_LIBRARY_PATH, ...) would break the child; PythonSlicer,
    # a launcher, sets those it needs itself.
    environment = dict(slicer.util.startupEnvironment())
    environment["OMP_WAIT_POLICY"] = "PASSIVE"
    environment["PYTHONUNBUFFERED"] = "1"
    environment["PYTHONIOENCODING"] = "utf-8:replace"
    environment["PYTHONNOUSERSITE"] = "1"
    return ChildCommand(_python(), libraryFolder(), environment)


def ownGroup() -> dict[str, Any]:
    """How ``Popen`` puts a child into a group of its own, so that its whole tree can be ended."""
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        return {"creationflags": flags}
    return {"start_new_session": True}


def _python() -> str:
    """Slicer's interpreter; ``SAMSEMISEG_PYTHON`` names another one (developers, tests)."""
    return os.environ.get("SAMSEMISEG_PYTHON") or shutil.which("PythonSlicer") or sys.executable


def libraryFolder() -> Path:
    """The folder that holds the library's package: beside the module where it is installed, or
    the repository's root; else where Python finds it."""
    for parent in Path(__file__).parents:
        if (parent / LIBRARY / "__init__.py").is_file():
            return parent
    import importlib.util

    spec = importlib.util.find_spec(LIBRARY)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"The folder {LIBRARY} is missing; install the extension again.")
    return Path(spec.origin).parent.parent
