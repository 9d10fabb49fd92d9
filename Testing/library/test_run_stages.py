"""What the order of the stages makes of the cases: runs within this process."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import ndimage

from SAMSemiSegLib.augmentation.style import StyleExchange
from SAMSemiSegLib.errors import Cancelled, InputError
from SAMSemiSegLib.evaluation.metrics import compare_labels
from SAMSemiSegLib.evaluation.scores import Scores
from SAMSemiSegLib.export.predictor import Predictor
from SAMSemiSegLib.finetuning.stage import build_strategy
from SAMSemiSegLib.finetuning.strategy import FinetuningStrategy, Prediction
from SAMSemiSegLib.preprocessing.preprocessor import Preprocessor
from SAMSemiSegLib.preprocessing.stage import PreparedCase
from SAMSemiSegLib.project.label_set import LabelSet
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.pseudolabels.pseudo_label import PseudoLabel
from SAMSemiSegLib.retraining.crops import CropSampler
from SAMSemiSegLib.retraining.inference import predict_probabilities
from SAMSemiSegLib.retraining.selection import Decision
from SAMSemiSegLib.retraining.stage import load_net
from SAMSemiSegLib.run.events import read_events
from SAMSemiSegLib.run.folder import RunFolder
from SAMSemiSegLib.run.presets import load_settings
from SAMSemiSegLib.run.selection import ConfidentCase
from SAMSemiSegLib.run.settings import AugmentationSettings
from SAMSemiSegLib.run.start import start
from SAMSemiSegLib.volumes.reading import read_image, read_labels

pytestmark = pytest.mark.usefixtures("run_here")


@pytest.fixture
def project(seven_phantoms: Project) -> Project:
    return seven_phantoms


def run(project: Project, *assignments: str) -> tuple[RunFolder, Scores]:
    """A run with the preset ``tiny`` and these settings, nothing exported unless they say so."""
    folder = RunFolder(project.folder / "runs" / "a")
    scores = start(project, folder, load_settings("tiny", ["export=[]", *assignments]))
    assert scores is not None
    return folder, scores


def test_the_table_the_proposals_and_the_model_are_predicted_alike(project: Project) -> None:
    """All 3 look at several sizes and are cleaned; the pseudo-labels have settings of their own."""
    folder, _ = run(
        project,
        "pseudolabels.largest_component=false",
        "retraining.largest_component=true",
        "retraining.scales=[0.6,1]",
        # A net that has learned next to nothing sees its labels everywhere.
        "retraining.budget.steps=1",
        "mixed_precision=no",
        'export=["torchscript"]',
    )
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


def test_labels_that_nobody_has_drawn_are_named_once(project: Project) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "stage" and event["stage"] == "finetuning":
            raise Cancelled

    told = []
    for name, labels in (("a", "head=1,tail=2"), ("b", "head=1,Cyst=9,tail=2,Stone=10")):
        project.label_set = LabelSet.parse(labels)
        folder = RunFolder(project.folder / "runs" / name)
        with pytest.raises(Cancelled):
            start(project, folder, load_settings("tiny"), listener=stop)
        told.append([e["message"] for e in read_events(folder.events) if e["kind"] == "warning"])
    assert told[0] == [] and len(told[1]) == 1
    assert "No labeled case holds 'Cyst', 'Stone' " in told[1][0] and "draw them" in told[1][0]


def test_a_warm_start_begins_re_training_and_shares_in_the_pseudo_labels(project: Project) -> None:
    folder, scores = run(
        project,
        "retraining.warm_start.steps=3",
        # With no further step re-training ends where it began.
        "retraining.learning_rate=0",
        "retraining.net.norm=instance",
        "pseudo_label_scores=false",
        "pseudolabels.vnet_share=1",
    )
    assert scores.row_names == ["warm start", "re-trained"]
    warm_dice, last_dice = (
        [row.metrics.dice for row in scores.of(name)] for name in scores.row_names
    )
    assert warm_dice == last_dice and len(last_dice) == 4
    warm, last = (load_file(folder / n / "net.safetensors") for n in ("warm-start", "retraining"))
    assert all(torch.equal(tensor, last[name]) for name, tensor in warm.items())
    with pytest.raises(InputError, match=r"retraining\.warm_start\.minutes"):
        load_settings("tiny", ["pseudolabels.vnet_share=0.5"])


def test_with_a_whole_share_the_pseudo_labels_are_the_v_nets(project: Project) -> None:
    plain = ["pseudolabels.largest_component=false", "pseudolabels.fill_holes=false"]
    share = ["pseudolabels.vnet_share=1", "retraining.warm_start.steps=3", "mixed_precision=no"]
    folder, _ = run(project, *plain, *share, "pseudo_label_scores=false")
    settings = load_settings("tiny").retraining
    warm = load_net(folder / "warm-start", 3, settings)
    stored = sorted((folder / "pseudolabels").glob("*.npz"))
    assert len(stored) == 3
    for path in stored:
        image = torch.from_numpy(np.load(folder / "preprocessed" / path.stem / "image.npy"))
        found = predict_probabilities(warm.net, image, warm.patch, settings.overlap)
        assert (PseudoLabel.load(path).hard == found.argmax(0).numpy()).mean() > 0.99


def test_boxes_are_drawn_by_the_warm_start_around_whole_labels(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe of the presets ``quick`` and ``balanced``, with few steps."""
    built: list[FinetuningStrategy] = []

    def build(*given: Any) -> FinetuningStrategy:
        built.append(build_strategy(*given))
        return built[-1]

    monkeypatch.setattr("SAMSemiSegLib.run.pipeline.build_strategy", build)
    boxes = ["finetuning.strategy=box", "finetuning.options.side=64"]
    warm = ["retraining.warm_start.steps=3", "pseudolabels.vnet_share=0.5"]
    folder, scores = run(project, *boxes, *warm)
    assert scores.row_names == ["warm start", "pseudo-labels", "re-trained"]
    assert len(list((folder / "pseudolabels").glob("*.npz"))) == 3
    assert built[0].guide is not None
    assert list(built[0].whole) == [1, 2]  # the phantoms' labels are in one piece


