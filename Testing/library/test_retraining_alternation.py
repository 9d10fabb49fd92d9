"""SFR+ online: confident crops teach the foundation model, the others get its label."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from SAMSemiSegLib.errors import Cancelled, InputError
from SAMSemiSegLib.finetuning.strategy import FinetuningStrategy, Prediction, Sample
from SAMSemiSegLib.finetuning.windows import predict_volume
from SAMSemiSegLib.retraining import stage
from SAMSemiSegLib.retraining.alternation import OnlineAlternation
from SAMSemiSegLib.retraining.pseudo_label_term import PseudoLabelTerm
from SAMSemiSegLib.retraining.selection import Shape
from SAMSemiSegLib.retraining.ssl.method import LabeledBatch, UnlabeledBatch
from SAMSemiSegLib.retraining.ssl.supervised import Supervised
from SAMSemiSegLib.run.cancellation import Cancellation
from SAMSemiSegLib.run.events import Events
from SAMSemiSegLib.run.presets import load_settings
from SAMSemiSegLib.run.settings import PseudoLabelSettings, RunSettings
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.devices import make_accelerator
from SAMSemiSegLib.training.losses import IGNORE, segmentation_loss
from SAMSemiSegLib.training.progress import Progress

SIZE = (8, 8, 8)
LATER = Progress(60, 100)


class Net(nn.Module):
    """Two classes by the gray value: sure where it is far from 0."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([-self.scale * image, self.scale * image], 1)


class Strategy(FinetuningStrategy):
    """Calls everything background or foreground by one trainable number; another one takes no part.
    Notes what it is taught."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.bias = nn.Parameter(torch.tensor(-1.0))
        self.idle = nn.Parameter(torch.tensor(1.0))
        self.taught: list[Sample] = []

    def step(
        self, labeled: Sequence[Sample], unlabeled: Sequence[Sample], progress: Progress
    ) -> dict[str, Tensor]:
        self.taught += labeled
        return {"supervised": (self.bias - 1).square()}

    def predict(self, image: Tensor, settings: PseudoLabelSettings) -> Prediction:
        foreground = torch.sigmoid(self.bias + 0 * image)
        return Prediction(torch.stack([1 - foreground, foreground]))


def ball(value: float) -> Tensor:
    """(1, X, Y, Z): ``value`` in a ball, ``-value`` outside."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(8.0),) * 3, indexing="ij"))
    inside = (grid - 3.5).square().sum(0) <= 9
    return torch.where(inside, value, -value)[None]


def make(tmp_path: Path, **changes: Any) -> OnlineAlternation:
    settings = RunSettings()
    settings.retraining.pseudo_label_mode = "selected"
    settings.retraining.selection.online_learning_rate = 0.1
    for name, value in changes.items():
        setattr(settings.retraining, name, value)
    method = Supervised(Net, 2, Supervised.Options())
    context = Context(
        make_accelerator("cpu", "no"), Events(None, ()), Cancellation(tmp_path / "cancel", False), 1
    )
    known = [Shape.of((ball(1.0)[0] > 0).numpy().astype(np.uint8), 2)]
    term = PseudoLabelTerm(method, settings.retraining)
    return OnlineAlternation(term, Strategy(), known, ["ball"], settings, context)


@pytest.fixture
def batches() -> tuple[LabeledBatch, UnlabeledBatch]:
    """The second unlabeled crop is too faint to be sure of, the third is empty and so all sure."""
    labels = (ball(1.0) > 0).to(torch.uint8)
    images = torch.stack([ball(2.0), ball(0.1), torch.full((1, *SIZE), -2.0)])
    stored = torch.ones(3, *SIZE, dtype=torch.uint8)
    confidence = torch.full((3, *SIZE), 0.25)
    return LabeledBatch(ball(2.0)[None], labels), UnlabeledBatch(images, stored, None, confidence)


def test_confident_crops_teach_and_the_others_are_labeled(
    tmp_path: Path, batches: tuple[LabeledBatch, UnlabeledBatch]
) -> None:
    labeled, unlabeled = batches
    alternation = make(tmp_path)
    strategy = alternation.strategy
    assert isinstance(strategy, Strategy)
    alternation.step(labeled, unlabeled, Progress(24, 100))
    assert not strategy.taught and strategy.bias == -1  # before online_start nothing is judged

    result = alternation.step(labeled, unlabeled, LATER)
    # A name of its own in each step: a strategy may draw its views of a crop by it.
    assert [sample.id for sample in strategy.taught] == [
        "crop 0 of step 60",
        "labeled 0 of step 60",
    ]
    # Its label is the net's own answer (eq. 8's argmax).
    assert strategy.taught[0].labels is not None
    assert torch.equal(strategy.taught[0].labels, (unlabeled.image[0, 0] > 0).byte())
    assert result.values["confident_share"] == pytest.approx(1 / 3)
    # AdamW's first step is the learning rate, 0.1·0.4^0.9 (and a little weight decay).
    assert strategy.bias.item() == pytest.approx(-1 + 0.1 * 0.4**0.9, rel=0.05)

    # Crops 1 and 2: "background" with p = sigmoid(1) = 0.731, so confidence 2·0.731 - 1 = 0.462,
    # in place of the stored label; crop 0 takes no part.
    logits = alternation.term.final_net()(unlabeled.image[1:])
    target = torch.zeros(2, *SIZE, dtype=torch.uint8)
    expected = segmentation_loss(logits, target, torch.full((2, *SIZE), 118 / 255))
    assert torch.allclose(result.losses["pseudo_label"], expected, atol=1e-4)
    assert (unlabeled.pseudo_hard == 1).all()  # the batch that came is left alone

    alternation.step(labeled, unlabeled, Progress(61, 100))
    assert len({sample.seed for sample in strategy.taught}) == len(strategy.taught) == 4


