"""Where the demo's scans come from, and how it ends."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from SAMSemiSegLib.command import app, demo
from SAMSemiSegLib.command.display import Display
from SAMSemiSegLib.errors import Cancelled, DiskFullError, InputError
from SAMSemiSegLib.project.project import Project


@pytest.mark.parametrize("problem", [URLError("no network"), Exception("no such module")])
def test_without_scans_and_network_phantoms_are_made_and_it_says_so(
    problem: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*arguments: object, **options: object) -> None:
        raise problem

    monkeypatch.setattr(demo, "find_data", lambda name: None)
    monkeypatch.setattr("monai.apps.download_and_extract", download)
    monkeypatch.setattr(demo, "UNLABELED", 1)
    monkeypatch.setattr(demo, "EVALUATION", 1)
    images, labels, order, about = demo._scans(tmp_path)
    names = order.read_text(encoding="utf-8").split()
    assert len(names) == demo.LABELED + 2
    assert len(list(images.iterdir())) == len(list(labels.iterdir())) == len(names)
    assert "phantoms" in about


def test_only_a_demo_s_own_project_is_made_anew(tmp_path: Path) -> None:
    project = tmp_path / "project"
    Project.create(project, name="of a user")
    with pytest.raises(InputError, match="not a demo's project"):
        demo.demo(tmp_path, "demo", [], False)
    assert Project.load(project).name == "of a user"
    former = Project.create(tmp_path / "former" / "project", name=demo.NAME)
    with pytest.raises(InputError, match="no preset 'dmo'"):
        demo.demo(tmp_path / "former", "dmo", [], False)
    assert Project.load(former.folder) == former


def test_a_demo_that_is_stopped_says_how_its_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own command would make the project anew."""

    def stop(*arguments: Any) -> None:
        display = arguments[4]
        assert isinstance(display, Display)
        display({"kind": "stopped", "stage": "retraining", "message": "stopped"})
        raise Cancelled

    monkeypatch.setattr(demo, "find_data", lambda name: None)
    monkeypatch.setattr(demo, "_download", lambda folder: None)
    monkeypatch.setattr(demo, "UNLABELED", 1)
    monkeypatch.setattr(demo, "EVALUATION", 1)
    monkeypatch.setattr("SAMSemiSegLib.run.start.start", stop)
    with pytest.raises(Cancelled) as stopped:
        demo.demo(tmp_path, "tiny", [], False)
    again = f'Continue with: samsemiseg train "{tmp_path / "project"}" --run "demo" --resume'
    assert again in str(stopped.value) and again in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "sentence", "code"),
    [
        (Cancelled(), "Stopped.", Cancelled.exit_code),
        (Cancelled("Stopped. Continue so."), "Stopped. Continue so.", Cancelled.exit_code),
        (OSError(errno.ENOSPC, "full"), "The disk is full; free some", DiskFullError.exit_code),
    ],
)
def test_commands_that_cannot_be_resumed_do_not_say_so(
    error: Exception, sentence: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[str, int]] = []

    def fail(standalone_mode: bool) -> None:
        raise error

    monkeypatch.setattr(app, "_end", lambda *told: ends.append(told) or exit(1))
    with pytest.raises(SystemExit):
        app.main(fail)  # type: ignore[arg-type]
    ((told, exit_code),) = ends
    assert told.startswith(sentence) and exit_code == code and "--resume" not in told
