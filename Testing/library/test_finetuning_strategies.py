"""Strategies of stage 2: adapters, freezing, the step and the prediction."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.finetuning.adapters.freeze import count_trainable, freeze
from SAMSemiSegLib.finetuning.adapters.houlsby import add_adapters
from SAMSemiSegLib.finetuning.adapters.lora import SplitQKV, add_lora
from SAMSemiSegLib.finetuning.canvases import CanvasStrategy, with_budget
from SAMSemiSegLib.finetuning.replay import Replay
from SAMSemiSegLib.finetuning.sampler import VolumeSampler
from SAMSemiSegLib.finetuning.strategy import STRATEGIES, Sample
from SAMSemiSegLib.foundation.model import FOUNDATION
from SAMSemiSegLib.run.settings import (
    AugmentationSettings,
    FinetuningSettings,
    PseudoLabelSettings,
    StitchingSettings,
)
from SAMSemiSegLib.training.losses import IGNORE
from SAMSemiSegLib.training.progress import Progress

TINY = ("sam_vit_tiny_random", "lite_tiny_random")
STITCHED = ("lora", "decoder", "houlsby")
ALL = (*STITCHED, "head")


def build(
    name: str, foundation: str = "lite_tiny_random", max_pixels: int = 1 << 16, **options: object
) -> CanvasStrategy:
    torch.manual_seed(5)
    entry = STRATEGIES[name]
    strategy = entry(
        FOUNDATION[foundation].build(),
        3,
        StitchingSettings(max_pixels=max_pixels),
        entry.Options(**options),
    )
    assert isinstance(strategy, CanvasStrategy)
    return strategy


def ball(shape: tuple[int, int, int] = (22, 18, 11)) -> Sample:
    """Two nested balls in noise, with an ignored slice."""
    axes = [torch.linspace(-1, 1, n) for n in shape]
    radius = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()
    labels = (radius < 0.8).to(torch.uint8) + (radius < 0.4).to(torch.uint8)
    image = labels.float() + 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    labels[..., 0] = 255
    return Sample("ball", (image - image.mean()) / image.std(), labels)


def test_lora_has_the_papers_number_of_parameters() -> None:
    with torch.device("meta"):
        model = FOUNDATION["sam_vit_b"].build()
        add_lora(model)
    assert count_trainable(model.image_encoder) == 147_456


@pytest.mark.parametrize("name", TINY)
def test_split_qkv_is_exact(name: str) -> None:
    model = FOUNDATION[name].build()
    attention = model.attention_blocks()[-1].attn
    fused = attention.qkv
    split = SplitQKV(fused, attention.num_heads, model.heads_first)
    x = torch.randn(2, 5, fused.in_features)
    torch.testing.assert_close(split(x), fused(x))


@pytest.mark.parametrize("name", TINY)
def test_lora_updates_the_targets_alone(name: str) -> None:
    model = FOUNDATION[name].build().eval()
    attention = model.attention_blocks()[0].attn
    heads = attention.num_heads
    canvas = torch.randn(1, 1, 64, 96)
    x = torch.randn(7, attention.qkv.in_features)
    with torch.no_grad():
        before, plain = model.encode(canvas), attention.qkv(x)
        add_lora(model, rank=2, targets=("q", "v"))
        torch.testing.assert_close(model.encode(canvas), before, atol=1e-5, rtol=1e-4)
        for parameter in model.image_encoder.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
        changed, adapted = model.encode(canvas), attention.qkv(x)
        assert not torch.allclose(changed, before, atol=1e-3)
        per_head = (-1, heads, 3) if model.heads_first else (-1, 3, heads)
        difference = (adapted - plain).view(*per_head, x.shape[-1] // heads).abs()
        by_target = difference.amax((0, 1, 3) if model.heads_first else (0, 2, 3))
        assert by_target[0] > 0 and by_target[1] < 1e-5 and by_target[2] > 0


@pytest.mark.parametrize("name", TINY)
def test_houlsby_starts_as_the_identity(name: str) -> None:
    model = FOUNDATION[name].build().eval()
    canvas = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        before = model.encode(canvas)
        add_adapters(model, 4)
        torch.testing.assert_close(model.encode(canvas), before)
    channels = [block.attn.proj.out_features for block in model.attention_blocks()]
    assert count_trainable(model.image_encoder) == sum(2 * (8 * c + 4 + c) for c in channels)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("foundation", TINY)
def test_training_lowers_the_loss_and_leaves_the_frozen_alone(name: str, foundation: str) -> None:
    strategy = build(name, foundation, upscale=1).train()
    frozen = {k: v.clone() for k, v in strategy.state_dict().items()}
    for k in strategy.trainable_state_dict():
        del frozen[k]
    assert any("running_mean" in k for k in frozen) == (foundation == "lite_tiny_random")
    trained = {k: v.clone() for k, v in strategy.named_parameters() if v.requires_grad}
    optimizer = torch.optim.AdamW([p for p in strategy.parameters() if p.requires_grad], 3e-3)
    losses = []
    for i in range(12):
        torch.manual_seed(i)
        loss = sum(strategy.step([ball()], [], Progress(i, 12)).values())
        assert isinstance(loss, Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]
    after = strategy.state_dict()
    assert all(torch.equal(after[k], v) for k, v in frozen.items())
    moved = [k for k, v in trained.items() if not torch.equal(after[k], v)]
    if name == "head":
        assert moved and all(k.startswith("head.") for k in moved)
        return
    assert any(k.startswith("sam.decoder") for k in moved)
    assert any("no_mask_embed" in k for k in moved)
    assert any("image_encoder" in k for k in moved) == (name != "decoder")


@pytest.mark.parametrize("name", ALL)
def test_trained_state_is_small_and_enough(name: str) -> None:
    one, other = build(name, upscale=1).eval(), build(name, upscale=1).eval()
    with torch.no_grad():
        for parameter in one.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    state = one.trainable_state_dict()
    assert not any("patch_embed" in k or "foundation.mask_decoder" in k for k in state)
    other.load_trainable_state_dict(state)
    image, settings = ball().image, PseudoLabelSettings(offsets=1)
    assert torch.equal(
        one.predict(image, settings).probabilities, other.predict(image, settings).probabilities
    )
    with pytest.raises(InputError, match="do not fit the settings"):
        build("houlsby" if name != "houlsby" else "lora").load_trainable_state_dict(state)


@pytest.mark.parametrize("foundation", TINY)
@pytest.mark.parametrize("max_pixels", [20_000, 6000])
@pytest.mark.parametrize("name", ["decoder", "head"])
def test_prediction_lies_on_the_volumes_grid(name: str, foundation: str, max_pixels: int) -> None:
    """Several axes, offsets and mirrored views; one canvas or slabs."""
    strategy = build(name, foundation, max_pixels).eval()
    strategy.mirror_axes = (0,)
    settings = PseudoLabelSettings(axes=(0, 2), offsets=2, flips=True)
    image = ball().image
    probabilities = strategy.predict(image, settings).probabilities
    assert probabilities.shape == (3, *image.shape)
    torch.testing.assert_close(probabilities.sum(0), torch.ones_like(image))
    settings = PseudoLabelSettings(offsets=1, flips=True)
    probabilities = strategy.predict(image, settings).probabilities
    mirrored = strategy.predict(image.flip(0), settings).probabilities.flip(1)
    torch.testing.assert_close(mirrored, probabilities, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["decoder", "head"])
def test_large_volume_trains_on_slabs(name: str) -> None:
    strategy = build(name, max_pixels=6000).train()
    losses = strategy.step([ball((40, 36, 30)), ball()], [], Progress(0, 1))
    assert losses["supervised"].isfinite() and losses["supervised"].requires_grad


def test_upscale_fills_the_budget() -> None:
    shape = (20, 20, 20)
    for foundation, most in (("lite_tiny_random", 1), ("sam_vit_tiny_random", 4)):
        small = build("decoder", foundation, max_pixels=12_000)
        large = build("decoder", foundation, max_pixels=1 << 20)
        assert small.upscale_factor(shape, small.stitching) == 1
        assert large.upscale_factor(shape, large.stitching) == most
    fixed = build("decoder", upscale=3)
    assert fixed.upscale_factor(shape, fixed.stitching) == 3


def test_all_volumes_are_seen_at_the_scale_of_those_learned_from() -> None:
    strategy = build("decoder", "sam_vit_tiny_random", max_pixels=1 << 17)
    larger = (26, 26, 26)
    assert strategy.upscale_factor((20, 20, 20), strategy.stitching) == 3
    assert strategy.upscale_factor(larger, strategy.stitching) == 2
    strategy.typical_shape = (20, 20, 20)
    assert strategy.upscale_factor(larger, strategy.stitching) == 3
    budget = with_budget(strategy.stitching, 3)
    assert len(strategy.slabs_of(larger, budget, 3, 0)) == 2
    # Of what is far larger, a slice has to fit all the same.
    assert strategy.upscale_factor((240, 240, 9), strategy.stitching) == 1


def test_a_slice_alone_keeps_to_the_pixel_budget() -> None:
    strategy = build("ect", max_pixels=1 << 12, upscale=4)
    with pytest.raises(InputError, match="max_pixels"):
        strategy.slice_canvas((64, 64, 9), strategy.stitching)
    layout, factor = strategy.slice_canvas((16, 16, 9), strategy.stitching)
    assert factor == 4 and 16 * layout.height * layout.width <= 1 << 12


def test_channels_that_no_group_divides_are_refused_before_a_run() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        build("head", width=6)


def test_what_augmentation_moves_into_an_unlabeled_volume_teaches_nothing() -> None:
    @dataclass
    class Case:
        id: str
        image: np.ndarray
        labels: np.ndarray | None

    image = np.random.default_rng(0).normal(size=(24, 24, 20)).astype(np.float32)
    cases = [Case("a", image, np.ones(image.shape, np.uint8)), Case("b", image, None)]
    settings = FinetuningSettings(
        augmentation=AugmentationSettings(affine=1, elastic=0, style=0, strength=2)
    )
    sampler = VolumeSampler(cases[:1], cases[1:], settings, (1, 1, 1), None, 0, "t")
    draws = np.random.default_rng(1)
    batches = [sampler.draw(draws, True) for _ in range(6)]
    outside = [b.unlabeled[0].nothing == IGNORE for b in batches]
    assert sum(bool(o.any()) for o in outside) >= 5
    assert all(
        (b.unlabeled[0].nothing[~o] == 0).all() for b, o in zip(batches, outside, strict=True)
    )
    assert all(b.unlabeled[0].labels is None for b in batches)
    assert (Sample("c", torch.zeros(2, 2, 2)).nothing == 0).all()


def test_many_remembered_canvases_keep_their_order() -> None:
    """By number, not by letters: 1000 comes after 999."""
    replay, other = Replay(), Replay()
    for number in range(1002):
        replay.add({"number": torch.tensor(number)})
    other.load(replay.state(), torch.device("cpu"))
    assert [int(entry["number"]) for entry in other._entries] == list(range(1002))


def test_replay_is_bounded_and_restored() -> None:
    replay = Replay(most_bytes=100)
    for i in range(5):
        replay.add({"embedding": torch.full((10,), float(i))})  # 40 bytes each
    assert len(replay) == 2
    other = Replay()
    rest = other.load(replay.state() | {"weight": torch.zeros(1)}, torch.device("cpu"))
    assert list(rest) == ["weight"] and len(other) == 2
    assert {float(other.draw()["embedding"][0]) for _ in range(20)} == {3.0, 4.0}


@pytest.mark.parametrize("name", ["decoder", "head"])
def test_a_resumed_run_replays_the_same_canvases(name: str) -> None:
    one, other = build(name), build(name)
    one.train().step([ball()], [], Progress(0, 9))
    other.train().load_trainable_state_dict(one.trainable_state_dict())
    torch.manual_seed(3)
    expected = one.step([ball()], [], Progress(1, 9))["supervised"]
    torch.manual_seed(3)
    assert torch.equal(other.step([ball()], [], Progress(1, 9))["supervised"], expected)


@pytest.mark.parametrize("name", ["decoder", "head"])
def test_where_each_sample_counts_none_is_replayed(name: str) -> None:
    """SFR+ online: a step that follows fine-tuning learns from the crop that it is given."""
    strategy = build(name).train()
    strategy.step([ball()], [], Progress(0, 9))
    strategy.take_each_sample()
    empty = replace(ball(), labels=torch.full_like(ball().image, IGNORE).byte())
    for step in (1, 2):
        torch.manual_seed(step)
        assert strategy.step([empty], [], Progress(step, 9))["supervised"] == 0
    assert not any(key.startswith("seen.") for key in strategy.trainable_state_dict())


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    net = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    freeze(net[0])
    strategy = build("decoder")
    strategy.extra = net
    strategy.train()
    assert not net[0].training and net[1].training
    strategy.eval()
    assert not net[1].training


def test_registry_states_its_sources() -> None:
    for name in ALL:
        entry = STRATEGIES[name]
        assert len(entry.title) > 5 and len(entry.source) > 20
