"""CPC-SAM and CPAC-SAM: decoders, roles, views, whole runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from SAMSemiSegLib.errors import Cancelled
from SAMSemiSegLib.finetuning.adapters.freeze import count_trainable
from SAMSemiSegLib.finetuning.cross_prompting.prompts import Points
from SAMSemiSegLib.finetuning.cross_prompting.strategy import (
    CrossPrompting,
    Seen,
    pseudo_label,
)
from SAMSemiSegLib.finetuning.likeness import Likeness
from SAMSemiSegLib.finetuning.stitched import StitchedStrategy
from SAMSemiSegLib.finetuning.strategy import STRATEGIES, Sample
from SAMSemiSegLib.foundation.model import FOUNDATION
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.pseudolabels.make import make_pseudo_label
from SAMSemiSegLib.run.events import read_events
from SAMSemiSegLib.run.settings import PseudoLabelSettings, StitchingSettings
from SAMSemiSegLib.training.progress import Progress

TINY = ("sam_vit_tiny_random", "lite_tiny_random")
METHODS = ("cpc", "cpac")
VIEWS = ("stitched", "slices")


def build(
    name: str = "cpac", foundation: str = "lite_tiny_random", channels: int = 3, **options: object
) -> CrossPrompting:
    torch.manual_seed(5)
    entry = STRATEGIES[name]
    chosen = entry.Options(**{"start": 0.0, "upscale": 1, **options})
    model = FOUNDATION[foundation].build()
    strategy = entry(model, channels, StitchingSettings(max_pixels=1 << 16), chosen)
    assert isinstance(strategy, CrossPrompting)
    return strategy


def ball(shape: tuple[int, int, int] = (20, 18, 5), name: str = "ball", classes: int = 2) -> Sample:
    """Nested balls in noise, with an ignored slice."""
    axes = [torch.linspace(-1, 1, n) for n in shape]
    radius = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()
    labels = ((1 - radius).clamp(0, 0.999) * (classes + 1)).to(torch.uint8)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(len(name)))
    image = labels.float() + 0.1 * noise
    if min(shape) > 1:
        labels[..., 0] = 255
    return Sample(name, (image - image.mean()) / image.std(), labels)


def hidden(sample: Sample) -> Sample:
    return Sample("hidden", sample.image.flip(0))


@pytest.mark.parametrize("foundation", TINY)
def test_an_answer_does_not_depend_on_how_many_points_others_have(foundation: str) -> None:
    strategy = build(foundation=foundation).eval()
    few = Points(torch.tensor([[2, 3], [9, 4]]), torch.tensor([0, 1]))
    many = Points(torch.randint(0, 60, (40, 2)), torch.randint(0, 3, (40,)))
    embedding = strategy.encode(torch.randn(2, 1, 64, 64), 1)
    for decoder in (0, 1):
        alone = strategy.decode(decoder, embedding[:1], (64, 64), [few])
        together = strategy.decode(decoder, embedding, (64, 64), [few, many])
        torch.testing.assert_close(alone, together[:1], atol=1e-4, rtol=1e-3)
        unprompted = strategy.decode(decoder, embedding[:1], (64, 64))
        assert (alone - unprompted).abs().max() > 1e-3
        torch.testing.assert_close(
            unprompted, strategy.decode(decoder, embedding, (64, 64))[:1], atol=1e-4, rtol=1e-3
        )


def test_added_upscaling_leaves_the_spread_of_the_logits() -> None:
    """With PyTorch's own start the first logits of a SAM were next to constant."""
    spreads = []
    for foundation in TINY:
        strategy = build(foundation=foundation)
        with torch.no_grad():
            embedding = torch.randn(1, 256, 4, 4)
            logits = strategy.decode(0, embedding, (64, 64))
        spreads.append(float(logits.flatten(2).std(2).mean()))
    assert min(spreads) > max(spreads) / 4


def test_a_dense_and_a_sparse_set_stay_apart_and_an_absent_class_has_no_point() -> None:
    strategy = build("cpac", channels=14, view="slices", max_points=14 * 40).eval()
    labels = torch.zeros(1, 96, 96, dtype=torch.uint8)
    labels[0, 10:80, 10:80] = 5
    seen = Seen(labels, torch.randn(1, 256, 6, 6), (torch.zeros(1, 14, 96, 96),) * 2)
    coarse = torch.full((1, 96, 96), 9)
    few, many = strategy.point_sets(seen, coarse, None)
    assert set(few[0].classes.tolist()) == {0, 5}  # not 9, which the coarse answer names
    for name in (0, 5):
        sparse, dense = (int((p[0].classes == name).sum()) for p in (few, many))
        assert 3 * sparse < dense <= 40


