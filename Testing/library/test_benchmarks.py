"""The benchmarks' configurations on phantoms laid out as the sets are, and the runs of all rows."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.finetuning.strategy import STRATEGIES
from SAMSemiSegLib.preprocessing.preprocessor import Preprocessor
from SAMSemiSegLib.preprocessing.stage import prepare
from SAMSemiSegLib.project.phantoms import make_phantom
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.pseudolabels.pseudo_label import PseudoLabel
from SAMSemiSegLib.retraining.ssl.method import METHODS
from SAMSemiSegLib.retraining.student import check_patch, read_options
from SAMSemiSegLib.run.cancellation import Cancellation
from SAMSemiSegLib.run.events import Events
from SAMSemiSegLib.run.presets import load_settings
from SAMSemiSegLib.run.settings import PreprocessingSettings
from SAMSemiSegLib.stitching.layout import plan_layout
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.devices import make_accelerator
from SAMSemiSegLib.volumes.reading import read_image, read_labels
from SAMSemiSegLib.volumes.volume import Volume
from SAMSemiSegLib.volumes.writing import write_image, write_labels

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NAMES = sorted(path.stem for path in (BENCHMARKS / "configurations").glob("*.json"))
SHAPE = (20, 18, 12)


@pytest.fixture(scope="module")
def published() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("published")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def accuracy(published: ModuleType) -> ModuleType:
    return importlib.import_module("accuracy")


def small(published: ModuleType, name: str, training: int = 4, evaluation: int = 2) -> Any:
    """The configuration for so few cases; lists and layout stay."""
    configuration = published.load_configuration(name)
    return configuration.model_copy(
        update={
            "training": configuration.training.model_copy(update={"first": training}),
            "evaluation": configuration.evaluation.model_copy(
                update={
                    key: evaluation
                    for key in ("first", "last")
                    if getattr(configuration.evaluation, key) is not None
                }
            ),
        }
    )


def arrays(seed: int, labels: int) -> tuple[Volume, np.ndarray]:
    """A phantom whose voxel (i, 0, 0) holds the value i + 1 for each label i."""
    image, label = make_phantom(SHAPE, seed)
    values = np.array(label.array, dtype=np.uint8)
    values[:labels, 0, 0] = np.arange(1, labels + 1)
    return image, values


def write_set(
    configuration: Any, folder: Path, names: list[str], image_file: str = ""
) -> dict[str, np.ndarray]:
    """Write phantoms where the configuration's set has its files; their labels by name."""
    files, written = configuration.files, {}
    highest = max(max(values) for values in configuration.labels.values())
    for seed, name in enumerate(names):
        image, values = arrays(seed, min(highest, SHAPE[0]))
        written[name] = values
        pattern = image_file or files.image.replace("**", "Images, part 1")
        path = folder / pattern.format(case=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if files.format == "hdf5":
            h5py = pytest.importorskip("h5py")
            order = (2, 1, 0) if files.axes == "zyx" else (0, 1, 2)
            with h5py.File(path, "w") as file:
                file["image"] = image.array.transpose(order).astype(np.float32)
                file["label"] = values.transpose(order)
        else:
            write_image(path, image)
            label = folder / files.label.replace("**", "Mask").format(case=name)
            ids = list(range(1, highest + 1))
            write_labels(
                label,
                Volume(values, image.geometry),
                [str(i) for i in ids],
                ids,
                [(255, 0, 0)] * highest,
            )
    return written


CASES = {
    "la2018": [f"{c}ABCDEFGH1234567890" for c in "UZ06B3"],
    "brats2019": [f"BraTS19_{c}_1" for c in ("TCIA02_370", "CBICA_ASA", "X", "Y", "A", "B")],
    "btcv": [f"{i:04}" for i in (31, 7, 9, 5, 26, 39)],
    "mact": [f"{i:04}" for i in range(1, 7)],
    "abdomenct1k": [f"Case_{i:05}" for i in range(1, 7)],
    "acdc": [f"patient{p:03}_frame{f:02}" for p in (99, 3, 11) for f in (1, 2)],
}


def write_lists(configuration: Any, folder: Path, names: list[str]) -> None:
    """Training cases first; BTCV has both parts in one file, each line the name of a file."""
    line = "case{}.npy.h5" if configuration.name == "btcv" else "{}"
    lists: dict[str, list[str]] = {}
    for part, own in ((configuration.training, names[:4]), (configuration.evaluation, names[4:])):
        if part.list is not None:
            lists.setdefault(part.list, []).extend(map(line.format, own))
    for name, lines in lists.items():
        (folder / name).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("name", "image_file"),
    [
        *((name, "") for name in NAMES if name != "btcv"),
        # As the list names them, and as MagicNet's script opens them.
        ("btcv", "btcv_h5/case{case}.npy.h5"),
        ("btcv", "btcv_h5/{case}.h5"),
    ],
)
def test_a_set_as_it_is_handed_out_becomes_a_project(
    published: ModuleType, name: str, image_file: str, tmp_path: Path
) -> None:
    configuration = small(published, name)
    names, data = CASES[name], tmp_path / "the set"
    data.mkdir()
    written = write_set(configuration, data, names, image_file)
    write_lists(configuration, data, names)
    configuration.make_project(data, 1, 1, 2, tmp_path / "work" / "project")
    project = published.Project.load(tmp_path / "work" / "project")
    assert [c.id for c in project.labeled] == names[1:2]  # the first labeled line is number 1
    assert [c.id for c in project.unlabeled] == names[2:4]
    assert [c.id for c in project.evaluation] == names[4:]
    assert project.label_set.names == list(configuration.labels)
    case = project.labeled[0]
    image = read_image(project.path(case.image))
    assert image.array.shape == SHAPE and case.label is not None
    found, _ = read_labels(project.path(case.label), project.label_set.values, image.geometry)
    expected = np.zeros(SHAPE, np.uint8)
    for channel, values in enumerate(configuration.labels.values(), 1):
        expected[np.isin(written[case.id], values)] = channel
    assert np.array_equal(found.array, expected)


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_valid_for_every_published_row(
    published: ModuleType, name: str, tmp_path: Path
) -> None:
    configuration = published.load_configuration(name)
    preset = str(configuration.write_preset(tmp_path))
    rows = {row.split("/")[0] for row in configuration.published if "/" in row}
    assert set(configuration.method_settings) | rows <= set(METHODS)
    for method in {"mean_teacher", *rows, *configuration.method_settings}:
        settings = load_settings(
            preset,
            [f"retraining.method={method}", *configuration.method_settings.get(method, ())],
        )
        # What is not set would have the default of whole volumes.
        given = configuration.settings["finetuning"]["augmentation"]
        assert set(given) | {"flip_axes"} == set(
            type(settings.finetuning.augmentation).model_fields
        )
        assert not settings.retraining.window_statistics
        assert settings.finetuning.augmentation.style == 0
        assert 0 in (
            settings.retraining.augmentation.style,
            settings.retraining.augmentation.strength,
        )
        read_options(settings.retraining)
        check_patch(settings.retraining.patch, settings.retraining)
        STRATEGIES[settings.finetuning.strategy].Options(**settings.finetuning.options)
    for figures in configuration.published.values():
        assert set(figures) <= set(configuration.labeled)
        assert all(10 < dice < 100 for dice in figures.values())


