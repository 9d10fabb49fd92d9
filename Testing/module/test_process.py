"""The runner against processes that end, hang, crash and flood, as real ones do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
psutil = pytest.importorskip("psutil")
from SAMSemiSegModule.process import runner as runnerModule  # noqa: E402
from SAMSemiSegModule.process.command import ChildCommand  # noqa: E402
from SAMSemiSegModule.process.outcome import End, outcomeOf  # noqa: E402
from SAMSemiSegModule.process.query import CommandQuery, NoAnswer  # noqa: E402
from SAMSemiSegModule.process.runner import ProcessRunner, readRecord  # noqa: E402

FAKE = Path(__file__).parent / "fake_library"
# Slicer's own launcher behaves like this: it starts the real interpreter and waits for it.
LAUNCHER = "import subprocess,sys; sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))"


def command() -> ChildCommand:
    return ChildCommand(sys.executable, FAKE, {**os.environ, "PYTHONIOENCODING": "utf-8"})


@pytest.fixture
def run(tmp_path: Path):
    """Starts a behavior; afterwards no process of its session is left."""
    runners: list[ProcessRunner] = []
    folder = tmp_path / "run mit Umläuten"

    def start(behavior: str) -> ProcessRunner:
        runner = ProcessRunner(command)
        runners.append(runner)
        runner.start([behavior, str(folder)], folder)
        return runner

    yield start
    for runner in runners:
        runner.stopNow()
    assert not [p for p in psutil.process_iter() if str(folder) in " ".join(_commandLine(p))]


def _commandLine(process) -> list[str]:
    try:
        return process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else []
    except psutil.Error:
        return []


def followed(runner: ProcessRunner, seconds: float = 20.0):
    """All text and events until the outcome, or until the time is up."""
    text, events, deadline = "", [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        update = runner.poll()
        text += update.text
        events += update.events
        if update.outcome is not None:
            return text, events, update.outcome
        time.sleep(0.02)
    raise AssertionError("no outcome in time")


def waitForFile(path: Path) -> str:
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path.name} did not appear"
        time.sleep(0.02)
    return path.read_text()


def test_success_needs_exit_code_and_manifest(run):
    text, events, outcome = followed(run("succeed"))
    assert outcome.end is End.SUCCEEDED
    assert "übung" in text
    assert events[0]["values"] == {"loss": 0.5}


def test_exit_code_zero_without_manifest_is_no_success(run):
    assert followed(run("succeed_without_manifest"))[2].end is End.INCOMPLETE


@pytest.mark.parametrize(
    ("behavior", "end"),
    [
        ("out_of_memory", End.OUT_OF_MEMORY),
        ("disk_full", End.DISK_FULL),
        ("diverge", End.DIVERGED),
        ("crash", End.CRASHED),
    ],
)
def test_each_end_is_told_apart(run, behavior, end):
    assert followed(run(behavior))[2].end is end


def test_users_mistake_is_shown_in_the_librarys_words(run):
    outcome = followed(run("wrong_input"))[2]
    assert outcome.end is End.USER_ERROR
    assert "'a.nrrd' is 2D" in outcome.message()


def test_garbage_on_standard_output_does_no_harm(run):
    text, events, outcome = followed(run("garbage"))
    assert outcome.end is End.SUCCEEDED
    assert "\ufffd" in text
    assert [event["kind"] for event in events] == ["progress", "scores"]


def test_cancel_is_heard(run):
    runner = run("obey")
    while not runner.poll().events:
        time.sleep(0.02)
    runner.cancel()
    began = time.monotonic()
    outcome = followed(runner)[2]
    assert outcome.end is End.CANCELLED
    assert "'Continue'" in outcome.message()
    assert time.monotonic() - began < 2


def test_cancel_ends_a_deaf_process_and_its_children_within_five_seconds(run, tmp_path):
    runner = run("spawn")
    assert runner.folder is not None
    grandchild = int(waitForFile(runner.folder / "grandchild"))
    began = time.monotonic()
    runner.cancel()
    outcome = followed(runner)[2]
    assert time.monotonic() - began < 5
    assert outcome.end is End.CANCELLED
    assert not psutil.pid_exists(grandchild) or (
        psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE
    )


def test_cancel_ends_a_deaf_process_whose_folder_was_moved(run, monkeypatch):
    monkeypatch.setattr(runnerModule, "TERMINATE_AFTER", 0.3)
    monkeypatch.setattr(runnerModule, "KILL_AFTER", 0.6)
    runner = run("ignore")
    assert runner.folder is not None
    waitForFile(runner.folder / "process.json")
    runner.folder.rename(runner.folder.with_name("moved"))
    runner.cancel()
    assert followed(runner)[2].end is End.CANCELLED


def test_killed_from_outside(run):
    runner = run("ignore")
    assert runner.folder is not None
    waitForFile(runner.folder / "process.json")
    os.kill(readRecord(runner.folder)["pid"], signal.SIGKILL)
    outcome = followed(runner)[2]
    assert outcome.end is End.KILLED
    assert "'Continue'" in outcome.message() and outcome.canRetryLower


def test_a_launcher_does_not_hide_the_real_process(tmp_path, monkeypatch):
    monkeypatch.setattr(runnerModule, "TERMINATE_AFTER", 0.3)
    monkeypatch.setattr(runnerModule, "KILL_AFTER", 0.6)
    launcher = tmp_path / "launcher.py"
    launcher.write_text(LAUNCHER)
    start = tmp_path / "PythonSlicer"
    start.write_text(f"#!/bin/sh\n'{sys.executable}' '{launcher}' \"$@\"\n")
    start.chmod(0o755)
    runner = ProcessRunner(lambda: ChildCommand(str(start), FAKE, dict(os.environ)))
    folder = tmp_path / "run"
    runner.start(["ignore", str(folder)], folder)
    waitForFile(folder / "process.json")
    real = readRecord(folder)["pid"]
    assert runner._process is not None and real != runner._process.pid
    runner.cancel()
    followed(runner)
    waitUntilGone(real, 1)


PARENT = """
import sys, time
sys.path[:0] = {paths!r}
from host.scene import startScene
startScene()
from pathlib import Path
from SAMSemiSegModule.process.command import ChildCommand
from SAMSemiSegModule.process.runner import ProcessRunner
import os
runner = ProcessRunner(lambda: ChildCommand(sys.executable, Path({fake!r}), dict(os.environ)))
runner.start([{behavior!r}, {folder!r}], Path({folder!r}))
while not (Path({folder!r}) / "events.jsonl").exists():
    time.sleep(0.02)
