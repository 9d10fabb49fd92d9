"""Stitching loses nothing: for every shape, axis and layout the way back is exact."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.run.settings import StitchingSettings
from SAMSemiSegLib.stitching.layout import Layout, plan_layout, plan_slabs
from SAMSemiSegLib.stitching.picture import draw_canvas
from SAMSemiSegLib.stitching.slabs import predict_in_slabs
from SAMSemiSegLib.stitching.stitch import stitch, unstitch

SHAPES = st.tuples(*[st.integers(1, 23)] * 3)
AXES = st.sampled_from((0, 1, 2))


def numbered(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.arange(1, int(np.prod(shape)) + 1, dtype=torch.float64).reshape(shape)


def check_round_trip(shape: tuple[int, int, int], layout: Layout) -> torch.Tensor:
    volume = numbered(shape)
    canvas = stitch(volume, layout, 0)
    assert canvas.shape == (layout.height, layout.width)
    assert torch.equal(unstitch(canvas, layout), volume)
    assert int((canvas > 0).sum()) == volume.numel()  # each voxel once, the rest is blank
    return canvas


@settings(max_examples=150, deadline=None)
@given(
    shape=SHAPES,
    axis=AXES,
    margin=st.integers(0, 3),
    offset=st.integers(0, 9),
    multiple=st.sampled_from((1, 7, 16)),
    square=st.booleans(),
)
def test_unstitch_is_the_inverse_of_stitch(shape, axis, margin, offset, multiple, square):
    how = StitchingSettings(axis=axis, margin=margin, square=square)
    layout = plan_layout(shape, how, multiple, offset)
    assert layout.rows * layout.cols >= shape[axis] + offset
    assert layout.height % multiple == 0 and layout.width % multiple == 0
    assert not square or layout.height == layout.width
    check_round_trip(shape, layout)


@pytest.mark.parametrize(
    "shape",
    [(112, 112, 80), (96, 96, 96), (128, 128, 64), (112, 112, 88), (128, 128, 128), (190, 140, 88)],
)
def test_no_slice_is_lost_in_the_shapes_of_the_literature(shape):
    layout = plan_layout(shape, StitchingSettings(max_pixels=4096 * 4096), 16)
    check_round_trip(shape, layout)
    blank = layout.height * layout.width / np.prod(shape)
    assert blank < 1.15, "the canvas is mostly slices"
    assert max(layout.height, layout.width) / min(layout.height, layout.width) <= 1.5


def test_leading_dimensions_and_types_are_kept_and_gradients_flow():
    layout = plan_layout((5, 6, 7), StitchingSettings(), 8, offset=2)
    labels = torch.randint(0, 4, (2, 3, 5, 6, 7), dtype=torch.uint8)
    canvas = stitch(labels, layout, 255)
    assert canvas.dtype == torch.uint8 and canvas.shape[:2] == (2, 3)
    assert torch.equal(unstitch(canvas, layout), labels)
    image = torch.rand(1, 5, 6, 7, requires_grad=True)
    unstitch(stitch(image, layout, 0.0) * 3, layout).sum().backward()
    assert torch.equal(image.grad, torch.full_like(image, 3))


def test_cells_show_the_front_of_the_body_up_and_its_right_at_the_left():
    volume = torch.zeros(4, 5, 2)  # RAS: x grows to the right, y to the front
    volume[3, 4, 0] = 1
    layout = plan_layout((4, 5, 2), StitchingSettings(), 1)
    top, left = layout.corner(0)
    assert stitch(volume, layout, 0)[top, left] == 1


def test_a_wrong_layout_is_refused():
    layout = plan_layout((5, 6, 7), StitchingSettings(), 8)
    with pytest.raises(ValueError, match="does not belong"):
        stitch(torch.zeros(6, 5, 7), layout, 0)
    with pytest.raises(ValueError, match="does not belong"):
        unstitch(torch.zeros(1, layout.height + 8, layout.width), layout)


@settings(max_examples=100, deadline=None)
@given(
    shape=SHAPES,
    axis=AXES,
    overlap=st.integers(0, 6),
    budget=st.integers(1, 3000),
    offset=st.integers(0, 3),
)
def test_slabs_cover_every_slice_within_the_budget(shape, axis, overlap, budget, offset):
    how = StitchingSettings(axis=axis, max_pixels=budget)
    try:
        slabs = plan_slabs(shape, how, 4, overlap, offset)
    except InputError as error:
        assert "stitching.max_pixels" in str(error)
        return
    assert slabs[0].start == 0 and slabs[-1].stop == shape[axis]
    for slab in slabs:
        assert slab.layout.height * slab.layout.width <= budget
        assert slab.layout.slices == slab.stop - slab.start
    for one, next_one in pairwise(slabs):
        shared = one.stop - next_one.start
        assert min(overlap, slabs[0].layout.slices // 2) <= shared
        assert next_one.start > one.start
    image = numbered(shape)
    out = predict_in_slabs(
        image, how, 4, lambda canvas: torch.cat((canvas, -canvas), 1), overlap, offset
    )
    assert torch.allclose(out, torch.stack((image, -image)), rtol=1e-12)


def test_a_volume_beyond_the_budget_says_what_to_do():
    small = StitchingSettings(max_pixels=100)
    with pytest.raises(InputError, match=r"raise stitching\.max_pixels or lower"):
        plan_layout((30, 30, 4), small, 16)
    with pytest.raises(InputError, match="single slice of 31 x 30"):
        plan_slabs((30, 31, 4), small, 16)


def test_picture_draws_outlines_and_leaves_no_unfinished_file(tmp_path):
    from PIL import Image

    image = np.random.default_rng(0).normal(size=(24, 20, 6)).astype(np.float32)
    labels = np.zeros(image.shape, np.uint8)
    labels[5:15, 5:15, 2:4] = 1
    layout = plan_layout((24, 20, 6), StitchingSettings(), 16)
    draw_canvas(image, labels, layout, tmp_path / "canvas.png", [(255, 0, 0)])
    assert [file.name for file in tmp_path.iterdir()] == ["canvas.png"]
    with Image.open(tmp_path / "canvas.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    zoom = pixels.shape[0] // layout.height
    red = (pixels == (255, 0, 0)).all(-1)
    side, width = 10 * zoom, min(zoom, 2)
    assert red.sum() == 2 * (side**2 - (side - 2 * width) ** 2)  # the outlines of two squares


def test_command_draws_an_image_file_with_its_labels(tmp_path, capsys, monkeypatch):
    import json

    import SimpleITK as sitk

    from SAMSemiSegLib.command.stitch import stitch as command

    monkeypatch.chdir(tmp_path)
    gray = np.random.default_rng(0).normal(100, 20, (8, 30, 40)).astype(np.float32)
    marked = np.zeros(gray.shape, np.uint8)
    marked[2:5, 10:20, 10:20] = 7
    sitk.WriteImage(sitk.GetImageFromArray(gray), "scan.nii.gz")
    sitk.WriteImage(sitk.GetImageFromArray(marked), "labels.nrrd")
    files = {"image": Path("scan.nii.gz"), "labels": Path("labels.nrrd")}
    command(**files, as_json=True)
    (canvas,) = json.loads(capsys.readouterr().out)["canvases"]
    assert canvas["path"] == "scan_canvas.png" and (tmp_path / "scan_canvas.png").stat().st_size
    assert canvas["rows"] * canvas["columns"] >= 8 and canvas["width"] % 32 == 0
    command(**files, max_pixels=64 * 96, output=Path("out") / "part.png")
    assert "2 x 2 cells" in capsys.readouterr().out
    assert len(list((tmp_path / "out").iterdir())) > 1
    with pytest.raises(InputError, match=r"end in \.png"):
        command(Path("scan.nii.gz"), output=Path("a.jpg"))
