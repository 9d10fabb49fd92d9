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

import pytest
import torch
from safetensors.torch import load_file
from scipy import ndimage

from SAMSemiSegLib.errors import Cancelled, DiskFullError
from SAMSemiSegLib.evaluation.metrics import compare_labels
from SAMSemiSegLib.evaluation.scores import Scores
from SAMSemiSegLib.export.predictor import Predictor
from SAMSemiSegLib.preprocessing.preprocessor import Preprocessor
from SAMSemiSegLib.project.importing import import_cases
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.run.events import read_events
from SAMSemiSegLib.run.folder import RunFolder
from SAMSemiSegLib.run.presets import load_settings
from SAMSemiSegLib.run.state import run_state
from SAMSemiSegLib.volumes.reading import read_image, read_labels

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
assert memory.hold_to_free_memory() <= 200 * 2**20
torch.ones(20 * 2**20)
from SAMSemiSegLib.training.context import memory_sentence
with memory_sentence("lower it."):
    torch.ones(200 * 2**20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "OutOfMemoryError: There is not enough memory: lower it." in done.stderr


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


def test_the_table_the_proposals_and_the_model_keep_the_same_components(project: Project) -> None:
    """All 3 are cleaned alike; the pseudo-labels, which have a setting of their own, are not."""
    settings = ["pseudolabels.largest_component=false", "retraining.largest_component=true"]
    # A net that has learned next to nothing sees its labels everywhere.
    settings += ["mixed_precision=no", "retraining.budget.steps=1", 'export=["torchscript"]']
    words = [word for setting in settings for word in ("--set", setting)]
    done = train(project, "a", "--preset", "tiny", *words)
    assert done.returncode == 0, done.stderr
    folder = run_folder(project, "a")
    predictor = Predictor.load(folder / "model", "cpu")
    preprocessor = Preprocessor(predictor.card.plan)
    rows = Scores.from_json(folder / "evaluation" / "re-trained.json").rows
    cleaned = 0
    for case in Project.load(project.folder).cases:
        volume = read_image(project.path(case.image))
        found = predictor.predict(volume).array
        probabilities = predictor.predict_probabilities(volume)
        cleaned += int((preprocessor.back(probabilities, volume.geometry) != found).sum())
        if case.status == "pseudo":
            path = folder / "proposals" / f"{case.id}.seg.nrrd"
            offered, _ = read_labels(path, (1, 2), volume.geometry)
            assert (offered.array != found).mean() < 1e-3
            assert all(ndimage.label(offered.array == channel)[1] <= 1 for channel in (1, 2))
        elif case.role == "evaluation":
            reference, _ = read_labels(project.path(case.reference), (1, 2), volume.geometry)
            measured = compare_labels(found, reference.array, ["head", "tail"], (1, 1, 1))
            table = {row.label: row.metrics.dice for row in rows if row.case == case.id}
            assert table == pytest.approx({k: m.dice for k, m in measured.items()}, abs=1e-3)
    assert cleaned > 0, "nothing to clean"


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
    """Fine-tuned for one step at learning rate 0, so that the models are equal: what is left is
    who makes which pseudo-label."""
    settings = ["--preset", "tiny", "--set", "export=[]", "--set", "finetuning.learning_rate=0"]
    assert train(project, "one", *settings).returncode == 0
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", "0"]
    command = [*launch, "-m", "SAMSemiSegLib", *train_command(project, "two", *settings)[3:]]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = run_folder(project, "one"), run_folder(project, "two")
    names = sorted(path.name for path in (one / "pseudolabels").glob("*.npz"))
    assert len(names) == 3
    for name in names:
        assert (one / "pseudolabels" / name).read_bytes() == (
            two / "pseudolabels" / name
        ).read_bytes(), name
    # Gradients of two processes are means over twice the crops: close, not equal.
    first, second = net_of(one), net_of(two)
    for name, tensor in first.items():
        assert torch.isfinite(second[name]).all()
        assert (tensor - second[name]).abs().max() < 0.5, name


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


def test_rounds_of_selection_judge_every_volume(project: Project) -> None:
    """SFR+: each volume is judged, and the reason is kept; few steps leave most of them empty."""
    sure = ["mode=quantile", "quantile=1", "smallest=0", "largest=1000", "wholeness=0", "rounds=1"]
    settings = ["--preset", "tiny", "--set", "retraining.pseudo_label_mode=selected"]
    for assignment in sure:
        settings += ["--set", f"retraining.selection.{assignment}"]
    done = train(project, "plus", *settings, "--set", "export=[]", "--json")
    assert done.returncode == 0, done.stderr
    folder = run_folder(project, "plus")
    decisions = json.loads((folder / "round-1" / "selection.json").read_text())
    assert len(decisions) == 3
    for case_id, decision in decisions.items():
        assert (folder / "round-1" / "labels" / f"{case_id}.npy").exists()
        assert decision["reason"]
    rows = {row["row"] for row in json.loads(done.stdout)["rows"]}
    assert {"re-trained", "re-trained (round 1)", "pseudo-labels (round 1)"} <= rows
    assert json.loads(folder.manifest.read_text())["net"].startswith("round-1")


def test_a_warm_start_begins_re_training_and_shares_in_the_pseudo_labels(project: Project) -> None:
    settings = ["--preset", "tiny", "--set", "export=[]", "--set", "retraining.warm_start.steps=3"]
    # With no further step re-training ends where it began.
    settings += ["--set", "retraining.learning_rate=0", "--set", "retraining.net.norm=instance"]
    settings += ["--set", "pseudo_label_scores=false"]
    done = train(project, "warm", *settings, "--set", "pseudolabels.vnet_share=1", "--json")
    assert done.returncode == 0, done.stderr
    folder = run_folder(project, "warm")
    rows = json.loads(done.stdout)["rows"]
    assert {row["row"] for row in rows} == {"warm start", "re-trained"}
    warm_dice, last_dice = (
        [row["dice"] for row in rows if row["row"] == name] for name in ("warm start", "re-trained")
    )
    assert warm_dice == last_dice and len(last_dice) == 4
    warm, last = (load_file(folder / n / "net.safetensors") for n in ("warm-start", "retraining"))
    assert all(torch.equal(tensor, last[name]) for name, tensor in warm.items())
    refused = train(project, "cold", "--preset", "tiny", "--set", "pseudolabels.vnet_share=0.5")
    assert refused.returncode == 2 and "retraining.warm_start.minutes" in refused.stderr


@pytest.mark.parametrize("method", ["supervised", "mean_teacher"])
def test_of_many_unlabeled_volumes_some_get_pseudo_labels_and_all_are_segmented(
    project: Project, method: str
) -> None:
    settings = ["--preset", "tiny", "--set", "export=[]", "--set", "pseudolabels.most=2"]
    done = train(project, method, *settings, "--set", f"retraining.method={method}")
    assert done.returncode == 0, done.stderr
    folder = run_folder(project, method)
    unlabeled = {case.id for case in project.unlabeled}
    written = {path.stem for path in (folder / "pseudolabels").glob("*.npz")}
    assert len(unlabeled) == 3 and len(written) == 2 and written < unlabeled
    assert {
        path.name.split(".")[0] for path in (folder / "proposals").glob("*.seg.nrrd")
    } == unlabeled
    told = [event.get("message", "") for event in read_events(folder.events)]
    assert any("2 of 3 unlabeled volumes" in message for message in told)


def test_online_alternation_is_one_setting(project: Project) -> None:
    settings = ["--preset", "tiny", "--set", "export=[]", "--set", "finetuning.patch=[16,16,8]"]
    settings += ["--set", "retraining.pseudo_label_mode=selected"]
    settings += ["--set", "retraining.selection.alternation=online"]
    done = train(project, "online", *settings, "--json")
    assert done.returncode == 0, done.stderr
    folder = run_folder(project, "online")
    rows = {row["row"] for row in json.loads(done.stdout)["rows"]}
    assert rows == {"pseudo-labels", "re-trained"} and not (folder / "round-1").exists()
    values = [e.get("values", {}) for e in read_events(folder.events)]
    assert any("crop_confidence" in value for value in values)
    kept = torch.load(folder / "retraining" / "checkpoint.pt", weights_only=True)
    assert kept["module"]["foundation"]
