"""``benchmarks/accuracy.py``: the runs of all rows, their table and their curves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import typer
from published_phantoms import CASES, small, write_lists, write_set
from typer.testing import CliRunner

from SAMSemiSegLib.atomic import write_json
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.preprocessing.preprocessor import Preprocessor
from SAMSemiSegLib.preprocessing.stage import prepare
from SAMSemiSegLib.project.case import Case
from SAMSemiSegLib.project.label_set import LabelSet
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.pseudolabels.pseudo_label import PseudoLabel
from SAMSemiSegLib.retraining.selection import Decision
from SAMSemiSegLib.run.cancellation import Cancellation
from SAMSemiSegLib.run.events import Events
from SAMSemiSegLib.run.presets import load_settings
from SAMSemiSegLib.run.settings import PreprocessingSettings
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.devices import make_accelerator
from SAMSemiSegLib.volumes.reading import read_labels


@pytest.mark.parametrize(
    "script, arguments, said",
    [
        ("accuracy.py", "--dataset nowhere", "There is no"),
        ("accuracy.py", "--dataset la --preset published --methods acmt", "There is no preset"),
        ("suggestion.py", "--dataset nowhere", "There is no set 'nowhere'"),
        ("suggestion.py", "--dataset la --orders best", "There is no order 'best'"),
        ("suggestion.py", "--dataset la --labels 4 --labels 1", "The numbers of labels"),
    ],
)
def test_a_mistake_ends_in_one_sentence(
    script: str, arguments: str, said: str, benchmarks: Path, tmp_path: Path
) -> None:
    (tmp_path / "la").mkdir()
    (tmp_path / "la" / "train.list").write_text("")
    command = [sys.executable, str(benchmarks / script), "run", *arguments.split()]
    done = subprocess.run(
        [*command, "--workspace", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SAMSEMISEG_DATA": str(tmp_path)},
    )
    assert done.returncode == InputError.exit_code, done.stderr
    assert done.stderr.startswith(said) and done.stderr.count("\n") == 1


def test_a_project_whose_import_was_interrupted_is_made_anew(
    accuracy: ModuleType, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    Project.create(folder, LabelSet.of({"a": 1}), "project")
    assert not accuracy.is_whole(folder) and not folder.exists()
    project = Project.create(folder, LabelSet.of({"a": 1}), "project")
    with project.saved():
        project.cases.append(Case(id="one", image="one.nrrd"))
    assert accuracy.is_whole(folder)


def test_all_rows_of_a_method_once_each(
    published: ModuleType, accuracy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from SAMSemiSegLib.command.app import app
    from SAMSemiSegLib.run.events import read_events

    configuration = small(published, "la2018")
    monkeypatch.setattr(accuracy, "load_configuration", lambda name: configuration)
    data, results = tmp_path / "set", tmp_path / "results.jsonl"
    data.mkdir()
    write_set(configuration, data, CASES["la2018"])
    write_lists(configuration, data, CASES["la2018"])
    ran = []

    def select_one(evidence: dict[str, object], *_: object) -> dict[str, Decision]:
        """What the tiny networks are never sure of is decided by hand."""
        return {id: Decision(i == 0, 0.9, "By hand.") for i, id in enumerate(evidence)}

    def train(command: list[str]) -> float:
        ran.append(command[command.index("--run") + 1])
        done = CliRunner().invoke(app, command[3:])
        assert done.exit_code == 0, done.output
        return 1.0

    monkeypatch.setattr(accuracy, "train", train)
    monkeypatch.setattr("SAMSemiSegLib.run.selection.select", select_one)
    work = tmp_path / "work"

    def run(methods: str, *more: str) -> None:
        accuracy.run(
            dataset="la2018", data=data, labels=1, first=[0], seeds=[0], preset="tiny",
            methods=methods, variants="sfr+,plain,sfr", minutes=0, writing=0, name="t",
            assignments=[
                "retraining.selection.rounds=1", "retraining.warm_start.steps=1", "device=cpu",
                *more,
            ],
            baseline=True, unlabeled=0, results=results, workspace=work,
        )  # fmt: skip

    for _ in range(2):  # the second time all is there
        run("mean_teacher")
    # A patch that a method cannot cut leaves its rows out, and other settings are another run.
    run("magicnet", "retraining.patch=[32,32,16]")
    with pytest.raises(InputError, match="other settings"):
        run("mean_teacher", "retraining.budget.steps=3")
    names = ["t-mean_teacher-plain-0", "t-mean_teacher-sfr-0", "t-mean_teacher-sfr-plus-0"]
    assert ran == names
    lines = accuracy.read(results)
    assert [line["variant"] for line in lines] == ["plain", "sfr", "sfr+"]
    last = lines[2]["rows"]
    assert set(last) == {
        "warm start", "pseudo-labels", "re-trained",
        "pseudo-labels (round 1)", "re-trained (round 1)",
    }  # fmt: skip
    # SFR+ went on from SFR: the same scores, and no training of its own before the selection.
    for row in ("pseudo-labels", "re-trained"):
        assert last[row] == lines[1]["rows"][row]
    runs = work / "la2018-1-0" / "runs"
    plain, sfr, selected = (
        {e["stage"] for e in read_events(runs / name / "events.jsonl") if e["kind"] == "progress"}
        for name in names
    )
    assert "retraining:round 1" in selected and not {"retraining", "finetuning"} & selected
    # All three begin from one warm start.
    assert "warm-start" in plain and "warm-start" not in sfr | selected
    assert lines[0]["rows"]["warm start"] == lines[1]["rows"]["warm start"]
    assert lines[2]["seconds"] >= lines[1]["seconds"] >= 0
    ranked = accuracy.ranking(lines, accuracy._published)
    final = ("re-trained", "re-trained", "re-trained (round 1)")
    dice = [
        f"{100 * line['rows'][row]['dice']:.1f}" for line, row in zip(lines, final, strict=True)
    ]
    assert [line[:7] for line in ranked] == [("la2018", "1", "t", "mean_teacher", *dice)]
    assert ranked[0][9] == "29.7, 74.4, 81.0"
    assert json.loads(results.read_text().splitlines()[0])["method"] == "mean_teacher"


def test_each_run_has_a_peak_of_its_own(benchmarks: Path) -> None:
    """Not the largest one of all runs so far."""
    script = """
