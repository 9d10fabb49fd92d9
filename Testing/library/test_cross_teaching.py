"""ECT-3DMedSAM: propagation, kept embeddings, cross teaching, prediction."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from SAMSemiSegLib.errors import Cancelled
from SAMSemiSegLib.finetuning.adapters.freeze import count_trainable
from SAMSemiSegLib.finetuning.agreement import agreement
from SAMSemiSegLib.finetuning.cross_teaching.embedding_cache import EmbeddingCache
from SAMSemiSegLib.finetuning.cross_teaching.propagation import Propagation
from SAMSemiSegLib.finetuning.strategies.ect import ECTStrategy
from SAMSemiSegLib.finetuning.strategy import Sample
from SAMSemiSegLib.foundation.model import FOUNDATION
from SAMSemiSegLib.run.settings import PseudoLabelSettings, StitchingSettings
from SAMSemiSegLib.training.progress import Progress

TINY = ("sam_vit_tiny_random", "lite_tiny_random")


def build(
    foundation: str = "lite_tiny_random", channels: int = 3, **options: object
) -> ECTStrategy:
    torch.manual_seed(5)
    chosen = ECTStrategy.Options(**{"upscale": 1, "window": 3, "rank": 4, "reach": 2, **options})
    stitching = StitchingSettings(max_pixels=1 << 16)
    return ECTStrategy(FOUNDATION[foundation].build(), channels, stitching, chosen)


def ball(
    shape: tuple[int, int, int] = (20, 18, 8), name: str = "a", variant: int | None = 0
) -> Sample:
    """Two nested balls in noise, with an ignored slice."""
    axes = [torch.linspace(-1, 1, n) for n in shape]
    radius = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()
    labels = (radius < 0.8).to(torch.uint8) + (radius < 0.4).to(torch.uint8)
    image = labels.float() + 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    if shape[2] > 1:
        labels[..., 0] = 255
    return Sample(name, (image - image.mean()) / image.std(), labels, variant)


def hidden(name: str = "u", variant: int | None = 0) -> Sample:
    return replace(ball(name=name, variant=variant), labels=None)


def open_gates(module: Propagation) -> Propagation:
    """As training might leave it: no longer near its start."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def test_propagation_leaves_a_constant_sequence_unchanged() -> None:
    torch.manual_seed(0)
    module = open_gates(Propagation(channels=6, hidden=4, reach=3))
    one = torch.randn(1, 6, 5, 7)
    for length in (1, 2, 9):
        sequence = one.expand(length, -1, -1, -1)
        assert torch.equal(module(sequence), sequence)


def test_propagation_carries_an_object_both_ways_and_no_farther_than_it_reaches() -> None:
    torch.manual_seed(0)
    module = open_gates(Propagation(channels=6, hidden=4, reach=3))
    sequence = torch.zeros(11, 6, 4, 4)
    sequence[5, :, 1, 2] = 1
    found = module(sequence)[:, :, 1, 2].mean(1)
    assert (found[2:9] > 0).all() and (found[:2] == 0).all() and (found[9:] == 0).all()
    assert found[5] > found[4] > found[3] > found[2] and found[5] > found[6] > found[7] > found[8]
    assert module(sequence)[:, :, 0, 0].abs().max() == 0  # local in the plane too
    # Always between the smallest and the largest neighbor: nothing is invented.
    noise = torch.randn(9, 6, 4, 4)
    result = module(noise)
    assert (result >= noise.amin(0) - 1e-6).all() and (result <= noise.amax(0) + 1e-6).all()


def test_propagation_in_windows_is_exact() -> None:
    torch.manual_seed(0)
    module = open_gates(Propagation(channels=6, hidden=4, reach=2))
    sequence = torch.randn(10, 6, 3, 3)
    torch.testing.assert_close(module(sequence)[4:7], module(sequence[2:9])[2:5])


