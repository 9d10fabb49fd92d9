"""From a volume to its canvas and back, without loss.

In a preprocessed volume (RAS) each cell is seen as a radiologist sees it, and as the foundation
models met medical images in pretraining: axial slices with the front of the body up, sagittal and
coronal ones with the head up, the patient's right (or front) at the left. So both axes of a slice
run backwards on the canvas.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from SAMSemiSegLib.stitching.layout import Layout, cell_size


def stitch(volume: Tensor, layout: Layout, fill: float) -> Tensor:
    """Lay the slices of a volume out on its canvas.

    Args:
        volume: (..., X, Y, Z) of any type; leading dimensions (batch, channels) are kept.
        layout: made for this shape.
        fill: value of margins and blank cells; the volume's minimum for images, 255 for labels.

    Returns:
        (..., H, W), differentiable.

    Raises:
        ValueError: the layout was made for another shape.
    """
    x, y, z = volume.shape[-3:]
    slices = (x, y, z)[layout.axis]
    if slices != layout.slices or cell_size((x, y, z), layout.axis) != layout.cell:
        raise ValueError(f"a volume of shape {(x, y, z)} does not belong to {layout}")
    cells = volume.movedim(layout.axis - 3, -3).transpose(-2, -1).flip(-2, -1)
    margin = layout.margin
    after = layout.rows * layout.cols - layout.offset - layout.slices
    cells = F.pad(cells, (margin, margin, margin, margin, layout.offset, after), value=fill)
    pitch_h, pitch_w = layout.pitch
    grid = cells.unflatten(-3, (layout.rows, layout.cols)).transpose(-3, -2)
    canvas = grid.reshape(*volume.shape[:-3], layout.rows * pitch_h, layout.cols * pitch_w)
    below, right = layout.height - canvas.shape[-2], layout.width - canvas.shape[-1]
    return F.pad(canvas, (0, right, 0, below), value=fill)


def unstitch(canvas: Tensor, layout: Layout) -> Tensor:
    """Take the slices off a canvas: the inverse of :func:`stitch`.

    Args:
        canvas: (..., H, W) of any type.
        layout: the one it was stitched with.

    Returns:
        (..., X, Y, Z), differentiable.
    """
    if canvas.shape[-2:] != (layout.height, layout.width):
        raise ValueError(f"a canvas of shape {tuple(canvas.shape)} does not belong to {layout}")
    pitch_h, pitch_w = layout.pitch
    rows, cols, margin = layout.rows, layout.cols, layout.margin
    grid = canvas[..., : rows * pitch_h, : cols * pitch_w]
    grid = grid.reshape(*canvas.shape[:-2], rows, pitch_h, cols, pitch_w).transpose(-3, -2)
    height, width = layout.cell
    cells = grid.flatten(-4, -3)[..., margin : margin + height, margin : margin + width]
    cells = cells[..., layout.offset : layout.offset + layout.slices, :, :]
    slices = cells.flip(-2, -1).transpose(-2, -1)
    return slices.movedim(-3, layout.axis - 3).contiguous()