import sys
import accuracy
for megabytes in (900, 1):
    print(accuracy.train([sys.executable, "-c", f"b'x' * ({megabytes} << 20)"]))
"""
    # A process begins with what its parent holds, so that this one would hide the difference.
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=benchmarks, capture_output=True, text=True, check=True)
    large, small = map(float, done.stdout.split())
    assert large > 0.85 > small


def test_a_run_that_fails_ends_the_command(accuracy: ModuleType) -> None:
    with pytest.raises(typer.Exit) as ended:
        accuracy.train([sys.executable, "-c", "raise SystemExit(2)"])
    assert ended.value.exit_code == 2
    with pytest.raises(subprocess.CalledProcessError):
        accuracy.train([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])


def test_a_published_row_has_its_settings_also_where_no_method_is_named(
    published: ModuleType, accuracy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = small(published, "la2018")
    monkeypatch.setattr(accuracy, "load_configuration", lambda name: configuration)
    write_set(configuration, tmp_path, CASES["la2018"])
    write_lists(configuration, tmp_path, CASES["la2018"])

    def refuse(command: list[str]) -> float:
        raise typer.Exit(InputError.exit_code)

    monkeypatch.setattr(accuracy, "train", refuse)
    asked: list[list[str]] = []
    monkeypatch.setattr(
        accuracy,
        "load_settings",
        lambda preset, given, **kw: asked.append(given) or load_settings(preset, given, **kw),
    )
    with pytest.raises(typer.Exit):
        accuracy.run(
            dataset="la2018", data=tmp_path, labels=1, first=[0], seeds=[0], preset=None,
            methods="", variants="sfr", minutes=0, writing=0, name="t",
            assignments=["retraining.method=acmt"], baseline=False, unlabeled=0,
            results=tmp_path / "results.jsonl", workspace=tmp_path / "work",
        )  # fmt: skip
    assert set(configuration.method_settings["acmt"]) <= set(asked[-1])


def test_selection_does_not_go_on_from_a_training_with_other_settings(
    accuracy: ModuleType, tmp_path: Path
) -> None:
    sfr = tmp_path / "sfr"
    (sfr / "retraining").mkdir(parents=True)
    (sfr / "retraining" / "net.safetensors").write_bytes(b"net")
    write_json(sfr / "seconds.json", {"seconds": 7})
    early = tmp_path / "shared"
    shared = {"warm-start": early, "stage-2": early}

    def take_over(name: str, steps: int) -> Path:
        given = ["retraining.pseudo_label_mode=on", "retraining.budget.steps=9"]
        write_json(sfr / "config.json", load_settings("tiny", given).model_dump(mode="json"))
        row = accuracy.Row("mean_teacher", "sfr+")
        wanted = [*row.settings, f"retraining.budget.steps={steps}"]
        folder = tmp_path / name
        accuracy.take_over(row, folder, shared, sfr, load_settings("tiny", wanted))
        return folder / "retraining" / "net.safetensors"

    assert take_over("same", 9).read_bytes() == b"net"
    with pytest.raises(InputError, match=r"which SFR. goes on from, was made with other"):
        take_over("other", 5)


def test_a_row_takes_the_minutes_of_its_training(accuracy: ModuleType, tmp_path: Path) -> None:
    """And not of reading and scoring, which fall on whichever row comes first."""
    ran = ["preprocessing", "retraining", "evaluation:re-trained", "proposals", "export"]
    events = [
        {"time": 20 * n + passed, "kind": kind, "stage": name}
        for n, name in enumerate(ran)
        for kind, passed in (("stage", 0), ("done", 10))
    ]
    folder = tmp_path / "run"
    folder.mkdir()
    write_json(folder / "config.json", load_settings("tiny", []).model_dump(mode="json"))
    write_json(folder / "taken.json", {"seconds": 5})
    (folder / "events.jsonl").write_text("\n".join(map(json.dumps, events)))
    assert accuracy.keep(accuracy.Row(), folder, {}) == pytest.approx(15)


def test_methods_stand_in_the_order_of_their_best_way(accuracy: ModuleType) -> None:
    figures = {"hd95_mm": 2.0, "failures": 1}
    runs = [("a", "plain", 0.5), ("b", "plain", 0.4), ("b", "sfr", 0.6), ("b", "sfr", 0.8)]
    lines = [
        {
            **{"dataset": "la", "labels": 1, "name": "t", "method": method, "variant": variant},
            **{"rows": {"re-trained": {**figures, "dice": dice}}, "seconds": 90},
        }
        for method, variant, dice in runs
    ]
    ranked = accuracy.ranking(lines, lambda *_: None)
    assert [line[3:7] for line in ranked] == [
        ("b", "40.0", "70.0 ± 14.1 (2)", "–"),
        ("a", "50.0", "–", "–"),
    ]
    assert ranked[0][7:] == ("2.0, 2.0, –", "1, 2, –", "–, –, –", "1.5, 1.5, –")


def test_a_gain_is_counted_for_each_run_in_both_ways(accuracy: ModuleType) -> None:
    runs = [
        *[("a", "plain", 0, 0.5), ("a", "sfr", 0, 0.6), ("a", "sfr+", 0, 0.7)],
        *[("a", "plain", 1, 0.5), ("a", "sfr", 1, 0.4)],
        *[("b", "plain", 0, 0.9), ("b", "sfr", 0, 0.9), ("c", "sfr", 0, 0.3)],
    ]
    lines = [
        {
            **{"dataset": "la", "labels": 1, "name": "t", "method": method, "variant": variant},
            **{"first": 0, "seed": seed, "rows": {"re-trained": {"dice": dice}}},
        }
        for method, variant, seed, dice in runs
    ]
    assert accuracy.gains(lines) == [
        # One of three pairs is better with pseudo-labels; methods count once, however many seeds.
        ("la", "1", "t", "70.0", "56.7", "70.0", "1 of 3", "1 of 1", "b plain, 90.0")
    ]


def test_tables_show_the_named_configurations_only(
    accuracy: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.jsonl"
    figures = {"dice": 0.8, "hd95_mm": 2.0, "failures": 0, "cases": 16}
    common = {"dataset": "la", "labels": 1, "first": 0, "seed": 0}
    common["rows"] = {"re-trained": figures}
    lines = [
        {**common, "name": name, **more}
        for name in ("old", "new")
        for more in ({}, {"method": "acmt", "variant": "sfr", "seconds": 60})
    ]
    results.write_text("\n".join(map(json.dumps, lines)))
    for show in (accuracy.table, accuracy.methods):
        show(results, ["new"], markdown=True)
        told = capsys.readouterr().out
        assert "new" in told and "80.0" in told and "old" not in told


def test_curves_show_the_final_network_of_each_run(accuracy: ModuleType, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    scores = {"re-trained": {"dice": 0.7}, "re-trained (round 1)": {"dice": 0.8}}
    lines = [
        {"dataset": name, "labels": labels, "name": "q", "rows": scores, **more}
        for name in ("la", "hippocampus")
        for labels in (1, 4)
        for more in ({}, {"method": "acmt", "variant": "sfr"})
    ]
    results.write_text("\n".join(map(json.dumps, lines)))
    found = accuracy.series(lines)
    assert found["la"] == {"q": {1: [80.0], 4: [80.0]}, "q acmt sfr": {1: [80.0], 4: [80.0]}}
    accuracy.curves(results, tmp_path / "curves.png", ["q"])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="no such runs"):
        accuracy.curves(results, tmp_path / "none.png", ["other"])


def test_minutes_are_shared_out_as_the_preset_does(accuracy: ModuleType) -> None:
    given = accuracy.budgets(load_settings("quick", ["finetuning.budget.minutes=1"]), 30, 3)
    settings = load_settings("quick", given)
    assert settings.supervised_budget is not None and settings.supervised_budget.minutes == 30
    own = load_settings("quick", ["finetuning.budget.minutes=1"]).retraining
    shared = settings.retraining.budget.minutes, settings.finetuning.budget.minutes
    assert shared[0] is not None and shared[1] is not None and own.budget.minutes is not None
    assert shared[0] / shared[1] == pytest.approx(own.budget.minutes, rel=0.01)
    warm = settings.retraining.warm_start
    assert sum(shared) + (warm.minutes or 0 if warm else 0) == pytest.approx(27, abs=0.01)
    with pytest.raises(InputError, match="in minutes"):
        accuracy.budgets(load_settings("paper"), 30, 0)


def test_the_shared_stages_depend_on_what_they_are_made_and_scored_with(
    accuracy: ModuleType, tmp_path: Path
) -> None:
    """Also the score of the warm start is shared: it knows the cleaning of the V-Net's results."""

    def folder(*settings: str, part: str = "stage-2") -> Path:
        return Path(accuracy.shared_folders(tmp_path, load_settings("quick", settings))[part])

    plain = folder()
    assert folder("retraining.budget.steps=7", "retraining.method=ua_mt") == plain
    changes = (
        "retraining.warm_start.steps=7",
        "retraining.largest_component=true",
        "retraining.patch=[32,32,32]",
        "retraining.method=magicnet",
        "pseudolabels.vnet_share=0.4",
    )
    assert len({plain, *(folder(change) for change in changes)}) == 6
    # However the foundation model is fine-tuned, the warm start is the same.
    first = folder(part="warm-start")
    assert first not in {plain, folder("finetuning.strategy=lora")}
    assert folder("finetuning.strategy=lora", part="warm-start") == first
    assert folder("pseudolabels.vnet_share=0", part="warm-start") == first
    for change in changes[:-1]:
        assert folder(change, part="warm-start") != first
    # Without a warm start the stages before know nothing of the V-Net.
    cold = ("retraining.warm_start=null", "pseudolabels.vnet_share=0")
    assert folder(*cold) == folder(*cold, "retraining.patch=[32,32,32]")


