"""What every semi-supervised method has to satisfy."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from phantom_crops import MIDDLE, PATCH, batches, build, build_small, phantom, settings_of

from SAMSemiSegLib.retraining.crops import CropSampler
from SAMSemiSegLib.retraining.pseudo_label_term import PseudoLabelTerm
from SAMSemiSegLib.retraining.ssl.method import METHODS
from SAMSemiSegLib.retraining.student import adapt_settings
from SAMSemiSegLib.retraining.teacher import ema_alpha
from SAMSemiSegLib.retraining.vnet import VNet
from SAMSemiSegLib.run.settings import NetSettings, RetrainingSettings, Size3
from SAMSemiSegLib.training.progress import Progress

ALL = list(METHODS)
UNLABELED = [name for name in ALL if METHODS[name].uses_unlabeled]


def train(term: PseudoLabelTerm, size: Size3, kept: list, first: int, total: int) -> list:
    """As the training loop does it: a step's randomness is seeded by the step. Returns the state in
    the middle, to go on from."""
    optimizer = torch.optim.AdamW([p for p in term.parameters() if p.requires_grad], 1e-2)
    if kept:
        term.load_state_dict(kept[0])
        optimizer.load_state_dict(kept[1])
    term.train()
    for step in range(first, total):
        if step == total // 2:
            kept = copy.deepcopy([term.state_dict(), optimizer.state_dict()])
        progress = Progress(step, total)
        torch.manual_seed(step)
        result = term.step(*batches(step, size=size), progress)
        optimizer.zero_grad()
        torch.stack(list(result.losses.values())).sum().backward()
        optimizer.step()
        term.after_step(progress)
    return kept


@pytest.mark.parametrize("channels", [2, 14])
@pytest.mark.parametrize("name", ALL)
def test_losses_are_finite_and_teachers_get_no_gradient(name: str, channels: int) -> None:
    method, size = build_small(name, channels)
    result = method.step(*batches(0, channels, size), MIDDLE)
    assert "supervised" in result.losses
    if METHODS[name].uses_unlabeled:
        assert "consistency" in result.losses
    total = torch.stack(list(result.losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    student = method.final_net()
    assert all(p.grad is not None for p in student.head.parameters())
    for teacher in (method.ema_net(), getattr(method, "labeler", None)):
        if teacher is not None:
            assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    if result.unlabeled_logits is not None:
        assert result.unlabeled_logits.shape == (2, channels, *size)


@pytest.mark.parametrize("doubting", ["acmt", "fixmatch", "self_training"])
def test_labels_and_doubts_leave_the_statistics_of_batch_norm_alone(doubting: str) -> None:
    """Those of a step are what the passes that are trained on have seen."""
    settings = settings_of(doubting, **({"indicator": "uncertainty"} if doubting == "acmt" else {}))
    settings.net = NetSettings(width=2, norm="batch", dropout=0)
    method = build(settings)
    seen: list[torch.Tensor] = []

    def count(module: torch.nn.Module, *_: object) -> None:
        if module.training and module.momentum:  # type: ignore[operator]
            seen.append(module.running_mean)  # type: ignore[arg-type]

    norms = [m for m in method.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    for norm in norms:
        norm.register_forward_hook(count)
    method.step(*batches(0), MIDDLE)
    student = method.final_net()
    own = [m for m in student.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    # Two passes: of the labeled and of the unlabeled crops.
    assert len(seen) == 2 * len(own)
    assert all(norm.momentum for norm in own)


@pytest.mark.parametrize("name", UNLABELED)
def test_weight_zero_is_supervised_training(name: str) -> None:
    """The same gradients, hence the same weights, with batch norm and dropout too."""

    def gradients(settings: RetrainingSettings) -> list[torch.Tensor]:
        settings.net = NetSettings(width=2, norm="batch")
        if name == "magicnet":  # its network has neither batch norm nor dropout
            settings.net = NetSettings(width=2, norm="group", dropout=0)
        method = build(settings)
        torch.manual_seed(1)
        losses = method.step(*batches(0), MIDDLE).losses
        torch.stack(list(losses.values())).sum().backward()
        net = method.final_net()
        return [p.grad for p in net.parameters() if p.grad is not None]

    plain = gradients(settings_of("supervised"))
    ours = gradients(settings_of(name, consistency_weight=0.0))
    assert len(plain) == len(ours)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, ours, strict=True))


@dataclass
class Volume:
    image: np.ndarray
    labels: np.ndarray | None = None
    pseudo_label: None = None
    selected: bool = True


@pytest.mark.parametrize("name", ALL)
def test_one_labeled_volume_is_enough(name: str) -> None:
    """A method that wants two labeled entries gets two crops of the one volume."""
    image, labels = phantom(0, size=(48, 48, 48))
    volumes = [Volume(image[0, 0].numpy(), labels[0].numpy())]
    volumes += [Volume(image[1, 0].numpy()) for _ in range(2)]
    wanted = settings_of(name).model_copy(update={"labeled_batch": 1, "unlabeled_batch": 1})
    settings, notes = adapt_settings(wanted, 1, 2)
    sampler = CropSampler(volumes, PATCH, settings)
    labeled, unlabeled = sampler.draw(np.random.default_rng(0))
    crops = METHODS[name].needs.labeled_batch
    assert len(labeled.image) == crops and len(labeled.image.flatten(1).unique(dim=0)) == crops
    assert crops == 1 or any("of 1 labeled case" in note for note in notes)
    method = build(settings)
    for progress in (Progress(0, 100), MIDDLE):
        losses = method.step(labeled, unlabeled, progress).losses
        assert torch.isfinite(torch.stack(list(losses.values())).sum())


@pytest.mark.parametrize("name", UNLABELED)
def test_without_unlabeled_crops_it_is_supervised(name: str) -> None:
    method = build(settings_of(name))
    losses = method.step(batches(0)[0], None, MIDDLE).losses
    assert set(losses) <= {"supervised", "supervised_peer"}


@pytest.mark.parametrize("name", ALL)
def test_solves_the_phantom_and_a_killed_run_ends_at_the_same_weights(name: str) -> None:
    total = 24
    settings = RetrainingSettings(pseudo_label_mode="off")
    method, size = build_small(name)
    term = PseudoLabelTerm(method, settings)
    kept = train(term, size, [], 0, total)

    again = PseudoLabelTerm(build_small(name, seed=7)[0], settings)
    train(again, size, kept, total // 2, total)
    resumed = again.state_dict()
    assert all(torch.equal(value, resumed[key]) for key, value in term.state_dict().items())

    image, labels = phantom(999, size=size)
    net = term.final_net().eval()
    with torch.no_grad():
        found = net(image).argmax(1) == 1
    truth = labels == 1
    dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert dice > 0.85


def test_moving_average_in_closed_form() -> None:
    """Mean over the first steps, then exponential: α = min(1 - 1/(it+1), 0.99)."""
    assert [ema_alpha(i, 0.99) for i in (-1, 0, 1, 3)] == [0, 0, 0.5, 0.75]
    assert ema_alpha(1000, 0.99) == 0.99
    settings = settings_of("mean_teacher", warm_start=0.2)
    settings.net.norm = "batch"
    method = build(settings)
    name = "encoder.stage1.0.weight"
    statistic = "encoder.stage1.1.running_mean"
    seen, seen_statistics = [], []
    for step in range(8):
        with torch.no_grad():
            for value in method.student.state_dict().values():
                if value.is_floating_point():
                    value.normal_()
        method.step(
            *batches(0), Progress(step, 10)
        )  # moves the student's statistics, not the teacher's
        method.after_step(Progress(step, 10))
        seen.append(method.student.state_dict()[name].clone())
        seen_statistics.append(method.student.state_dict()[statistic].clone())
    teacher = method.ema_net().state_dict()
    # Warm start: steps 0 and 1. From step 2 on α = 0, 1/2, 2/3, ...: the mean of what was seen.
    assert torch.allclose(teacher[name], torch.stack(seen[2:]).mean(0), atol=1e-6)
    assert torch.allclose(teacher[statistic], torch.stack(seen_statistics[2:]).mean(0), atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_every_method_takes_pseudo_labels(name: str) -> None:
    """SFR of any method: one more term, which reaches the student; SFR+ leaves crops out of it."""
    method, size = build_small(name)
    labeled, unlabeled = batches(0, size=size)
    for mode, chosen in (("on", [False, False]), ("selected", [True, False])):
        settings = RetrainingSettings(pseudo_label_mode=mode)
        batch = replace(unlabeled, selected=torch.tensor(chosen))
        result = PseudoLabelTerm(method, settings).step(labeled, batch, MIDDLE)
        assert "supervised" in result.losses
        share = result.values["pseudo_label_share"]
        assert share == (1.0 if mode == "on" else 0.5)
        result.losses["pseudo_label"].backward()
        assert all(p.grad is not None for p in method.final_net().head.parameters())
        method.zero_grad()


@pytest.mark.parametrize("name", ["mean_teacher", "cps", "dtc", "cct"])
def test_a_warm_start_reaches_student_and_teacher_and_no_second_student(name: str) -> None:
    method, _ = build_small(name)
    trained = VNet(2, NetSettings(width=4, norm="group"))
    method.begin_from(trained.state_dict())
    weight = trained.encoder.stage1[0].weight
    nets = {n: m for n, m in method.named_modules() if isinstance(m, VNet)}
    same = {n: torch.equal(m.encoder.stage1[0].weight, weight) for n, m in nets.items()}
    assert same.pop("peer", False) is False and all(same.values())
    for decoder in getattr(method, "auxiliary", []):
        assert torch.equal(decoder.head.weight, trained.head.weight)


def test_a_teacher_that_has_learned_is_asked_from_the_first_step() -> None:
    first = Progress(0, 100)
    for options, cold, warm in (({}, 0.0, 0.1), ({"warm_start": 0.2}, 0.0, 0.0)):
        method = build(settings_of("mean_teacher", ramp=0.0, **options))
        assert method.weight(first) == cold  # type: ignore[operator]
        method.begin_from(method.final_net().state_dict())
        assert method.weight(first) == warm  # type: ignore[operator]


@pytest.mark.parametrize("name", UNLABELED)
def test_what_lies_beyond_a_volume_teaches_nothing(name: str) -> None:
    """Of no network: the augmentation has made it up."""
    method = build(settings_of(name, **({"threshold": 0.0} if name == "fixmatch" else {})))
    labeled, unlabeled = batches(0)
    inside = torch.ones_like(labeled.labels, dtype=torch.bool)
    inside[:, :, :10] = False
    labeled = replace(labeled, labels=labeled.labels.masked_fill(~inside, 255))
    seen: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        seen.append(output)

    for place, module in method.named_modules():
        if place.split(".")[-1] == "head":
            module.register_forward_hook(keep)
    loss = method.step(labeled, replace(unlabeled, inside=inside), MIDDLE).losses["consistency"]
    answers = [logits for logits in seen if logits.requires_grad]
    gradients = torch.autograd.grad(loss, answers, allow_unused=True)
    taught = [gradient for gradient in gradients if gradient is not None]
    assert taught and any(gradient.any() for gradient in taught)
    for gradient in taught:
        assert not gradient[:, :, :, :10].any()


@pytest.mark.parametrize("name", UNLABELED)
def test_crops_without_a_voxel_of_their_volume_have_a_loss_all_the_same(name: str) -> None:
    """A volume of one slice, shifted out of view: the mean over no voxel is 0."""
    method = build(settings_of(name))
    labeled, unlabeled = batches(0)
    nowhere = torch.zeros_like(labeled.labels, dtype=torch.bool)
    result = method.step(labeled, replace(unlabeled, inside=nowhere), MIDDLE)
    figures = [loss.item() for loss in result.losses.values()] + list(result.values.values())
    assert np.isfinite(figures).all()
