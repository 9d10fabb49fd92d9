"""A volume as single slices, each on a canvas of its own: how most 2D methods see 3D data."""

from __future__ import annotations

from torch import Tensor

from SAMSemiSegLib.run.settings import StitchingSettings
from SAMSemiSegLib.stitching.layout import Layout, plan_layout
from SAMSemiSegLib.stitching.stitch import stitch, unstitch
from SAMSemiSegLib.volumes.volume import Shape


def slice_layout(shape: Shape, settings: StitchingSettings, multiple: int) -> Layout:
    """The canvas of one slice along ``settings.axis``, without margins.

    Args:
        shape: of the volume.
        settings: axis and pixel budget.
        multiple: the canvas' sides are multiples of this.

    Raises:
        InputError: one slice is larger than the pixel budget.
    """
    thin = list(shape)
    thin[settings.axis] = 1
    alone = settings.model_copy(update={"margin": 0, "square": False})
    return plan_layout((thin[0], thin[1], thin[2]), alone, multiple)


def lay_out_slices(volume: Tensor, layout: Layout, fill: float) -> Tensor:
    """Every slice of a volume (X, Y, Z) on its own canvas: (S, H, W), S slices along the axis."""
    slices = volume.movedim(layout.axis, 0).unsqueeze(1 + layout.axis)
    return stitch(slices, layout, fill)


def collect_slices(canvases: Tensor, layout: Layout) -> Tensor:
    """Maps (S, C, H, W) of all slices back as (C, X, Y, Z): the inverse of laying out."""
    slices = unstitch(canvases, layout).squeeze(2 + layout.axis)
    return slices.movedim(0, 1 + layout.axis)