def test_the_judge_is_not_changed_by_judging(
    tmp_path: Path, batches: tuple[LabeledBatch, UnlabeledBatch]
) -> None:
    alternation = make(tmp_path)
    net = alternation.term.final_net()
    net.before = nn.Sequential(nn.BatchNorm3d(1), nn.Dropout(0.5))
    net.register_forward_pre_hook(lambda module, inputs: (module.before(inputs[0]),))
    alternation.term.train()
    known = copy.deepcopy(net.state_dict())
    first, again = (np.stack(alternation._answers(batches[1].image)) for _ in range(2))
    assert np.array_equal(first, again)  # no dropout
    assert all(torch.equal(value, known[name]) for name, value in net.state_dict().items()
               if "num_batches" not in name)  # fmt: skip
    assert all(module.training for module in alternation.term.modules())
    assert net.scale.grad is None


def test_what_is_outside_of_the_volume_neither_counts_nor_teaches(
    tmp_path: Path, batches: tuple[LabeledBatch, UnlabeledBatch]
) -> None:
    labeled, unlabeled = batches
    assert unlabeled.pseudo_hard is not None
    unlabeled.image[0, :, :, :, 4:] = 0.05  # unsure there
    unlabeled.pseudo_hard[0, :, :, 4:] = IGNORE
    alternation = make(tmp_path)
    # Half of a ball is as good as a whole one here.
    alternation.selection.smallest = 0.1
    alternation.step(labeled, unlabeled, LATER)
    crop = alternation.strategy.taught[0]  # type: ignore[union-attr]
    assert crop.id.startswith("crop 0") and crop.labels is not None
    assert (crop.labels[:, :, 4:] == IGNORE).all() and (crop.labels[:, :, :4] != IGNORE).all()


def test_a_volume_without_part_neither_learns_nor_teaches(
    tmp_path: Path, batches: tuple[LabeledBatch, UnlabeledBatch]
) -> None:
    """As one whose stored pseudo-label cannot be right; a new one would be no better."""
    labeled, unlabeled = batches
    assert unlabeled.pseudo_hard is not None
    unlabeled.pseudo_hard[1] = IGNORE
    alternation = make(tmp_path)
    result = alternation.step(labeled, unlabeled, LATER)
    assert result.values["pseudo_label_share"] == pytest.approx(1 / 3)  # the third crop alone
    assert "crop 1 of step 60" not in {s.id for s in alternation.strategy.taught}  # type: ignore[union-attr]
    assert len(alternation.judged) == 2 and result.values["confident_share"] == 0.5
    nothing = UnlabeledBatch(unlabeled.image)
    joined: list[int] = []
    alternation._train_foundation = lambda samples, progress: joined.append(len(samples))  # type: ignore[method-assign]
    assert "pseudo_label" not in alternation.step(labeled, nothing, LATER).losses
    assert joined == [0]  # where other processes have samples, this one takes part


def test_the_v_net_has_its_share_in_the_labels_of_crops(
    tmp_path: Path, batches: tuple[LabeledBatch, UnlabeledBatch]
) -> None:
    """ "Background" with p = 0.731 and the V-Net's sure foreground: 0.5·0.269 + 0.5 = 0.634."""
    alternation = make(tmp_path)
    alternation.labeling.vnet_share = 0.5
    alternation.strategy.guide = lambda image: torch.stack([0 * image, 0 * image + 1])
    found = alternation._pseudo_label(batches[1].image[1, 0])
    assert (found.hard == 1).all()
    assert found.probabilities[1].mean() == pytest.approx(0.634, abs=0.01)


def test_what_a_crop_cuts_in_two_keeps_both_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = RunSettings()
    settings.pseudolabels.largest_component = True
    monkeypatch.setattr(f"{__name__}.RunSettings", lambda: settings)
    alternation = make(tmp_path)
    arms = torch.zeros(2, *SIZE)
    arms[1, :3, 2:6, 2:6] = arms[1, 6:, 2:6, 2:6] = 1
    arms[0] = 1 - arms[1]
    monkeypatch.setattr(alternation.strategy, "predict", lambda *_: Prediction(arms))
    found = alternation._pseudo_label(ball(1.0)[0])
    assert np.array_equal(found.hard, arms[1].numpy())