@pytest.mark.parametrize("foundation", TINY)
@pytest.mark.parametrize("name", METHODS)
def test_logits_are_as_large_as_the_canvas(name: str, foundation: str) -> None:
    strategy = build(name, foundation)
    embedding = strategy.encode(torch.randn(1, 1, 64, 96), 1)
    decoder = strategy.sam.decoder
    places = strategy.sam.foundation.position_encoding(*embedding.shape[-2:])
    assert decoder(embedding, places, torch.zeros(256)).shape == (1, 3, 64, 96)
    one, other = (strategy.decode(i, embedding, (64, 96)) for i in (0, 1))
    assert not torch.allclose(one, other, atol=1e-3)  # differently initialized


@pytest.mark.parametrize(
    ("name", "view", "foundation"),
    [
        ("cpc", "stitched", TINY[0]),
        ("cpc", "slices", TINY[1]),
        ("cpac", "stitched", TINY[1]),
        ("cpac", "slices", TINY[0]),
    ],
)
def test_training_lowers_the_loss_on_one_labeled_volume(
    name: str, view: str, foundation: str
) -> None:
    strategy = build(name, foundation, view=view, slices=3).train()
    optimizer = torch.optim.AdamW([p for p in strategy.parameters() if p.requires_grad], 3e-3)
    losses = []
    for i in range(8):
        torch.manual_seed(7)
        terms = strategy.step([ball()], [hidden(ball())], Progress(i, 8))
        assert set(terms) == {"supervised", "prompted", "cross", "consistency"}
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        losses.append(float(terms["supervised"].detach() + terms["prompted"].detach()))
    assert losses[-1] < 0.93 * losses[0]
    assert count_trainable(strategy.sam.foundation.image_encoder) > 0
    unused = [k for k, p in strategy.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("channels", "shape"), [(2, (24, 20, 6)), (14, (24, 20, 6))])
def test_few_and_many_classes_and_2d(view: str, channels: int, shape: tuple[int, int, int]) -> None:
    for size in (shape, (24, 20, 1)):
        strategy = build(channels=channels, view=view).train()
        sample = ball(size, classes=channels - 1)
        terms = strategy.step([sample], [hidden(sample)], Progress(1, 2))
        assert all(term.isfinite() for term in terms.values())
        prediction = strategy.eval().predict(sample.image, PseudoLabelSettings(offsets=1))
        assert prediction.probabilities.shape == (channels, *size)
        torch.testing.assert_close(prediction.probabilities.sum(0), torch.ones(size))


def test_prompts_lie_in_cells_and_in_agreed_regions() -> None:
    strategy = build("cpac", densities=(2, 4)).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        truth, other = strategy.see(ball()), strategy.see(hidden(ball()))
        coarse = other.logits[0].argmax(1).masked_fill(~other.valid, 255)
        few, many = strategy.point_sets(other, coarse, strategy.prototypes([truth]))
        labeled, _ = strategy.point_sets(truth, coarse, None)
    for canvas in (few[0], many[0]):
        rows, columns = canvas.places.T
        assert other.valid[0, rows, columns].all()  # not in margins or blank cells
        assert torch.equal(coarse[0, rows, columns].long(), canvas.classes)
    assert len(many[0].places) >= len(few[0].places) > 0
    rows, columns = labeled[0].places.T
    assert torch.equal(truth.target[0, rows, columns].long(), labeled[0].classes)


@pytest.mark.parametrize("name", METHODS)
def test_swapping_the_decoders_swaps_the_roles(name: str) -> None:
    strategy = build(name).eval()

    def rounds(prompter: int) -> dict[str, float]:
        torch.manual_seed(3)
        truths, others = [strategy.see(ball())], [strategy.see(hidden(ball()))]
        prototypes = strategy.prototypes(truths)
        terms = strategy.round(truths, others, prototypes, prompter)
        return {key: float(term.detach()) for key, term in terms.items()}

    before = rounds(0), rounds(1)
    assert before[0] != before[1]
    strategy.sam.decoder, strategy.second = strategy.second, strategy.sam.decoder
    assert (rounds(1), rounds(0)) == before


def test_no_gradient_goes_into_a_pseudo_label() -> None:
    answers = [torch.randn(1, 3, 8, 8, requires_grad=True) for _ in range(2)]
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    valid[:, 0] = False
    found = pseudo_label(answers, valid)
    assert not found.requires_grad and (found[:, 0] == 255).all() and (found[:, 1:] < 3).all()
    # The cross term alone reaches the prompting decoder, not the one it prompted.
    strategy = build(consistency_weight=0.0)
    truths, others = [strategy.see(ball())], [strategy.see(hidden(ball()))]
    strategy.round(truths, others, strategy.prototypes(truths), 1)["cross"].backward()
    assert all(p.grad is None for p in strategy.sam.decoder.parameters())
    assert any(p.grad is not None for p in strategy.second.parameters())
    assert strategy.points.table.weight.grad is None


