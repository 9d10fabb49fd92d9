"""Prediction of a volume canvas by canvas, however large it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from SAMSemiSegLib.run.settings import StitchingSettings
from SAMSemiSegLib.stitching.layout import Slab, plan_slabs
from SAMSemiSegLib.stitching.stitch import stitch, unstitch
from SAMSemiSegLib.volumes.volume import shape_of


def predict_in_slabs(
    image: Tensor,
    settings: StitchingSettings,
    multiple: int,
    predict_canvas: Callable[[Tensor], Tensor],
    overlap: int = 4,
    offset: int = 0,
) -> Tensor:
    """Predict every slab of a volume on a canvas of its own; where slabs overlap, average.

    Args:
        image: (X, Y, Z) preprocessed gray values.
        settings: how canvases are laid out.
        multiple: canvas sides are multiples of this.
        predict_canvas: from a canvas (1, 1, H, W) to maps (1, K, H, W), such as probabilities.
        overlap: slices that neighboring slabs share.
        offset: blank cells before the first slice.

    Returns:
        (K, X, Y, Z) on the device of ``image``.

    Raises:
        InputError: one slice alone is larger than ``settings.max_pixels``.
    """
    fill = float(image.min())

    def predict_slab(part: Tensor, slab: Slab) -> Tensor:
        canvas = stitch(part, slab.layout, fill)
        return unstitch(predict_canvas(canvas[None, None])[0], slab.layout)

    slabs = plan_slabs(shape_of(image), settings, multiple, overlap, offset)
    return average_slabs(image, slabs, settings.axis, predict_slab)


def average_slabs(
    image: Tensor,
    slabs: Sequence[Slab],
    axis: int,
    predict_slab: Callable[[Tensor, Slab], Tensor],
) -> Tensor:
    """Predict each slab; where slabs overlap, average.

    Args:
        image: (X, Y, Z).
        slabs: that cover it along ``axis``.
        axis: of the volume.
        predict_slab: from the slab's part of the image to maps (K, X, Y, Z) of the same shape.

    Returns:
        (K, X, Y, Z) on the device of ``image``.
    """
    total: Tensor | None = None
    times = [0] * image.shape[axis]
    for slab in slabs:
        length = slab.stop - slab.start
        part = predict_slab(image.narrow(axis, slab.start, length), slab).to(image.device)
        if len(slabs) == 1:
            return part
        if total is None:
            total = part.new_zeros((part.shape[0], *image.shape))
        total.narrow(1 + axis, slab.start, length).add_(part)
        for i in range(slab.start, slab.stop):
            times[i] += 1
    assert total is not None
    view = [1, 1, 1, 1]
    view[1 + axis] = -1
    return total.div_(torch.tensor(times, dtype=total.dtype, device=total.device).view(view))
