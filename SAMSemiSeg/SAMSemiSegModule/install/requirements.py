"""Which packages are missing, and what they weigh."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path

# Slicer's own, and the torch that suits the machine; pip must never replace them, and takes an
# older release of what asks for newer ones.
PROTECTED = ("numpy", "SimpleITK", "vtk", "torch", "torchvision")
# Download size in MB, rounded up, to tell before installing.
MEGABYTES = {"torch": 2500, "onnxruntime": 20, "onnx": 20, "matplotlib": 10, "monai": 2}
OTHER_MEGABYTES = 3
TORCH = "torch"


@dataclass(frozen=True)
class Requirement:
    """One line of ``requirements.txt``: a name and the lowest version."""

    name: str
    lowest: str = ""

    @property
    def text(self) -> str:
        return f"{self.name}>={self.lowest}" if self.lowest else self.name

    @property
    def megabytes(self) -> int:
        return MEGABYTES.get(self.name, OTHER_MEGABYTES)


def readRequirements(path: Path) -> list[Requirement]:
    """The requirements of a file; comments and empty lines are passed over."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"([A-Za-z0-9_.\-]+)\s*(?:>=\s*([0-9.]+))?", line.split("#")[0].strip())
        if match:
            found.append(Requirement(match[1], match[2] or ""))
    return found


def missing(requirements: list[Requirement]) -> list[Requirement]:
    """Those that are not installed, or too old."""
    return [r for r in requirements if not _isInstalled(r)]


def _isInstalled(requirement: Requirement) -> bool:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return _numbers(version) >= _numbers(requirement.lowest)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])
