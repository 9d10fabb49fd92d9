"""Boxes as prompts: where they lie, what they bring, what they ask for."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from SAMSemiSegLib.finetuning.boxes import FEWEST, Boxes
from SAMSemiSegLib.finetuning.strategies.box import BoxStrategy
from SAMSemiSegLib.finetuning.strategy import Sample
from SAMSemiSegLib.foundation.model import FOUNDATION
from SAMSemiSegLib.run.settings import PseudoLabelSettings, StitchingSettings
from SAMSemiSegLib.training.progress import Progress


def build(channels: int = 3, foundation: str = "lite_tiny_random") -> BoxStrategy:
    torch.manual_seed(3)
    options = BoxStrategy.Options(side=64, slices=3, replay=2)
    return BoxStrategy(FOUNDATION[foundation].build(), channels, StitchingSettings(), options)


def two_blocks(shape: tuple[int, int, int] = (24, 20, 6)) -> Sample:
    labels = torch.zeros(shape, dtype=torch.uint8)
    labels[4:12, 3:9, 1:5] = 1
    labels[15:20, 10:18, 2:4] = 2
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return Sample("a", labels.float() + 0.1 * noise, labels)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5))
def test_a_box_holds_its_class_and_touches_it_on_all_sides(seed: int, channels: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, channels, (4, 9, 7), generator=draw)
    boxes = Boxes.around(labels, channels, range(channels))
    wanted = {
        (s, k) for s in range(4) for k in range(1, channels) if (labels[s] == k).sum() >= FEWEST
    }
    assert set(zip(boxes.slices.tolist(), boxes.classes.tolist(), strict=True)) == wanted
    held = boxes.inside(9, 7)
    for i, corners in enumerate(boxes.corners.long().tolist()):
        top, left, bottom, right = corners
        mask = labels[boxes.slices[i]] == boxes.classes[i]
        assert mask.sum() == (mask & held[i]).sum()
        assert mask[top].any() and mask[bottom].any() and mask[:, left].any()
        assert mask[:, right].any()


def test_two_organs_of_one_class_get_a_box_each() -> None:
    labels = torch.zeros(1, 10, 20, dtype=torch.uint8)
    labels[0, 2:5, 2:5], labels[0, 5:9, 14:18], labels[0, 0, 19] = 1, 1, 1
    assert len(Boxes.around(labels, 2, [1])) == 1
    apart = Boxes.around(labels, 2, [])
    assert apart.corners.tolist() == [[2, 2, 4, 4], [5, 14, 8, 17]]  # the single pixel is noise


def test_answers_of_two_boxes_of_a_class_are_joined() -> None:
    strategy = build(channels=2).eval()
    volume = torch.zeros(10, 20, 1)
    truth = torch.zeros(2, 10, 20, 1)
    truth[1, 2:5, 2:5], truth[1, 5:9, 14:18] = 1, 1
    truth[0] = 1 - truth[1]
    strategy.guide = lambda image: truth
    seen = []

    def outline(embedding: Tensor, boxes: Boxes, images: Tensor) -> Tensor:
        seen.append(len(boxes))
        return torch.where(boxes.inside(10, 20), 20.0, -20.0)

    strategy.outline = outline  # type: ignore[method-assign]
    found = strategy.predict(volume, PseudoLabelSettings()).probabilities
    assert seen == [2] and torch.equal(found.argmax(0), truth.argmax(0))


@pytest.mark.parametrize("foundation", ["lite_tiny_random", "sam_vit_tiny_random"])
def test_the_decoder_learns_what_lies_in_the_boxes(foundation: str) -> None:
    strategy = build(foundation=foundation).train()
    optimizer = torch.optim.AdamW([p for p in strategy.parameters() if p.requires_grad], 1e-3)
    before = {n: p.clone() for n, p in strategy.foundation.named_parameters()}
    losses = []
    for step in range(30):
        torch.manual_seed(step)
        loss = strategy.step([two_blocks()], [], Progress(step, 30))["supervised"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    # Encoder and prompts stay as they are: what the model knows of outlines is not unlearned.
    assert all(torch.equal(p, before[n]) for n, p in strategy.foundation.named_parameters())


def test_a_box_ends_with_the_last_of_the_enlarged_pixels() -> None:
    """A pixel of 16 becomes 4 of 64: pixels 4 to 11 are 16 to 47."""
    strategy = build(channels=2).eval()
    labels = torch.zeros(1, 16, 16, dtype=torch.uint8)
    labels[0, 4:12, 4:12] = 1
    prompted: list[Tensor] = []
    tokens = strategy._corner_tokens

    def note(corners: Tensor, size: tuple[int, int]) -> Tensor:
        prompted.append(corners)
        return tokens(corners, size)

    strategy._corner_tokens = note  # type: ignore[method-assign]
    images = labels.float()
    strategy.outline(strategy.encode(images), Boxes.around(labels, 2, [1]), images)
    assert prompted[0].tolist() == [[16, 16, 47, 47]]


def test_few_boxes_at_a_time_are_outlined_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, sample = build().eval(), two_blocks()
    assert sample.labels is not None
    truth = torch.nn.functional.one_hot(sample.labels.long(), 3).movedim(-1, 0).float()
    strategy.guide = lambda image: truth
    outlined: list[int] = []
    outline = strategy.outline

    def count(embedding: Tensor, boxes: Boxes, images: Tensor) -> Tensor:
        outlined.append(len(boxes))
        return outline(embedding, boxes, images)

    strategy.outline = count  # type: ignore[method-assign]
    whole = strategy.predict(sample.image, PseudoLabelSettings()).probabilities
    assert max(outlined) > 4
    monkeypatch.setattr("SAMSemiSegLib.finetuning.strategies.box.TOGETHER", 2)
    outlined.clear()
    found = strategy.predict(sample.image, PseudoLabelSettings()).probabilities
    assert max(outlined) == 2
    torch.testing.assert_close(found, whole)


@pytest.mark.parametrize(
    "foundation, side", [("lite_tiny_random", 160), ("sam_vit_tiny_random", 256)]
)
def test_slices_have_the_size_that_the_model_was_trained_on(foundation: str, side: int) -> None:
    strategy = build(foundation=foundation)
    strategy.options.side = "auto"
    assert strategy._sizes(torch.zeros(1, 20, 10))[0] == (side, side // 2)


def test_a_step_takes_some_of_many_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice of a brain may show a hundred lesions."""
    monkeypatch.setattr("SAMSemiSegLib.finetuning.strategies.box.TOGETHER", 5)
    strategy = build(channels=2).train()
    labels = torch.zeros(40, 40, 4, dtype=torch.uint8)
    for row, column in itertools.product(range(0, 40, 4), repeat=2):
        labels[row : row + 2, column : column + 2] = 1
    outlined: list[Boxes] = []
    outline = strategy.outline

    def note(embedding: Tensor, boxes: Boxes, images: Tensor) -> Tensor:
        outlined.append(boxes)
        return outline(embedding, boxes, images)

    strategy.outline = note  # type: ignore[method-assign]
    for step in range(2):
        loss = strategy.step([Sample("a", labels.float(), labels)], [], Progress(step, 2))
        loss["supervised"].backward()
    assert [len(boxes) for boxes in outlined] == [5, 5]
    assert not torch.equal(*(boxes.corners for boxes in outlined))