def test_cache_computes_each_slice_once_and_stays_within_its_limit(tmp_path: Path) -> None:
    asked: list[int] = []

    def compute(missing: Sequence[int]) -> Tensor:
        asked.extend(missing)
        return torch.stack([torch.full((4, 2, 3), 10.0 + i) for i in missing])

    volume = 2 * 6 * 24
    cache = EmbeddingCache(tmp_path / "kept", 2 * volume)
    first = cache.get("a", 6, [1, 2], compute)
    assert torch.equal(cache.get("a", 6, [1, 2, 3], compute)[:2], first)
    assert asked == [1, 2, 3] and cache.computed == 3
    assert first[:, 0, 0, 0].tolist() == [11, 12]
    cache.get("b", 6, [0], compute)
    cache.get("a", 6, [1], compute)  # b is now the one used longest ago
    cache.get("c", 6, [0], compute)
    assert cache.size == 2 * volume and len(list((tmp_path / "kept").iterdir())) == 2
    cache.get("a", 6, [1], compute)
    assert asked == [1, 2, 3, 0, 0]
    cache.get("b", 6, [0], compute)
    assert asked == [1, 2, 3, 0, 0, 0]
    cache.get(None, 6, [4], compute)
    assert EmbeddingCache(tmp_path / "tiny", 10).get("a", 6, [5], compute).shape == (1, 4, 2, 3)
    cache.close()
    assert list((tmp_path / "kept").iterdir()) == [] and not (tmp_path / "tiny").exists()