if {go_on!r}:
    runner.letGoOn()
print("ready", flush=True)
time.sleep({wait!r})
"""


def startSlicer(folder: Path, behavior: str, go_on: bool, wait: float) -> subprocess.Popen[bytes]:
    """Another "Slicer" that starts a run, and is ready to be closed or killed."""
    root = Path(__file__).parents[2]
    script = PARENT.format(
        paths=[str(root / "SAMSemiSeg"), str(root / "Testing" / "panel")],
        fake=str(FAKE),
        behavior=behavior,
        folder=str(folder),
        go_on=go_on,
        wait=wait,
    )
    slicer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert slicer.stdout is not None and slicer.stdout.readline() == b"ready\n"
    return slicer


def waitUntilGone(pid: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the process outlived Slicer"
        time.sleep(0.05)


def test_run_ends_when_slicer_is_killed(tmp_path):
    folder = tmp_path / "run"
    slicer = startSlicer(folder, "obey", go_on=False, wait=60)
    pid = readRecord(folder)["pid"]
    slicer.kill()
    slicer.wait()
    waitUntilGone(pid, 8)
    assert readRecord(folder)["exitCode"] == 5


def test_deaf_run_ends_when_slicer_is_killed(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "events.jsonl").touch()
    slicer = startSlicer(folder, "spawn", go_on=False, wait=60)
    pid = int(waitForFile(folder / "grandchild"))
    slicer.kill()
    slicer.wait()
    waitUntilGone(pid, 10)


def test_deaf_run_whose_folder_was_moved_ends_with_slicer(tmp_path):
    """The watcher alone, with less patience, and a standard input that has ended."""
    script = (
        "import sys, time, threading; from pathlib import Path; sys.path.insert(0, sys.argv[1]); "
        "import child; child.GRACE_SECONDS = 0.2; "
        "threading.Thread(target=child._watchParent, args=(Path(sys.argv[2]),)).start(); "
        "time.sleep(60)"
    )
    words = [sys.executable, "-c", script, str(Path(runnerModule.__file__).parent)]
    process = subprocess.Popen(
        [*words, str(tmp_path / "gone")], stdin=subprocess.DEVNULL, start_new_session=True
    )
    assert process.wait(20) == -signal.SIGKILL


def test_run_goes_on_without_slicer_and_is_found_again(tmp_path):
    folder = tmp_path / "run"
    slicer = startSlicer(folder, "outlive", go_on=True, wait=0)
    assert slicer.wait() == 0
    later = ProcessRunner(command)
    assert later.attach(folder)
    _, events, outcome = followed(later)
    assert outcome.end is End.SUCCEEDED
    assert events[-1]["step"] == 19


def test_a_run_found_again_is_cancelled_with_its_launcher(tmp_path):
    """A launcher that outlived Slicer waits for the real process, in a session of its own."""
    folder = tmp_path / "run"
    child = Path(runnerModule.__file__).with_name("child.py")
    words = [sys.executable, str(child), "--folder", str(folder), "--library", str(FAKE), "--"]
    folder.mkdir()
    (folder / "keep-running").touch()
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, *words[1:], "ignore", str(folder)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    waitForFile(folder / "process.json")
    later = ProcessRunner(command)
    assert later.attach(folder)
    assert later._tree is not None and later._tree.pid == launcher.pid
    later._cancelledAt = time.monotonic() - 60  # the last rung of the ladder at once
    assert followed(later)[2].end is End.CANCELLED
    launcher.wait(5)
    waitUntilGone(readRecord(folder)["pid"], 1)


def test_attach_finds_nothing_where_nothing_runs(tmp_path, run):
    runner = run("succeed")
    followed(runner)
    assert not ProcessRunner(command).attach(runner.folder)
    assert not ProcessRunner(command).attach(tmp_path)


@pytest.fixture
def isFollowed(monkeypatch, run):
    """Whether a run at work is followed by what its folder says of it, with some of that changed;
    None leaves a word out."""
    monkeypatch.setattr(runnerModule, "TERMINATE_AFTER", 0.3)
    monkeypatch.setattr(runnerModule, "KILL_AFTER", 0.6)
    folder = run("ignore").folder
    waitForFile(folder / "process.json")
    record = readRecord(folder)

    def attached(place: Path = folder, **changes: object) -> bool:
        kept = {k: v for k, v in {**record, **changes}.items() if v is not None or k == "exitCode"}
        (place / "process.json").write_text(json.dumps(kept))
        return ProcessRunner(command).attach(place)

    attached.folder, attached.started = folder, record["started"]
    return attached


def test_a_process_of_another_machine_is_not_taken_for_the_one_here(isFollowed):
    assert isFollowed()
    assert not isFollowed(host="another")
    assert isFollowed(host=None), "a record of before named no machine"


def test_a_process_made_at_another_time_is_a_stranger(isFollowed):
    assert isFollowed(started=isFollowed.started + 20), "the clock was set right"
    for hours in (-1, 1):
        assert not isFollowed(started=isFollowed.started + 3600 * hours, host=None)


def test_a_process_that_works_in_another_folder_is_a_stranger(isFollowed, tmp_path):
    """A project that is copied while a run is at work: 'Cancel' in the copy must not end it."""
    copy = shutil.copytree(isFollowed.folder, tmp_path / "copy")
    assert not isFollowed(copy)
    assert not isFollowed(pid=os.getpid(), started=psutil.Process().create_time())


def answered(behavior: str, folder: Path):
    """What the library answers to a question that makes it behave so."""
    query = CommandQuery(command(), [behavior, str(folder)])
    deadline = time.monotonic() + 20
    while (answer := query.poll()) is None:
        assert time.monotonic() < deadline, "no answer in time"
        time.sleep(0.02)
    return answer


def test_a_question_is_answered_whatever_else_is_printed(tmp_path):
    assert answered("answer", tmp_path) == {"cases": ["größte"]}


@pytest.mark.parametrize(
    ("behavior", "sentence"),
    [
        ("wrong_input", "The image 'a.nrrd' is 2D; give a volume."),
        ("crash", "RuntimeError: no such tensor"),
        ("disk_full", r"no answer \(exit code 4\)"),
        ("succeed_without_manifest", r"no answer \(exit code 0\)"),
    ],
)
def test_a_question_that_fails_is_told_in_the_librarys_words(tmp_path, behavior, sentence):
    with pytest.raises(NoAnswer, match=sentence):
        answered(behavior, tmp_path)


def test_a_question_is_given_up_with_its_process(tmp_path):
    query = CommandQuery(command(), ["ignore", str(tmp_path)])
    process = query._process
    query.end()
    assert process is not None and process.poll() is not None
    assert query.poll() is None


def test_an_outcome_nobody_saw_counts_by_its_manifest():
    assert outcomeOf(None, True).end is End.SUCCEEDED
    assert outcomeOf(None, False).end is End.KILLED