def test_without_boxes_the_v_net_s_word_stands() -> None:
    strategy = build().eval()
    image = two_blocks().image
    calm = torch.tensor([0.8, 0.15, 0.05]).view(3, 1, 1, 1).expand(3, *image.shape)
    strategy.guide = lambda volume: calm
    found = strategy.predict(image, PseudoLabelSettings()).probabilities
    # Nothing is above background anywhere: no box.
    torch.testing.assert_close(found, calm)


@pytest.mark.parametrize("axes", [None, (0, 1, 2)])
def test_answers_come_only_where_boxes_were(axes: tuple[int, ...] | None) -> None:
    strategy, sample = build().eval(), two_blocks()
    assert sample.labels is not None
    truth = torch.nn.functional.one_hot(sample.labels.long(), 3).movedim(-1, 0).float()
    strategy.guide = lambda volume: truth
    found = strategy.predict(sample.image, PseudoLabelSettings(axes=axes)).probabilities
    torch.testing.assert_close(found.sum(0), torch.ones_like(found[0]))
    same = (found - truth).abs().amax((0, 1, 2)) < 1e-6
    if axes is None:  # slices 0 and 5 hold nothing
        assert same.tolist() == [True, False, False, False, False, True]


def test_an_empty_sample_teaches_nothing_and_breaks_nothing() -> None:
    strategy = build().train()
    sample = two_blocks()
    empty: Tensor = torch.zeros_like(sample.image, dtype=torch.uint8)
    loss = strategy.step([Sample("b", sample.image, empty)], [], Progress(0, 1))["supervised"]
    loss.backward()
    assert float(loss.detach()) == 0
    with pytest.raises(ValueError, match="guide"):
        strategy.predict(sample.image, PseudoLabelSettings())