def test_pseudo_labels_are_scored_by_labels_that_the_project_does_not_have(
    accuracy: ModuleType, phantom_project: Callable[..., Project], tmp_path: Path
) -> None:
    project = phantom_project(tmp_path, 3, labeled=1)
    run, labels = tmp_path / "run", tmp_path / "scans" / "labels"
    assert accuracy.score_pseudo_labels(project, run, labels) == []
    context = Context(make_accelerator("cpu"), Events(None), Cancellation(tmp_path / "cancel"))
    plan, cases = prepare(project, PreprocessingSettings(), run / "preprocessed", context)
    right, empty = (case for case in cases if case.part == "unlabeled")
    truth = read_labels(next(labels.glob(f"{right.id}.*")), (1, 2), right.source)[0]
    classes = np.arange(3)[:, None, None, None]
    for place, case, found in (
        ("", right, Preprocessor(plan).labels(truth)),
        ("", empty, np.zeros(empty.image.shape)),
        ("round-1", right, Preprocessor(plan).labels(truth)),
    ):
        one_hot = (found == classes).astype(float)
        pseudo = PseudoLabel.of(one_hot, np.ones(found.shape), 1.0)
        (run / place / "pseudolabels").mkdir(exist_ok=True, parents=True)
        pseudo.save(run / place / "pseudolabels" / f"{case.id}.npz")
    first, second = accuracy.score_pseudo_labels(project, run, labels)
    assert first.figures["dice"].mean == pytest.approx(0.5)
    assert (first.cases, first.failures) == (2, 1)
    assert second.row == f"{first.row} (round 1)" and second.figures["dice"].mean == 1
    assert second.cases == 1
