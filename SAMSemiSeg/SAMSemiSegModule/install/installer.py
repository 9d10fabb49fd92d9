"""Installing, from a click and never at import; pip stays on the main thread."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Protocol

from slicer.i18n import tr as _

from SAMSemiSegModule.install.requirements import (
    PROTECTED,
    TORCH,
    Requirement,
    missing,
    readRequirements,
)


class Installer(Protocol):
    """Knows what is missing, and gets it."""

    def missing(self) -> list[Requirement]: ...

    def isValid(self) -> tuple[bool, str]: ...

    def install(self, wheels: Path | None = None) -> None: ...


class SlicerInstaller:
    """Torch by the PyTorch extension, the rest by Slicer's packaging helpers.

    Args:
        requirements: the file that lists what the library needs.
        findMissing: says which are missing; replaced in tests.
    """

    def __init__(
        self,
        requirements: Path,
        findMissing: Callable[[list[Requirement]], list[Requirement]] = missing,
    ) -> None:
        self._path = requirements
        self._findMissing = findMissing

    def missing(self) -> list[Requirement]:
        """What is not there yet."""
        return self._findMissing(readRequirements(self._path))

    def isValid(self) -> tuple[bool, str]:
        """Whether all is installed; else what is missing and how large it is."""
        absent = self.missing()
        if not absent:
            return True, ""
        names = ", ".join(requirement.name for requirement in absent)
        size = sum(requirement.megabytes for requirement in absent)
        return False, _(
            "Some Python packages are missing: {names}. 'Install' downloads up to {size} MB into "
            "Slicer; numpy, SimpleITK, vtk and a PyTorch that suits stay as they are."
        ).format(names=names, size=size)

    def install(self, wheels: Path | None = None) -> None:
        """Install what is missing.

        Args:
            wheels: a folder of wheels, for machines without a network.

        Raises:
            RuntimeError: the PyTorch extension is absent; the message says how to get it.
        """
        absent = self.missing()
        if wheels is not None:
            self._pip(absent, wheels)
            return
        if any(requirement.name == TORCH for requirement in absent):
            self._installTorch(next(r for r in absent if r.name == TORCH))
        rest = [r for r in absent if r.name != TORCH]
        if rest:
            self._pip(rest, None)

    @staticmethod
    def _installTorch(requirement: Requirement) -> None:
        try:
            import PyTorchUtils
        except ImportError as error:
            raise RuntimeError(
                _(
                    "The extension 'PyTorch' is missing; install it in the Extensions Manager, "
                    "restart Slicer, and click 'Install' again."
                )
            ) from error
        logic = PyTorchUtils.PyTorchUtilsLogic()
        if (
            logic.installTorch(
                askConfirmation=True, torchVersionRequirement=">=" + requirement.lowest
            )
            is None
        ):
            raise RuntimeError(
                _("PyTorch was not installed; click 'Install' again when you are ready.")
            )

    def _pip(self, requirements: list[Requirement], wheels: Path | None) -> None:
        import shutil

        import slicer

        packages = [requirement.text for requirement in requirements]
        constraints = self._constraints({requirement.name for requirement in requirements})
        try:
            if wheels is not None:
                source = ["--no-index", "--find-links", str(wheels), "-c", str(constraints)]
                slicer.util.pip_install([*packages, *source])
                return
            try:
                from slicer import packaging
            except ImportError:  # Slicer 5.10
                slicer.util.pip_install([*packages, "-c", str(constraints)])
                return
            packaging.pip_ensure(packages, constraints=constraints, requester="SAMSemiSeg")
        finally:
            shutil.rmtree(constraints.parent, ignore_errors=True)

    @staticmethod
    def _constraints(wanted: Collection[str]) -> Path:
        """A file that pins the protected packages to what they are: to the very build, 2.6.0+cu118,
        for which PyPI's 2.6.0 is no substitute. What is ``wanted`` is absent or too old."""
        import importlib.metadata
        import tempfile

        lines = []
        for name in PROTECTED:
            if name in wanted:
                continue
            try:
                lines.append(f"{name}=={importlib.metadata.version(name)}")
            except importlib.metadata.PackageNotFoundError:
                continue  # Slicer's vtk is no pip package
        path = Path(tempfile.mkdtemp()) / "constraints.txt"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path


def restartNeeded(before: dict[str, Any]) -> bool:
    """Whether a package that was in use has been replaced (its old version stays in memory).

    Args:
        before: versions by name of the modules in use before installing.
    """
    import importlib.metadata

    for name, version in before.items():
        try:
            if importlib.metadata.version(name) != version:
                return True
        except importlib.metadata.PackageNotFoundError:
            continue
    return False


def versionsInUse(requirements: list[Requirement]) -> dict[str, str]:
    """Versions of the required packages that are imported already."""
    import importlib.metadata
    import sys

    found = {}
    for requirement in requirements:
        if requirement.name.replace("-", "_") in sys.modules:
            try:
                found[requirement.name] = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                continue
    return found