@pytest.mark.parametrize(
    ("name", "side", "pixels"),
    [("la2018", 9, 1008)] + [(n, 10, 960) for n in ("brats2019", "btcv", "mact", "abdomenct1k")],
)
def test_crops_fill_the_published_grid(
    published: ModuleType, name: str, side: int, pixels: int, tmp_path: Path
) -> None:
    """METHODS 1.3: d = ceil(sqrt(slices)) cells a side, of the crop's own size."""
    settings = load_settings(str(published.load_configuration(name).write_preset(tmp_path)))
    patch = settings.finetuning.patch
    assert patch is not None and patch == settings.retraining.patch
    layout = plan_layout(patch, settings.stitching, 16)
    assert (layout.rows, layout.cols, layout.height, layout.width) == (side, side, pixels, pixels)


def test_what_is_missing_is_said(published: ModuleType, tmp_path: Path) -> None:
    configuration = small(published, "la2018")
    with pytest.raises(InputError, match=r"'train.list' is missing .*--data"):
        configuration.make_project(tmp_path, 1, 0, 0, tmp_path / "project")
    write_lists(configuration, tmp_path, CASES["la2018"][:5])
    with pytest.raises(InputError, match="has 1 cases"):
        configuration.cases(tmp_path)
    with pytest.raises(InputError, match="choose one of abdomenct1k"):
        published.load_configuration("no such")


def test_a_mistake_ends_in_one_sentence(tmp_path: Path) -> None:
    accuracy = [sys.executable, str(BENCHMARKS / "accuracy.py")]
    command = [*accuracy, "run", "--dataset", "nowhere", "--workspace", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == InputError.exit_code
    assert done.stderr.startswith("There is no") and done.stderr.count("\n") == 1


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

    def train(command: list[str], check: bool) -> None:
        ran.append(command[command.index("--run") + 1])
        done = CliRunner().invoke(app, command[3:])
        assert done.exit_code == 0, done.output

    monkeypatch.setattr(accuracy.subprocess, "run", train)
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
    assert accuracy.score_pseudo_labels(project, run, labels) is None
    context = Context(make_accelerator("cpu"), Events(None), Cancellation(tmp_path / "cancel"))
    plan, cases = prepare(project, PreprocessingSettings(), run / "preprocessed", context)
    right, empty = (case for case in cases if case.part == "unlabeled")
    truth = read_labels(next(labels.glob(f"{right.id}.*")), (1, 2), right.source)[0]
    classes = np.arange(3)[:, None, None, None]
    for case, found in (
        (right, Preprocessor(plan).labels(truth)),
        (empty, np.zeros(empty.image.shape)),
    ):
        one_hot = (found == classes).astype(float)
        pseudo = PseudoLabel.of(one_hot, np.ones(found.shape), 1.0)
        (run / "pseudolabels").mkdir(exist_ok=True)
        pseudo.save(run / "pseudolabels" / f"{case.id}.npz")
    scored = accuracy.score_pseudo_labels(project, run, labels)
    assert scored.figures["dice"].mean == pytest.approx(0.5)
    assert (scored.cases, scored.failures) == (2, 1)