def test_unsupervised_terms_begin_at_their_share() -> None:
    for name, early in (("cpac", {"supervised", "prompted"}), ("cpc", {"supervised"})):
        strategy = build(name, start=0.5)
        samples = [ball()], [hidden(ball())]
        assert set(strategy.step(*samples, Progress(4, 10))) == early
        assert "cross" in strategy.step(*samples, Progress(5, 10))
        assert "cross" not in strategy.step(samples[0], [], Progress(5, 10))


@pytest.mark.parametrize("view", VIEWS)
def test_prediction_is_the_mean_of_both_and_confidence_their_agreement(view: str) -> None:
    strategy = build(view=view).eval()
    image = ball().image
    found = strategy.predict(image, PseudoLabelSettings(axes=(0, 2), offsets=1))
    assert found.agreement is not None and found.agreement.shape == image.shape
    assert found.agreement.min() >= 0 and found.agreement.max() < 1
    alike = build(view=view).eval()
    alike.second = alike.sam.decoder
    same = alike.predict(image, PseudoLabelSettings(offsets=1)).agreement
    torch.testing.assert_close(same, torch.ones_like(image))
    assert make_pseudo_label(found, PseudoLabelSettings(), ["a", "b"]).confidence.max() < 1


@pytest.mark.parametrize(
    ("name", "options", "pixels"),
    [
        ("lora", {}, 1 << 16),
        ("lora", {}, 2500),
        ("cpc", {"view": "slices"}, 1 << 16),
        ("ect", {}, 1 << 16),
    ],
)
def test_likeness_to_the_labeled_volume_trusts_what_looks_like_its_class(
    name: str, options: dict[str, object], pixels: int
) -> None:
    entry = STRATEGIES[name]
    torch.manual_seed(0)
    model = FOUNDATION["sam_vit_tiny_random"].build()
    stitching = StitchingSettings(max_pixels=pixels)
    strategy = entry(model, 3, stitching, entry.Options(upscale=1, **options)).eval()
    assert isinstance(strategy, StitchedStrategy)
    # In place of random features: the gray value itself, in a direction of its own.
    angle = ("encode", lambda canvas, factor: torch.cat([canvas.cos(), canvas.sin()], 1))
    setattr(strategy, *angle)
    sample = ball()
    assert sample.labels is not None
    truth = sample.labels.long()
    truth[truth == 255] = 0
    likeness = Likeness.of(strategy, [sample])
    right = torch.nn.functional.one_hot(truth, 3).movedim(-1, 0).float()
    inner = (slice(None), slice(None), slice(1, None))
    good = likeness.agreement(sample.image, right)[inner]
    assert good.shape == truth[inner].shape and good.mean() > 0.9
    assert likeness.agreement(sample.image, right.roll(1, 0))[inner].mean() < 0.1


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_run_gives_the_same_weights(
    name: str, tmp_path: Path, weights_after: Callable[..., dict[str, Tensor]]
) -> None:
    def finetuned(folder: Path, **stop: int) -> dict[str, Tensor]:
        others = [Sample(f"u{i}", ball(name=f"u{i}").image) for i in range(2)]
        return weights_after(3, build(name), [ball()], others, folder, **stop)

    whole = finetuned(tmp_path / "whole")
    with pytest.raises(Cancelled):
        finetuned(tmp_path / "parts", checks=2)
    resumed = finetuned(tmp_path / "parts")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    assert not any("patch_embed" in key for key in whole)


def test_a_whole_run_by_the_command(
    tmp_path: Path, phantom_project: Callable[..., Project]
) -> None:
    project = phantom_project(tmp_path, 4, 1, 1, shape=(32, 32, 16))
    command = [sys.executable, "-m", "SAMSemiSegLib", "train", str(project.folder), "--run", "a"]
    command += ["--device", "cpu", "--preset", "tiny", "--set", "finetuning.strategy=cpac"]
    command += ["--set", "finetuning.options.view=slices", "--set", "export=[]"]
    command += ["--set", "pseudolabels.prototype_agreement=true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    run = project.folder / "runs" / "a"
    told = [e for e in read_events(run / "events.jsonl") if e["stage"] == "finetuning"]
    assert any("cross" in event.get("values", {}) for event in told)
    assert len(list((run / "pseudolabels").glob("*.npz"))) == 2
    assert (run / "report.html").is_file()