@pytest.mark.parametrize("system", ["reserves", "does not"])
def test_a_full_disk_keeps_no_embeddings_and_stops_nobody(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if system == "reserves":
        monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    else:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    cache = EmbeddingCache(tmp_path / "kept", 10**6)
    found = cache.get("a", 6, [1, 2], lambda missing: torch.ones(len(missing), 4, 2, 3))
    assert found.shape == (2, 4, 2, 3)
    kept = list((tmp_path / "kept").iterdir())
    assert len(kept) == (system == "does not") and bool(cache.size) == bool(kept)


def test_evicted_embeddings_come_back_the_same() -> None:
    kept, forgetful = build(TINY[0]), build(TINY[0], cache_gigabytes=0)
    for strategy in (kept, forgetful):
        strategy.eval()
    for _ in range(2):
        one, other = (s._embeddings(ball(), range(2, 5), "strong") for s in (kept, forgetful))
        assert torch.equal(one, other)
    assert kept.cache.computed == 3 and forgetful.cache.computed == 6
    weak = kept._embeddings(ball(), range(2, 5), "weak")
    assert not torch.allclose(weak, one, atol=1e-2)
    kept._embeddings(ball(variant=1), range(2, 5), "weak")
    assert kept.cache.computed == 9


def test_strong_views_are_drawn_in_full_precision() -> None:
    """Steps run under bf16 on some processors; the bias field failed there."""
    half, full = build(TINY[0]).eval(), build(TINY[0]).eval()
    for variant in range(6):
        with torch.autocast("cpu", torch.bfloat16):
            one = half._embeddings(ball(variant=variant), [2], "strong")
        other = full._embeddings(ball(variant=variant), [2], "strong")
        torch.testing.assert_close(one.float(), other.float(), atol=0.1, rtol=0.1)


def test_the_decoders_begin_apart_and_sure_of_nothing() -> None:
    """SAM's own tokens answered every class with the same confident mask, in both decoders."""
    strategy = build().eval()
    target, (weak, _) = strategy.draw_window(ball())
    one, two = (strategy.decode(i, weak, target).softmax(1) for i in (0, 1))
    assert (one - two).abs().mean() > 0.01
    assert one.max() < 0.9


@pytest.mark.parametrize("foundation", TINY)
def test_training_lowers_the_loss_by_lora_alone(foundation: str) -> None:
    strategy = build(foundation).train()
    trained = {k for k, p in strategy.named_parameters() if p.requires_grad}
    assert all("lora_" in k or "mask_tokens" in k or "propagation" in k for k in trained)
    assert not any("image_encoder" in k or "prompt_encoder" in k for k in trained)
    before = {k: v.clone() for k, v in strategy.state_dict().items() if k not in trained}
    optimizer = torch.optim.AdamW([p for p in strategy.parameters() if p.requires_grad], 5e-3)
    losses = []
    for i in range(16):
        torch.manual_seed(7)
        terms = strategy.step([ball()], [hidden()], Progress(i, 16))
        assert set(terms) == {"supervised", "cross"}
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        losses.append(float(terms["supervised"].detach()))
    assert losses[-1] < 0.9 * losses[0]
    after = strategy.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert strategy.cache.computed == 4 * 3  # two volumes, two views, three slices; never again


def test_number_of_trained_parameters() -> None:
    """Rank 16, two decoders of SAM's size, two classes; published are 0.94 M."""
    with torch.device("meta"):
        model = FOUNDATION["lite_medsam"].build()
    model = model.to_empty(device="cpu")
    strategy = ECTStrategy(model, 2, StitchingSettings(), ECTStrategy.Options())
    decoder = 16 * (20_992 + 2 * (512 + 512 + 288))
    sweep = 2 * 256 * 16 + 16 + 16 * 256 + 256
    assert count_trainable(strategy) == 2 * (decoder + 2 * 256) + 2 * sweep


def test_swapping_the_decoders_swaps_the_roles() -> None:
    strategy = build().eval()
    torch.manual_seed(1)
    target, (weak, strong) = strategy.draw_window(ball())

    def losses() -> list[float]:
        terms = strategy.decode(0, weak, target), strategy.decode(1, strong, target)
        return [float(strategy.loss(logits, target).detach()) for logits in terms]

    before, taught = losses(), float(strategy.cross_teaching(target, (weak, strong)).detach())
    strategy.sam.decoder, strategy.second = strategy.second, strategy.sam.decoder
    weak, strong = strong, weak
    assert losses() == before[::-1]
    weak, strong = strong, weak
    # Cross teaching is symmetric: swapping both decoders changes nothing.
    again = float(strategy.cross_teaching(target, (weak, strong)).detach())
    assert again == pytest.approx(taught, abs=1e-6)


def test_no_gradient_goes_into_a_pseudo_label() -> None:
    strategy = build()
    target, (weak, strong) = strategy.draw_window(hidden())
    weak = weak.detach().requires_grad_()
    strong = strong.detach().requires_grad_()
    strategy.cross_teaching(target, (weak, strong)).backward()
    assert weak.grad is None and strong.grad is not None


@pytest.mark.parametrize("foundation", TINY)
@pytest.mark.parametrize(("channels", "depth"), [(2, 8), (14, 5), (2, 1)])
def test_prediction_lies_on_the_volumes_grid(foundation: str, channels: int, depth: int) -> None:
    strategy = build(foundation, channels).eval()
    sample = ball((20, 18, depth))
    assert sample.labels is not None
    sample.labels[sample.labels == 2] = min(2, channels - 1)
    assert strategy.step([sample], [], Progress(0, 1))["supervised"].isfinite()
    found = strategy.predict(sample.image, PseudoLabelSettings(axes=(0, 2), offsets=2))
    assert found.probabilities.shape == (channels, *sample.image.shape)
    torch.testing.assert_close(found.probabilities.sum(0), torch.ones_like(sample.image))
    assert found.agreement is not None and found.agreement.shape == sample.image.shape


def test_prediction_does_not_depend_on_the_window() -> None:
    image = ball().image
    one, other = (
        build(window=window).eval().predict(image, PseudoLabelSettings()).probabilities
        for window in (3, 8)
    )
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_agreement_is_the_overlap() -> None:
    p = torch.tensor([[1.0, 0.5, 0.2], [0.0, 0.5, 0.8]])
    q = torch.tensor([[0.0, 0.5, 0.6], [1.0, 0.5, 0.4]])
    torch.testing.assert_close(agreement(p, q), torch.tensor([0.0, 1.0, 0.6]))


def test_a_resumed_run_gives_the_same_weights_and_leaves_no_embeddings(
    tmp_path: Path, weights_after: Callable[..., dict[str, Tensor]]
) -> None:
    def finetuned(folder: Path, **stop: int) -> dict[str, Tensor]:
        others = [hidden(f"u{i}") for i in range(2)]
        return weights_after(8, build(variants=2), [ball()], others, folder, **stop)

    whole = finetuned(tmp_path / "whole")
    with pytest.raises(Cancelled):
        finetuned(tmp_path / "parts", checks=4)
    resumed = finetuned(tmp_path / "parts")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["checkpoint.pt"]


def test_few_labeled_volumes_have_the_more_augmentations(
    tmp_path: Path,
    weights_after: Callable[..., dict[str, Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strategy = build(variants=3)
    seen: dict[str, set[int | None]] = {}

    def step(labeled: Sequence[Sample], unlabeled: Sequence[Sample], progress: Progress) -> object:
        for sample in (*labeled, *unlabeled):
            seen.setdefault(sample.id, set()).add(sample.variant)
        weight = next(p for p in strategy.parameters() if p.requires_grad)
        return {"supervised": weight.sum()}

    monkeypatch.setattr(strategy, "step", step)
    weights_after(40, strategy, [ball()], [hidden("u0"), hidden("u1")], tmp_path)
    assert seen == {"a": {0, 1, 2}, "u0": {0, 1}, "u1": {0, 1}}
