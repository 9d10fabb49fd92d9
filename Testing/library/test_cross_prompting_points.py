"""Prompts of the cross prompting strategies: regions, grids of points, their tokens, slices."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from SAMSemiSegLib.finetuning.cross_prompting.decoder import FusedAttention
from SAMSemiSegLib.finetuning.cross_prompting.prompts import ClassPoints, Points
from SAMSemiSegLib.finetuning.cross_prompting.sampling import (
    center_point,
    grid_interval,
    grid_points,
    random_point,
)
from SAMSemiSegLib.finetuning.prototypes import (
    Prototypes,
    class_prototypes,
    class_similarity,
    one_hot_regions,
)
from SAMSemiSegLib.finetuning.slices import collect_slices, lay_out_slices, slice_layout
from SAMSemiSegLib.foundation.model import FOUNDATION
from SAMSemiSegLib.run.settings import StitchingSettings


@st.composite
def regions(draw: st.DrawFn) -> Tensor:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    share = draw(st.sampled_from([0.0, 0.02, 0.4, 1.0]))
    return torch.rand(height, width, generator=generator) < share


@given(regions(), st.sampled_from([1, 2, 8, 16]))
@settings(max_examples=60, deadline=None)
def test_grid_has_the_published_interval_and_stays_inside(region: Tensor, density: int) -> None:
    points = grid_points(region, density)
    assert region[points[:, 0], points[:, 1]].all()
    area = int(region.sum())
    step = max(int(math.sqrt(area) / density), 1)
    assert grid_interval(area, density) == step
    if len(points):
        assert ((points - points[0]) % step == 0).all()
    # Complete: every pixel of the region on the same grid is a point.
    inside = region.nonzero()
    if len(points):
        assert ((inside - points[0]) % step == 0).all(1).sum() == len(points)
    one = random_point(region)
    assert len(one) == min(area, 1) and region[one[:, 0], one[:, 1]].all()


def test_number_of_grid_points_does_not_depend_on_size() -> None:
    counts = []
    for side in (64, 256, 512):
        region = torch.zeros(600, 600, dtype=torch.bool)
        region[10 : 10 + side, 40 : 40 + side] = True
        counts.append(len(grid_points(region, 8)))
    assert counts == [64, 64, 64]


def test_center_lies_deep_in_the_largest_component() -> None:
    region = torch.zeros(40, 40, dtype=torch.bool)
    region[5:16, 8:19] = True
    region[30:33, :] = True
    assert center_point(region).tolist() == [[10, 13]]
    assert center_point(torch.zeros(4, 4, dtype=torch.bool)).shape == (0, 2)


def test_prototypes_find_the_classes_again() -> None:
    directions = torch.eye(6)[:3]
    labels = torch.zeros(1, 16, 24, dtype=torch.uint8)
    labels[:, 4:12, 8:16], labels[:, 12:, 16:] = 1, 2
    labels[:, :4, :4] = 255
    truth = labels.long()[:, ::4, ::4].masked_fill(labels[:, ::4, ::4] == 255, 0)
    features = directions[truth].permute(0, 3, 1, 2) * 7
    prototypes = class_prototypes(features, labels, 4)
    assert prototypes.classes.tolist() == [0, 1, 2]  # class 3 is not there, and has none
    torch.testing.assert_close(prototypes.vectors, directions)
    similarity = class_similarity(features, prototypes, 4, (16, 24))
    assert (similarity[:, 3] == -2).all()
    assert torch.equal(similarity[:, :, 1::4, 1::4].argmax(1), truth)
    assert one_hot_regions(labels, 3).sum() == (labels != 255).sum()


def test_prototypes_that_are_near_are_told_apart_in_mixed_precision() -> None:
    """Cosines of 1 and 0.9996: bf16 has nothing between 0.996 and 1."""
    vectors = F.normalize(torch.tensor([[1.0, 0.03], [1.0, 0.0]]), dim=1)
    prototypes = Prototypes(vectors, torch.tensor([0, 1]))
    features = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        similarity = class_similarity(features, prototypes, 2, (1, 1))
    assert similarity.argmax(1).item() == 1


@pytest.mark.parametrize("place", [[-1, 0], [0, 8], [6, 0]])
def test_a_prompt_outside_the_canvas_is_impossible(place: list[int]) -> None:
    encoder = FOUNDATION["lite_tiny_random"].build().prompt_encoder
    points = Points(torch.tensor([[2, 3], place]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="outside"):
        ClassPoints(encoder, 2)([points], (6, 8), encoder)


def test_points_know_place_and_class() -> None:
    encoder = FOUNDATION["lite_tiny_random"].build().prompt_encoder
    table = ClassPoints(encoder, 3)
    places = torch.tensor([[2, 3], [2, 3], [4, 3]])
    one = Points(places, torch.tensor([1, 2, 1]))
    none = Points(places[:0], places[:0, 0])
    prompts = table([one, none], (8, 8), encoder)
    assert prompts is not None and prompts.tokens.shape == (2, 3, 256)
    tokens = prompts.tokens
    assert not torch.allclose(tokens[0, 0], tokens[0, 1])
    assert not torch.allclose(tokens[0, 0], tokens[0, 2])
    assert prompts.present.tolist() == [[True] * 3, [False] * 3]
    # A point has the position code of the pixel it lies in.
    grid = encoder.pe_layer((8, 8))
    torch.testing.assert_close(tokens[0, 0] - table.table.weight[1], grid[:, 2, 3])
    assert table([none], (8, 8), encoder) is None


def test_fused_attention_is_sams() -> None:
    attention = FOUNDATION["lite_tiny_random"].build().mask_decoder.transformer.layers[0].self_attn
    q, k, v = torch.randn(3, 2, 9, 256).unbind()
    torch.testing.assert_close(FusedAttention(attention)(q, k, v), attention(q, k, v))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_come_back(axis: int) -> None:
    volume = torch.randn(5, 7, 6)
    layout = slice_layout((5, 7, 6), StitchingSettings(axis=axis), 32)  # type: ignore[arg-type]
    canvases = lay_out_slices(volume, layout, -9.0)
    assert canvases.shape == (volume.shape[axis], layout.height, layout.width)
    assert torch.equal(collect_slices(canvases.unsqueeze(1), layout)[0], volume)
