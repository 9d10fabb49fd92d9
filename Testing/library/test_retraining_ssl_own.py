"""What single semi-supervised methods promise beyond what all have to satisfy."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from phantom_crops import MIDDLE, batches, build, settings_of

from SAMSemiSegLib.retraining.ssl.acmt import AmbiguityConsensusMeanTeacher
from SAMSemiSegLib.retraining.ssl.bcp import BidirectionalCopyPaste
from SAMSemiSegLib.retraining.ssl.magicnet import MagicNet
from SAMSemiSegLib.retraining.ssl.method import UnlabeledBatch
from SAMSemiSegLib.training.progress import Progress


@pytest.mark.parametrize("indicator", ["uncertainty", "prototype", "label_error"])
def test_other_indicators_of_acmt_choose_some_voxels(indicator: str) -> None:
    method = build(settings_of("acmt", indicator=indicator, threshold=0.5))
    result = method.step(*batches(0), MIDDLE)
    assert torch.isfinite(result.losses["consistency"])
    assert 0 < result.values["ambiguous_share"] < 1


@pytest.mark.parametrize("channels", [2, 3, 14])
def test_between_two_classes_is_ambiguous_to_acmt_however_many_there_are(channels: int) -> None:
    method = build(settings_of("acmt"), channels)
    assert isinstance(method, AmbiguityConsensusMeanTeacher)
    sure, between = torch.zeros(channels), torch.zeros(channels)
    sure[:2], between[:2] = torch.tensor([0.98, 0.02]), torch.tensor([0.45, 0.55])
    student = torch.stack([sure, between]).T.view(1, channels, 2, 1, 1)
    images = embedding = torch.zeros(1, 1, 2, 1, 1)
    found = method._ambiguous(UnlabeledBatch(images), student, student, embedding, MIDDLE)
    assert found.flatten().tolist() == [False, True]


def test_label_errors_of_acmt_are_the_students_by_the_teachers_word() -> None:
    method = build(settings_of("acmt", indicator="label_error"))
    assert isinstance(method, AmbiguityConsensusMeanTeacher)
    student = torch.tensor([[0.9, 0.6, 0.3], [0.1, 0.4, 0.7]]).view(1, 2, 3, 1, 1)
    teacher = torch.tensor([[0.9, 0.1, 0.2], [0.1, 0.9, 0.8]]).view(1, 2, 3, 1, 1)
    images = embedding = torch.zeros(1, 1, 3, 1, 1)
    # The student labels 0, 0, 1; by the teacher t_0 = 0.5 and t_1 = 0.8: voxel 2 is surely 1.
    found = method._ambiguous(UnlabeledBatch(images), student, teacher, embedding, MIDDLE)
    assert found.flatten().tolist() == [False, True, False]


def test_the_teacher_of_ict_sees_one_crop_at_a_time() -> None:
    """With batch norm, what it says of one would depend on the other."""
    method = build(settings_of("ict"))
    seen: list[torch.Tensor] = []
    method.ema_net().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[union-attr]
    _, unlabeled = batches(0)
    method.step(batches(0)[0], unlabeled, MIDDLE)
    assert [len(crops) for crops in seen] == [1, 1]
    assert torch.equal(torch.cat(seen), unlabeled.image)


def test_every_crop_takes_part_in_ict() -> None:
    method = build(settings_of("ict"))
    seen: list[torch.Tensor] = []
    method.ema_net().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[union-attr]
    labeled, unlabeled = batches(0)
    three = torch.cat([unlabeled.image, batches(1)[1].image[:1]])
    method.step(labeled, UnlabeledBatch(three), MIDDLE)
    assert torch.equal(torch.cat(seen), three[[0, 1, 1, 2]])


@pytest.mark.parametrize(("name", "weight"), [("mean_teacher", 0.1), ("dtc", 1.0)])
def test_full_weight_of_consistency_is_the_papers(name: str, weight: float) -> None:
    method = build(settings_of(name))
    values = method.step(*batches(0), Progress(99, 99)).values
    assert values["consistency_weight"] == pytest.approx(weight)


def test_magicnet_counts_classes_from_its_first_step() -> None:
    """Beginning with equal frequencies, rare classes would for long be blended like frequent."""
    method = build(settings_of("magicnet", noise=0.0, blending_start=1.0))
    assert isinstance(method, MagicNet)
    _, unlabeled = batches(0)
    inside = torch.ones_like(unlabeled.pseudo_hard, dtype=torch.bool)  # type: ignore[arg-type]
    inside[:, :, :10] = False
    unlabeled = replace(unlabeled, inside=inside)
    shares = []
    for step in (1, 2):
        with torch.no_grad():
            said = method.teacher(unlabeled.image).argmax(1)[inside]
        shares.append(torch.stack([(said == 0).float().mean(), (said == 1).float().mean()]))
        method.step(batches(0)[0], unlabeled, MIDDLE)
        expected = shares[0] if step == 1 else 0.95 * shares[0] + 0.05 * shares[1]
        assert torch.allclose(method.frequencies, expected, atol=1e-6)
        with torch.no_grad():  # another teacher
            method.teacher.head.bias += torch.tensor([0.1, -0.1])


def test_bcp_asks_the_teacher_where_no_pseudo_label_takes_part() -> None:
    method = build(settings_of("bcp", target="pseudo_label", largest_component=False))
    assert isinstance(method, BidirectionalCopyPaste)
    _, unlabeled = batches(0)
    stored = torch.full_like(unlabeled.pseudo_hard, 1)  # type: ignore[arg-type]
    batch = replace(unlabeled, pseudo_hard=stored, selected=torch.tensor([True, False]))
    torch.manual_seed(0)
    found = method._targets(batch)
    torch.manual_seed(0)
    theirs = method._targets(replace(batch, pseudo_hard=None))
    assert (found[0] == 1).all() and torch.equal(found[1], theirs[1])
    assert not (theirs == 1).all()


def test_self_training_begins_anew_with_the_same_weights_in_all_processes() -> None:
    """Each process draws from a generator of its own within a step."""
    methods = [build(settings_of("self_training", reset=True)) for _ in range(2)]
    first = copy.deepcopy(methods[0].state_dict())
    for seed, method in enumerate(methods):
        torch.manual_seed(seed)
        method.after_step(Progress(32, 99))  # the last step of the first of three rounds
    one, two = (method.state_dict() for method in methods)
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert not torch.equal(*(s["student.encoder.stage1.0.weight"] for s in (first, one)))
