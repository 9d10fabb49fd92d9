"""Whole runs in processes of their own: to the end, killed, cancelled, resumed, shared."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from SAMSemiSegLib.errors import Cancelled, DiskFullError
from SAMSemiSegLib.project.importing import import_cases
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.run.cancellation import Cancellation
from SAMSemiSegLib.run.events import read_events
from SAMSemiSegLib.run.folder import RunFolder
from SAMSemiSegLib.run.presets import load_settings
from SAMSemiSegLib.run.state import run_state

MakeProject = Callable[..., Project]

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.fixture
def project(tmp_path: Path, phantom_project: MakeProject) -> Project:
    """Two labeled phantoms, three unlabeled, two for evaluation, in a folder whose name has a
    space and non-ASCII letters."""
    return phantom_project(tmp_path / "Größe ä 1", 7, 2, 2, seed=1, shape=(32, 32, 24))


def train_command(project: Project, run: str, *arguments: str) -> list[str]:
    head = [sys.executable, "-m", "SAMSemiSegLib", "train", str(project.folder), "--run", run]
    return [*head, "--device", "cpu", *arguments]


def train(
    project: Project, run: str, *arguments: str, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    command = train_command(project, run, *arguments)
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, preexec_fn=before
    )


def start(project: Project, run: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        train_command(project, run, *arguments),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_step(folder: RunFolder, stage: str, step: int, process: subprocess.Popen[str]) -> None:
    """Until a run under way has told of that step."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        for event in read_events(folder.events):
            if event["stage"] == stage and event.get("step", -1) >= step:
                return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(f"step {step} of {stage} was never reached")


def test_too_little_memory_is_one_sentence_that_names_the_setting(project: Project) -> None:
    large = ("--preset", "tiny", "--set", "retraining.patch=[384,384,384]")
    done = train(project, "large", *large, before=lambda: limit_data(3 * 2**30))
    assert done.returncode == 3, done.stderr
    assert "not enough memory" in done.stderr and "retraining.patch" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (run_folder(project, "large") / "manifest.json").exists()