def test_state_goes_on_to_the_same_weights(
    tmp_path: Path, batches: tuple[LabeledBatch, UnlabeledBatch]
) -> None:
    first, second = make(tmp_path), make(tmp_path)
    for step in (50, 51):
        first.step(*batches, Progress(step, 100))
    second.step(*batches, Progress(50, 100))  # as when steps are timed before a run goes on
    second.load_state(copy.deepcopy(first.state()))
    assert list(second.judged) == list(first.judged)
    for alternation in (first, second):
        alternation.step(*batches, Progress(52, 100))
    biases = [a.strategy.bias for a in (first, second)]  # type: ignore[union-attr]
    assert torch.equal(*biases)


def test_what_a_step_does_not_use_decays_as_with_several_processes(
    tmp_path: Path, batches: tuple[LabeledBatch, UnlabeledBatch]
) -> None:
    """With several its gradient is the mean of zeros, not missing; AdamW tells the two apart."""
    alternation = make(tmp_path)
    strategy = alternation.strategy
    assert isinstance(strategy, Strategy)
    alternation.step(*batches, LATER)
    rate = 0.1 * (1 - LATER.fraction) ** 0.9
    assert strategy.taught and strategy.idle.item() == pytest.approx(1 - 0.1 * rate)


def test_no_confident_crop_means_no_step(
    tmp_path: Path, batches: tuple[LabeledBatch, UnlabeledBatch]
) -> None:
    labeled, unlabeled = batches
    alternation = make(tmp_path)
    faint = UnlabeledBatch(unlabeled.image[1:], unlabeled.pseudo_hard[1:])  # type: ignore[index]
    alternation.step(labeled, faint, LATER)
    assert not alternation.strategy.taught and alternation.strategy.bias == -1  # type: ignore[union-attr]


def test_a_crop_without_a_stored_label_gets_one_but_not_outside_of_its_volume(
    tmp_path: Path, batches: tuple[LabeledBatch, UnlabeledBatch]
) -> None:
    labeled, unlabeled = batches
    stored = torch.zeros(3, *SIZE, dtype=torch.uint8)
    stored[:, :3] = IGNORE
    for target in ("hard", "soft"):
        alternation = make(tmp_path, pseudo_label_target=target)
        result = alternation.step(labeled, UnlabeledBatch(unlabeled.image, stored), LATER)
        # Crops 1 and 2 of three, 5 of their 8 planes.
        assert result.values["pseudo_label_share"] == pytest.approx(2 / 3 * 5 / 8)
        assert 0 < result.losses["pseudo_label"] < 10


def test_windows_cover_the_volume() -> None:
    """A prediction that depends on the voxel alone is the same in windows as at once."""

    class ByVoxel(Strategy):
        def predict(self, image: Tensor, settings: PseudoLabelSettings) -> Prediction:
            if self.window is not None:  # an axis that is shorter than the window is not padded
                assert image.shape == (8, 7, 8)
            foreground = torch.sigmoid(image)
            return Prediction(torch.stack([1 - foreground, foreground]), foreground)

    strategy, image = ByVoxel(), torch.randn(11, 7, 13)
    whole = predict_volume(strategy, image, PseudoLabelSettings())
    strategy.window = (8, 8, 8)
    found = predict_volume(strategy, image, PseudoLabelSettings())
    assert torch.allclose(found.probabilities, whole.probabilities, atol=1e-5)
    assert found.agreement is not None and whole.agreement is not None
    assert torch.allclose(found.agreement, whole.agreement, atol=1e-5)


def test_a_quantile_of_single_crops_is_refused() -> None:
    plain = ["retraining.selection.alternation=online", "retraining.selection.mode=quantile"]
    with pytest.raises(InputError, match="needs mode=threshold"):
        load_settings("tiny", plain)


@pytest.mark.parametrize("online", [False, True])
def test_online_volumes_without_a_stored_label_are_drawn_by_any_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online: bool
) -> None:
    """Supervised training too, whose pseudo-labels may be of so many volumes only."""
    drawn: list[str] = []

    def sampler(cases: list[stage.RetrainingCase], *_: object) -> None:
        drawn.extend(case.case.id for case in cases)
        raise Cancelled

    monkeypatch.setattr(stage, "CropSampler", sampler)
    image = np.zeros(SIZE, np.float32)
    parts = {"a": "labeled", "b": "unlabeled", "c": "unlabeled", "d": "unlabeled"}
    cases = [
        SimpleNamespace(id=id, part=part, image=image, labels=None) for id, part in parts.items()
    ]
    settings = RunSettings()
    settings.retraining.method = "supervised"
    settings.retraining.patch = (32, 32, 32)
    context = Context(make_accelerator("cpu"), Events(None), Cancellation(tmp_path / "cancel"))
    with pytest.raises(Cancelled):
        stage.retrain(
            cases,  # type: ignore[arg-type]
            {"b": tmp_path / "b.npz"},
            2,
            settings,
            tmp_path,
            context,
            (1, 1, 1),
            selected={"d": False},
            foundation=object() if online else None,  # type: ignore[arg-type]
        )
    assert drawn == (["a", "b", "c"] if online else ["a", "b"])
