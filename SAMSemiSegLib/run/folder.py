"""The folder of one run, and who may write in it."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from SAMSemiSegLib import __version__
from SAMSemiSegLib.atomic import write_json
from SAMSemiSegLib.errors import InputError, RunBusyError
from SAMSemiSegLib.locking import HELD, lock
from SAMSemiSegLib.run.settings import RunSettings


def new_run_name(project: Path) -> str:
    """The next name (run-1, run-2, ...) that no run of a project folder has."""
    number = 1
    while (project / "runs" / f"run-{number}").exists():
        number += 1
    return f"run-{number}"


class RunFolder:
    """Names of everything a run writes.

    ``config.json`` settings; ``cases.json`` the cases it was started with; ``versions.json`` what
    it was made with; ``events.jsonl`` the event stream; ``log.txt``; ``preprocessed/`` plan and
    cases; ``finetuning/``, ``retraining/``, ``supervised/``, ``warm-start/`` checkpoints;
    ``pseudolabels/``; ``round-N/`` the same of each round of SFR+; ``proposals/`` of the trained
    network, to review; ``evaluation/``; ``model/``; ``report.html``; ``manifest.json`` written
    last: the run is complete. While it works, ``lock``; to stop it, ``cancel``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def cases(self) -> Path:
        return self.path / "cases.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def cancel_file(self) -> Path:
        return self.path / "cancel"

    @property
    def complete(self) -> bool:
        """Whether the run has ended well."""
        return self.manifest.exists()

    def create(self, settings: RunSettings) -> None:
        """Make the folder and write the settings.

        Raises:
            InputError: there is a run of this name already.
        """
        if self.config.exists():
            raise InputError(
                f"There is already a run '{self.path.name}' in '{self.path.parent}'; continue it "
                "with --resume, or choose another name with --run."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.config, settings.model_dump(mode="json"))
        self.record_versions()

    def settings(self) -> RunSettings:
        """The settings the run was started with.

        Raises:
            InputError: there is no such run, or its ``config.json`` cannot be read.
        """
        if not self.config.exists():
            raise InputError(
                f"There is no run to resume at '{self.path}'; start one without --resume."
            )
        try:
            return RunSettings.model_validate_json(self.config.read_text(encoding="utf-8"))
        except (ValidationError, ValueError) as error:
            first = _first_problem(error)
            raise InputError(
                f"'{self.config}' cannot be read ({first}); start a new run with another name."
            ) from error

    def record_versions(self) -> None:
        """Write what the run is made with: library, Python, packages, processor."""
        packages = ("torch", "monai", "SimpleITK", "numpy", "peft", "accelerate", "onnx")
        versions: dict[str, Any] = {
            "samsemiseg": __version__,
            "python": platform.python_version(),
            "system": platform.system(),
            "machine": platform.machine(),
        }
        for package in packages:
            try:
                versions[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                versions[package] = None
        write_json(self.path / "versions.json", versions)

    def lock(self) -> bool:
        """Keep other processes out until this one ends, however it ends.

        Returns:
            Whether they are: some network drives know no locks.

        Raises:
            RunBusyError: another process is at work here.
        """
        file = (self.path / "lock").open("a+", encoding="utf-8")
        try:
            lock(file)
        except OSError as error:
            file.close()
            if error.errno not in HELD:
                return False
            raise RunBusyError(
                f"Another process is already working on the run '{self.path.name}'; wait for it, "
                f"or end it by creating the file '{self.cancel_file}'."
            ) from error
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        self._lock = file
        return True

    def unlock(self) -> None:
        """Let others in."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def is_locked(self) -> bool:
        """Whether some process is at work here; nothing is written to find out."""
        try:
            file = (self.path / "lock").open(encoding="utf-8")
        except OSError:  # none there, or not ours to read
            return False
        with file:
            try:
                lock(file, shared=True)
            except OSError as error:
                return error.errno in HELD
        return False

    def write_manifest(self, contents: dict[str, Any]) -> None:
        """Say that the run is complete, and what it made (paths inside the folder)."""
        write_json(self.manifest, contents)


def _first_problem(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error).splitlines()[0]
    problem = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in problem["loc"])
    return f"'{name}': {problem['msg']}" if name else problem["msg"]
