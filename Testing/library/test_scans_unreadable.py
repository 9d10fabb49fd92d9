"""Scans that the system does not let be read, and what is told of them: never their paths."""

from __future__ import annotations

import builtins
import errno
import io
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from SAMSemiSegLib.errors import Cancelled, InputError
from SAMSemiSegLib.preprocessing.stage import _has_changed
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.run.events import read_events
from SAMSemiSegLib.run.folder import RunFolder
from SAMSemiSegLib.run.presets import load_settings
from SAMSemiSegLib.run.start import start
from SAMSemiSegLib.volumes.dicom import is_series_folder
from SAMSemiSegLib.volumes.reading import (
    check_label_geometry,
    label_values,
    read_image,
    read_image_geometry,
    read_labels,
)

REFUSALS = [errno.EACCES, errno.EIO, errno.ESTALE]


@pytest.fixture
def project(tmp_path: Path, phantom_project: Callable[..., Project]) -> Project:
    """One labeled scan and two others, in a folder that is named after a patient."""
    (tmp_path / "JOHN_DOE_1950").mkdir()
    return phantom_project(tmp_path / "JOHN_DOE_1950", 3, 1, seed=1)


def refuse(monkeypatch: pytest.MonkeyPatch, path: Path, number: int) -> None:
    """The system opens this file for nobody."""
    opened = io.open

    def fail(file: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, str | os.PathLike) and Path(file) == path:
            raise OSError(number, os.strerror(number), str(path))
        return opened(file, *args, **kwargs)

    monkeypatch.setattr(io, "open", fail)
    monkeypatch.setattr(builtins, "open", fail)


def stop_after_preprocessing(event: dict[str, Any]) -> None:
    print(event)
    if event["kind"] == "done":
        raise Cancelled


@pytest.mark.usefixtures("run_here")
@pytest.mark.parametrize("number", REFUSALS)
def test_an_unlabeled_scan_that_may_not_be_read_is_left_out_and_its_path_told_nowhere(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    number: int,
) -> None:
    monkeypatch.setattr("SAMSemiSegLib.run.cancellation.Cancellation.start", lambda _: None)
    case = project.unlabeled[0]
    refuse(monkeypatch, project.path(case.image), number)
    folder = RunFolder(project.folder / "runs" / "a")
    with pytest.raises(Cancelled):
        start(project, folder, load_settings("tiny", device="cpu"), False, stop_after_preprocessing)
    (told,) = [e["message"] for e in read_events(folder.events) if e["kind"] == "warning"]
    assert told == (
        f"The case '{case.id}' is left out: '{case.id} (image)' cannot be read "
        f"({os.strerror(number)}); check that you may read it and that its drive is connected."
    )
    output = capfd.readouterr()
    log = (folder / "log.txt").read_text(encoding="utf-8")
    for text in (output.out, output.err, log, folder.events.read_text(encoding="utf-8")):
        assert "JOHN_DOE" not in text


@pytest.mark.usefixtures("run_here")
def test_a_labeled_scan_that_may_not_be_read_ends_the_run_in_a_sentence_and_an_event(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("SAMSemiSegLib.run.cancellation.Cancellation.start", lambda _: None)
    case = project.labeled[0]
    refuse(monkeypatch, project.path(case.image), errno.EACCES)
    folder = RunFolder(project.folder / "runs" / "a")
    with pytest.raises(InputError, match=rf"'{case.id} \(image\)' cannot be read") as error:
        start(project, folder, load_settings("tiny", device="cpu"))
    last = list(read_events(folder.events))[-1]
    assert (last["kind"], last["message"]) == ("error", str(error.value))


@pytest.mark.usefixtures("run_here")
def test_the_traceback_of_an_unexpected_end_names_no_file_of_a_case(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is printed, and the panel keeps what is printed."""
    case = project.labeled[0]
    scan = str(project.path(case.image))

    def fail(pipeline: object) -> None:
        try:
            raise OSError(errno.EIO, "Input/output error", scan)
        except OSError as error:
            raise RuntimeError(f"something about '{scan}'") from error

    monkeypatch.setattr("SAMSemiSegLib.run.start.Pipeline.run", fail)
    with pytest.raises(RuntimeError) as error:
        start(project, RunFolder(project.folder / "runs" / "a"), load_settings("tiny"))
    printed = "".join(traceback.format_exception(error.value))
    assert printed.count(f"'{case.id} (image)'") == 2 and scan not in printed


@pytest.mark.parametrize("number", REFUSALS)
def test_every_reader_tells_of_a_file_that_may_not_be_read(
    project: Project, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    case = project.labeled[0]
    assert case.label is not None
    image, label = project.path(case.image), project.path(case.label)
    grid = read_image_geometry(image)
    series = image.parent / "series"
    series.mkdir()
    (series / "DOE_001.dcm").write_bytes(b"")
    for path, read in {
        image: (read_image, read_image_geometry),
        label: (
            lambda path: read_labels(path, [1, 2], grid),
            label_values,
            lambda path: check_label_geometry(path, grid),
        ),
        series / "DOE_001.dcm": (
            lambda path: is_series_folder(path.parent),
            lambda path: read_image(path.parent),
        ),
    }.items():
        with monkeypatch.context() as patch:
            refuse(patch, path, number)
            for reader in read:
                with pytest.raises(InputError, match=rf"cannot be read \({os.strerror(number)}\);"):
                    reader(path)


def test_a_prepared_case_needs_its_label_file_no_more(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    case = project.labeled[0]
    assert case.label is not None
    (tmp_path / "digest").write_text("another")
    assert _has_changed(project, case, tmp_path / "digest")
    refuse(monkeypatch, project.path(case.label), errno.EIO)
    assert not _has_changed(project, case, tmp_path / "digest")


@pytest.mark.parametrize(
    "text",
    [
        "'{folder}/DOE_005.dcm' cannot be read as a DICOM slice",
        "'{folder}/O'Brien 5.dcm' cannot be read",
        "ITK says: no such file {folder}/DOE 005.dcm",
        "the folder '{folder}' is empty",
    ],
)
def test_names_of_slices_stay_out_too(project: Project, text: str) -> None:
    paths = ["/scans/DOE", "/scans/DOE\\JANE"]  # of which Python writes the second with "\\\\"
    project.cases[:] = [
        project.unlabeled[0].model_copy(update={"image": path, "id": f"c{i}"})
        for i, path in enumerate(paths)
    ]
    for folder, case_id in ((paths[0], "c0"), (paths[1], "c1"), (repr(paths[1])[1:-1], "c1")):
        cleaned = project.without_paths(text.format(folder=folder))
        assert f"{case_id} (image)" in cleaned
        assert not any(name in cleaned for name in ("DOE", "JANE", "Brien", ".dcm"))
        assert ("cannot be read" in text) == ("cannot be read" in cleaned)
