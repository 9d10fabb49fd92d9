"""Drives that are full or read only, or know no locks, and places that may not be written."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from SAMSemiSegLib.atomic import replacing
from SAMSemiSegLib.command.app import app
from SAMSemiSegLib.errors import Cancelled, DiskFullError, InputError, RunBusyError
from SAMSemiSegLib.project.phantoms import write_phantoms
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.run.events import read_events
from SAMSemiSegLib.run.folder import RunFolder
from SAMSemiSegLib.run.presets import load_settings
from SAMSemiSegLib.run.start import start
from SAMSemiSegLib.run.state import run_states


@pytest.fixture
def project(tmp_path: Path, phantom_project: Callable[..., Project]) -> Project:
    return phantom_project(tmp_path, 2, 1, seed=1)


def no_lock(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A lock of the system fails with this number."""

    def fail(*_: object) -> None:
        raise OSError(number, "no lock")

    monkeypatch.setattr("fcntl.flock", fail)


@pytest.mark.usefixtures("run_here")
@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK])
def test_a_drive_without_locks_holds_up_no_run_and_is_told(
    project: Project, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """SMB on macOS, and NFS without its lock daemon."""

    def stop(event: dict[str, object]) -> None:
        if event["kind"] == "stage":
            raise Cancelled

    no_lock(monkeypatch, number)
    folder = RunFolder(project.folder / "runs" / "a")
    with pytest.raises(Cancelled):
        start(project, folder, load_settings("tiny", device="cpu"), listener=stop)
    told = [e["message"] for e in read_events(folder.events) if e["kind"] == "warning"]
    assert len(told) == 1 and "cannot keep other processes out" in told[0]
    assert run_states(project.folder)[0].state == "stopped"


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK])
def test_a_lock_that_another_holds_is_no_missing_one(
    project: Project, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    folder = RunFolder(project.folder / "runs" / "a")
    folder.create(load_settings("tiny"))
    no_lock(monkeypatch, number)
    with pytest.raises(RunBusyError, match="already working on the run 'a'"):
        folder.lock()


def test_a_full_disk_is_known_whatever_the_writer_calls_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept.bin"
    path.write_text("old")

    def write(free: int) -> None:
        usage = shutil.disk_usage(tmp_path)._replace(free=free)
        monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("unexpected pos 5856576 vs 5856468")

    with pytest.raises(RuntimeError, match="unexpected pos"):
        write(free=1 << 30)
    monkeypatch.undo()
    with pytest.raises(DiskFullError, match=r"kept\.bin"):
        write(free=4096)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["kept.bin"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """Root may write anywhere, so a file stands where a folder is wanted."""
    (tmp_path / "file").write_text("")
    image, _ = write_phantoms(tmp_path / "scans", 1, 0, (16, 16, 12))
    scan = next(image.iterdir())
    command = [sys.executable, "-m", "SAMSemiSegLib", "stitch", str(scan)]
    command += ["--output", str(tmp_path / "file" / "canvas.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == InputError.exit_code
    assert done.stderr.count("\n") == 1 and "cannot be used" in done.stderr


def test_where_the_system_says_why_the_disk_is_not_called_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drive that is read only may have no space free."""
    monkeypatch.setattr("SAMSemiSegLib.atomic._free", lambda folder: 0)
    for number in (errno.EACCES, errno.EROFS):
        with pytest.raises(OSError) as caught, replacing(tmp_path / "a"):
            raise OSError(number, "no", "a")
        assert caught.value.errno == number and not isinstance(caught.value, DiskFullError)


def test_a_run_is_found_and_its_state_told_without_writing(project: Project) -> None:
    """Also where its project.json is named, and a lock file that others may not write."""
    folder = RunFolder(project.folder / "runs" / "a")
    folder.create(load_settings("tiny"))
    folder.lock()
    lock = folder / "lock"
    written = lock.stat().st_mtime_ns, lock.read_text(encoding="utf-8")
    assert folder.is_locked()
    folder.unlock()
    assert not folder.is_locked()
    assert written == (lock.stat().st_mtime_ns, lock.read_text(encoding="utf-8"))
    named = str(project.folder / "project.json")
    found = CliRunner().invoke(app, ["train", named, "--preset", "tiny", "--run", "a"])
    assert isinstance(found.exception, InputError) and "--resume" in str(found.exception)