def test_the_moving_average_is_the_result_where_it_is_asked_for(project: Project) -> None:
    folder, _ = run(
        project,
        "retraining.method=mean_teacher",
        "retraining.final_model=ema",
        "retraining.options.warm_start=0.2",
        "retraining.pseudo_label_mode=off",
    )
    result = load_file(folder / "retraining" / "net.safetensors")
    trained = torch.load(folder / "retraining" / "checkpoint.pt", weights_only=True)["module"]
    name = "encoder.stage1.0.weight"
    assert torch.equal(result[name], trained[f"method.teacher.{name}"])
    assert not torch.equal(result[name], trained[f"method.student.{name}"])


@pytest.mark.parametrize(("method", "seen"), [("supervised", 2), ("mean_teacher", 5)])
def test_a_warm_start_sees_the_unlabeled_volumes_where_its_method_learns_from_them(
    project: Project, monkeypatch: pytest.MonkeyPatch, method: str, seen: int
) -> None:
    learned_from: list[int] = []

    class Recording(CropSampler):
        def __init__(self, cases: Sequence[Any], *rest: Any) -> None:
            super().__init__(cases, *rest)
            learned_from.append(len(cases))

    monkeypatch.setattr("SAMSemiSegLib.retraining.stage.CropSampler", Recording)
    first = ["retraining.warm_start.steps=2", f"retraining.warm_start.method={method}"]
    # With no further step re-training ends where it began.
    folder, _ = run(project, *first, "retraining.learning_rate=0", "retraining.net.norm=instance")
    assert learned_from == [seen, 5]
    warm, last = (load_file(folder / n / "net.safetensors") for n in ("warm-start", "retraining"))
    assert all(torch.equal(tensor, last[name]) for name, tensor in warm.items())