def limit_data(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (size, resource.RLIM_INFINITY))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems know no such limit")
def test_a_process_is_refused_what_the_machine_does_not_have() -> None:
    code = """
from SAMSemiSegLib.training import memory
import torch
torch.ones(1)
memory.free_memory = lambda: memory.SPARE + 200 * 2**20
import resource
before = resource.getrlimit(resource.RLIMIT_DATA)
assert memory.hold_to_free_memory() <= 200 * 2**20
torch.ones(20 * 2**20)
memory.let_go()
assert resource.getrlimit(resource.RLIMIT_DATA) == before
torch.empty(100 * 2**20)  # what the rest of this process may take
memory.free_memory = lambda: memory.SPARE + 300 * 2**20
assert 250 * 2**20 < memory.hold_to_free_memory() <= 300 * 2**20  # as another run finds it
memory.free_memory = lambda: memory.SPARE + 200 * 2**20
assert memory.hold_to_free_memory() <= 200 * 2**20
from SAMSemiSegLib.training.memory import memory_sentence
with memory_sentence("lower it."):
    torch.ones(200 * 2**20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "OutOfMemoryError: There is not enough memory: lower it." in done.stderr


def test_files_that_a_container_has_read_do_not_count_as_used_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from SAMSemiSegLib.training import memory

    gigabyte = 2**30
    (tmp_path / "memory.max").write_text(f"{3 * gigabyte}\n")
    (tmp_path / "memory.current").write_text(f"{3 * gigabyte - 4096}\n")
    (tmp_path / "memory.stat").write_text(
        f"anon {gigabyte}\nactive_file {gigabyte // 2}\ninactive_file {gigabyte}\n"
    )
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=9 * gigabyte))
    assert memory.free_memory() == gigabyte + gigabyte // 2 + 4096


def test_a_run_that_slicer_started_ends_well(tmp_path: Path) -> None:
    """A thread that waits for the end of standard input must not hold up the interpreter's end."""
    code = f"""
from pathlib import Path
from SAMSemiSegLib.run.cancellation import Cancellation
watch = Cancellation(Path({str(tmp_path / "cancel")!r}), watch_stdin=True)
watch.start()
watch.stop()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.wait(60) == 0, process.stderr and process.stderr.read()
    process.communicate()


def test_signals_do_after_a_run_what_they_did_before(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    watch = Cancellation(tmp_path / "cancel")
    watch.start()
    assert signal.getsignal(signal.SIGINT) != before
    watch.stop()
    assert signal.getsignal(signal.SIGINT) == before


def run_folder(project: Project, run: str) -> RunFolder:
    return RunFolder(project.folder / "runs" / run)


def net_of(folder: RunFolder) -> dict[str, torch.Tensor]:
    return load_file(folder / "retraining" / "net.safetensors")


def test_a_whole_run_leaves_all_it_promises(project: Project) -> None:
    done = train(project, "a", "--preset", "tiny", "--set", "supervised_baseline=true", "--json")
    assert done.returncode == 0, done.stderr
    folder = run_folder(project, "a")
    manifest = json.loads(folder.manifest.read_text())
    for name in ("report", "scores", "net", "torchscript", "onnx", "bundle"):
        assert (folder / manifest[name]).exists(), name
    rows = {row["row"] for row in json.loads(done.stdout)["rows"]}
    assert rows == {"supervised only", "pseudo-labels", "re-trained"}
    kinds = [event["kind"] for event in read_events(folder.events)]
    assert kinds[0] == "start" and kinds[-1] == "end" and "scores" in kinds
    written = (folder / "log.txt").read_text(encoding="utf-8")
    assert "retraining: done in" in written and written.rstrip().endswith("complete")
    steps = [e for e in read_events(folder.events) if e["kind"] == "progress"]
    assert all({"step", "total", "seconds_left", "values"} <= set(e) for e in steps)
    offered = [case for case in Project.load(project.folder).cases if case.status == "pseudo"]
    assert len(offered) == 3 and all(case.confidence is not None for case in offered)
    assert run_state(folder).state == "complete"


def test_killed_at_any_stage_and_resumed_gives_the_same_weights(project: Project) -> None:
    more = ["--set", "finetuning.budget.steps=12", "--set", "retraining.budget.steps=30"]
    more += ["--set", "checkpoint_minutes=0.001", "--set", "export=[]", "--preset", "tiny"]
    # Replayed embeddings are state that a checkpoint must keep too.
    more += ["--set", "finetuning.strategy=decoder"]
    assert train(project, "whole", *more).returncode == 0
    for stage, step in (("finetuning", 3), ("retraining", 5)):
        process = start(project, "killed", *(more if stage == "finetuning" else ["--resume"]))
        wait_for_step(run_folder(project, "killed"), stage, step, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert run_state(run_folder(project, "killed")).state == "stopped"
    resumed = train(project, "killed", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    whole, killed = (net_of(run_folder(project, name)) for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, killed[name]), name


@pytest.mark.parametrize("way", ["file", "SIGTERM", "stdin"])
def test_cancel_ends_soon_and_can_be_resumed(project: Project, way: str) -> None:
    many = ["--preset", "tiny", "--set", "retraining.budget.steps=5000", "--set", "export=[]"]
    command = train_command(project, "c", *many)
    process = subprocess.Popen(
        [*command, "--stop-with-parent"] if way == "stdin" else command,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = run_folder(project, "c")
    wait_for_step(folder, "retraining", 2, process)
    asked = time.monotonic()
    if way == "file":
        folder.cancel_file.touch()
    elif way == "SIGTERM":
        process.terminate()
    else:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    _, stderr = process.communicate(timeout=20)
    assert time.monotonic() - asked < 5
    assert process.returncode == Cancelled.exit_code
    assert "--resume" in stderr and "Traceback" not in stderr
    checkpoint = torch.load(folder / "retraining" / "checkpoint.pt", weights_only=True)
    assert checkpoint["step"] >= 2 and checkpoint["total"] == 5000


def test_a_second_process_in_the_same_run_is_refused(project: Project) -> None:
    first = start(project, "busy", "--preset", "tiny", "--set", "retraining.budget.steps=5000")
    try:
        wait_for_step(run_folder(project, "busy"), "retraining", 1, first)
        second = train(project, "busy", "--resume")
        assert second.returncode == 2
        assert "already working" in second.stderr and "Traceback" not in second.stderr
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()


def test_a_run_is_not_started_twice_nor_resumed_unstarted(project: Project) -> None:
    run_folder(project, "x").create(load_settings("tiny"))
    again = train(project, "x", "--preset", "tiny")
    assert again.returncode == 2 and "--resume" in again.stderr
    never = train(project, "never", "--resume")
    assert never.returncode == 2 and "no run to resume" in never.stderr


def test_no_label_is_one_sentence(tmp_path: Path, phantom_project: MakeProject) -> None:
    project = phantom_project(tmp_path, 2, with_labels=False)
    done = train(project, "a", "--preset", "tiny")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and "label at least one" in done.stderr
    assert not (project.folder / "runs").exists()


def test_two_processes_give_the_same_pseudo_labels(project: Project) -> None:
    """Fine-tuned at learning rate 0, so that the models are equal: what is left is who
    makes which pseudo-label, and what each has met."""
    settings = ["--preset", "tiny", "--set", "export=[]", "--set", "finetuning.learning_rate=0"]
    unreadable = project.unlabeled[-1]
    project.path(unreadable.image).write_text("no image")
    assert train(project, "one", *settings).returncode == 0
    # As torchrun does; for processors accelerate's own launcher starts a single one.
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    command = [*launch, "-m", "--", "SAMSemiSegLib", *train_command(project, "two", *settings)[3:]]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = run_folder(project, "one"), run_folder(project, "two")
    names = sorted(path.name for path in (one / "pseudolabels").glob("*.npz"))
    assert len(names) == 2
    for name in names:
        assert (one / "pseudolabels" / name).read_bytes() == (
            two / "pseudolabels" / name
        ).read_bytes(), name
    told = [e.get("message") for e in read_events(two.events)]
    assert "2 processes work on this run." in told
    assert any(message and f"'{unreadable.id}' is left out" in message for message in told)
    assert all(torch.isfinite(tensor).all() for tensor in net_of(two).values())


def test_a_full_disk_ends_in_a_sentence(project: Project, tmp_path: Path) -> None:
    small = tmp_path / "small disk"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        moved = Project.create(small / "project", project.label_set)
        scans = project.folder.parent / "scans"
        import_cases(moved, scans / "images", scans / "labels", 2, evaluate=2)
        full = ["--preset", "tiny", "--set", "retraining.net.width=4"]
        full += ["--set", "checkpoint_minutes=0.001", "--set", "retraining.budget.steps=400"]
        done = train(moved, "full", *full)
        assert done.returncode == DiskFullError.exit_code, done.stderr
        assert "disk is full" in done.stderr and "Traceback" not in done.stderr
        assert not list(small.rglob(".*.checkpoint.pt"))
        for checkpoint in small.rglob("checkpoint.pt"):
            torch.load(checkpoint, weights_only=True)
    finally:
        subprocess.run(["umount", str(small)], check=False)


def test_a_step_that_does_not_end_is_left_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[object] = []
    monkeypatch.setattr("SAMSemiSegLib.run.cancellation.GRACE_SECONDS", 0.0)
    monkeypatch.setattr("os._exit", said.append)
    cancellation = Cancellation(tmp_path / "cancel", last_words=lambda: said.append("Stopped."))
    cancellation.start()
    cancellation.request()
    deadline = time.monotonic() + 10
    while len(said) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    cancellation.stop()
    assert said == ["Stopped.", Cancelled.exit_code]


def test_resume_takes_the_run_that_was_stopped_and_runs_are_told_apart(
    project: Project,
) -> None:
    from typer.testing import CliRunner

    from SAMSemiSegLib.command.app import app
    from SAMSemiSegLib.command.train import _default_name
    from SAMSemiSegLib.errors import InputError

    with pytest.raises(InputError, match="there is none"):
        _default_name(project.folder, resume=True)
    for name, method in (("stopped", "acmt"), ("complete", "supervised")):
        folder = RunFolder(project.folder / "runs" / name)
        folder.create(load_settings("tiny", [f"retraining.method={method}"], seed=7))
    folder.write_manifest({})
    os.utime(folder.config, (time.time() + 1,) * 2)
    assert _default_name(project.folder, resume=True) == "stopped"
    shown = CliRunner().invoke(app, ["runs", str(project.folder), "--json"])
    runs = json.loads(shown.stdout)
    told = [(run["name"], run["state"], run["method"], run["seed"]) for run in runs]
    assert told == [("complete", "complete", "supervised", 7), ("stopped", "stopped", "acmt", 7)]
    RunFolder(project.folder / "runs" / "stopped").write_manifest({})
    with pytest.raises(InputError, match="every run is complete"):
        _default_name(project.folder, resume=True)