def test_supervised_training_sees_no_unlabeled_volume_and_the_warm_start_sees_their_style(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row "supervised only" would not be what it says."""
    donors: list[set[str]] = []

    class Recording(StyleExchange):
        def __init__(self, settings: AugmentationSettings, scans: Sequence[Any]) -> None:
            super().__init__(settings, scans)
            donors.append({getattr(scan, "case", scan).id for scan in scans})

    monkeypatch.setattr("SAMSemiSegLib.retraining.stage.StyleExchange", Recording)
    run(
        project,
        "supervised_baseline=true",
        "retraining.warm_start.steps=1",
        "retraining.budget.steps=1",
        "pseudo_label_scores=false",
    )
    labeled = {case.id for case in project.labeled}
    everything = labeled | {case.id for case in project.unlabeled}
    assert donors == [labeled, everything, everything]


@pytest.mark.parametrize(("by_window", "norm"), [("true", "instance"), ("false", "batch")])
def test_the_norm_of_the_result_is_in_its_file_and_on_its_card(
    project: Project, by_window: str, norm: str
) -> None:
    folder, _ = run(
        project,
        f"retraining.window_statistics={by_window}",
        "retraining.pseudo_label_mode=off",
        "retraining.method=supervised",
        'export=["bundle"]',
    )
    weights = load_file(folder / "retraining" / "net.safetensors")
    assert any("running_mean" in name for name in weights) == (norm == "batch")
    settings = load_settings("tiny", []).retraining
    again = load_net(folder / "retraining", 3, settings)
    assert again.net.settings.norm == norm and settings.net.norm == "batch"
    predictor = Predictor.load(folder / "model", "cpu")
    assert predictor.card.net == again.net.settings
    window = torch.randn(1, 1, 32, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(predictor.net(window), again.net(window))


@pytest.mark.parametrize("method", ["supervised", "mean_teacher"])
def test_of_many_unlabeled_volumes_some_get_pseudo_labels_and_all_are_segmented(
    project: Project, method: str
) -> None:
    folder, _ = run(project, "pseudolabels.most=2", f"retraining.method={method}")
    unlabeled = {case.id for case in project.unlabeled}
    written = {path.stem for path in (folder / "pseudolabels").glob("*.npz")}
    assert len(unlabeled) == 3 and len(written) == 2 and written < unlabeled
    assert {
        path.name.split(".")[0] for path in (folder / "proposals").glob("*.seg.nrrd")
    } == unlabeled
    told = [event.get("message", "") for event in read_events(folder.events)]
    assert any("2 of 3 unlabeled volumes" in message for message in told)


def test_pseudo_labels_that_cannot_be_right_take_no_part(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that has learned too little names nothing: the V-Net must not learn that from it."""

    def see_nothing(strategy: object, image: torch.Tensor, settings: object) -> Prediction:
        probabilities = torch.zeros(3, *image.shape)
        probabilities[0] = 1
        return Prediction(probabilities)

    monkeypatch.setattr("SAMSemiSegLib.pseudolabels.make.predict_volume", see_nothing)
    settings = ["pseudolabels.leave_out_implausible=true", "retraining.method=supervised"]
    folder, scores = run(project, *settings)
    told = [e["message"] for e in read_events(folder.events) if e["kind"] == "warning"]
    assert any("3 of 3 pseudo-labels cannot be right" in message for message in told)
    assert scores.row_names == ["pseudo-labels", "re-trained"]
    alone = RunFolder(project.folder / "runs" / "alone")
    off = ["export=[]", *settings, "retraining.pseudo_label_mode=off"]
    start(project, alone, load_settings("tiny", off))
    one, other = (load_file(f / "retraining" / "net.safetensors") for f in (folder, alone))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_rounds_of_selection_judge_every_volume(project: Project) -> None:
    """SFR+: each volume is judged, and the reason is kept; few steps leave most of them empty."""
    quantile = "retraining.selection.mode=quantile"
    folder, _ = run(project, "retraining.pseudo_label_mode=selected", quantile)
    decisions = json.loads((folder / "round-1" / "selection.json").read_text())
    assert len(decisions) == 3
    for case_id, decision in decisions.items():
        assert (folder / "round-1" / "labels" / f"{case_id}.npy").exists()
        assert decision["reason"]


@pytest.mark.parametrize("sure", [0, 1, 3])
def test_a_round_is_made_where_some_volumes_are_confident_and_others_not(
    sure: int, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would have nothing to do, which is told, with the settings that decide."""

    def select(evidence: dict[str, object], *_: object) -> dict[str, Decision]:
        return {id: Decision(i < sure, 0.9, "By hand.") for i, id in enumerate(evidence)}

    monkeypatch.setattr("SAMSemiSegLib.run.selection.select", select)
    selected = ["retraining.pseudo_label_mode=selected", "retraining.selection.rounds=1"]
    folder, scores = run(project, *selected)
    warnings = [e["message"] for e in read_events(folder.events) if e["kind"] == "warning"]
    told = [w for w in warnings if "retraining.selection.threshold" in w]
    rows = ["pseudo-labels", "re-trained"]
    if sure == 1:
        assert scores.row_names == [*rows, "pseudo-labels (round 1)", "re-trained (round 1)"]
        assert json.loads(folder.manifest.read_text())["net"].startswith("round-1")
        assert not told
    else:
        assert scores.row_names == rows
        assert not (folder / "round-1" / "finetuning").exists()
        assert len(told) == 1 and told[0].startswith("All volumes" if sure else "No volume")
        assert json.loads(folder.manifest.read_text())["net"] == "retraining/net.safetensors"


def test_confident_volumes_teach_the_foundation_model_and_get_no_pseudo_label(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tiny networks are never sure of is decided by hand: all but the last volume."""
    taught: list[list[str]] = []

    def choose(cases: list[PreparedCase], *_: object) -> dict[str, ConfidentCase]:
        sure = [case for case in cases if case.part == "unlabeled"][:-1]
        for case in sure:
            np.save(tmp_path / f"{case.id}.npy", np.ones(case.image.shape, np.uint8))
        return {case.id: ConfidentCase(case, tmp_path / f"{case.id}.npy") for case in sure}

    def fine_tune(
        strategy: object, labeled: list[PreparedCase], unlabeled: list[PreparedCase], *_: object
    ) -> None:
        taught.append([case.id for case in labeled])

    monkeypatch.setattr("SAMSemiSegLib.run.pipeline.choose_confident", choose)
    monkeypatch.setattr("SAMSemiSegLib.run.pipeline.finetune", fine_tune)
    folder, _ = run(
        project, "retraining.pseudo_label_mode=selected", "retraining.selection.rounds=1"
    )
    labeled, unlabeled = (["phantom_001", "phantom_002"], [f"phantom_00{n}" for n in (3, 4, 5)])
    assert taught == [labeled, [*labeled, *unlabeled[:-1]]]
    for place, expected in (("", unlabeled), ("round-1", unlabeled[-1:])):
        made = (folder / place / "pseudolabels").glob("*.npz")
        assert sorted(path.stem for path in made) == expected


def test_online_alternation_is_one_setting(project: Project) -> None:
    folder, scores = run(
        project,
        "finetuning.patch=[16,16,8]",
        "retraining.pseudo_label_mode=selected",
        "retraining.selection.alternation=online",
    )
    assert scores.row_names == ["pseudo-labels", "re-trained"]
    assert not (folder / "round-1").exists()
    values = [e.get("values", {}) for e in read_events(folder.events)]
    assert any("crop_confidence" in value for value in values)
    # One crop a step is judged, from a quarter of the run on; the report draws them.
    steps = load_settings("tiny").retraining.budget.steps
    judged = json.loads((folder / "retraining" / "crops.json").read_text())
    assert len(judged) == steps - math.ceil(steps / 4)
    assert f"The last {len(judged)} crops" in (folder / "report.html").read_text(encoding="utf-8")
    kept = torch.load(folder / "retraining" / "checkpoint.pt", weights_only=True)
    assert kept["module"]["foundation"]
