"""A picture of a canvas: the slices in gray, the outlines of the labels in their colors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from SAMSemiSegLib.atomic import replacing
from SAMSemiSegLib.stitching.layout import Layout
from SAMSemiSegLib.stitching.stitch import stitch

Color = tuple[int, int, int]

BLANK: Color = (22, 24, 30)
BORDER: Color = (70, 76, 90)
NUMBER: Color = (225, 230, 240)
WANTED_SIDE = 1400
"""Smaller canvases are enlarged by a whole factor up to about this many pixels a side."""


def draw_canvas(
    image: NDArray[np.generic],
    labels: NDArray[np.uint8] | None,
    layout: Layout,
    path: Path,
    colors: Sequence[Color],
    first: int = 0,
) -> None:
    """Write the canvas of a volume as a PNG file.

    Args:
        image: (X, Y, Z) gray values, shown from their 0.5th to their 99.5th percentile.
        labels: (X, Y, Z) channel indices, or None; 0 and 255 are not drawn.
        layout: of the volume.
        path: the PNG to write.
        colors: RGB of channels 1, 2, ...; used in turn where there are fewer than channels.
        first: number written on the first cell, for a slab.
    """
    from PIL import Image, ImageDraw, ImageFont
    from PIL.PngImagePlugin import PngInfo

    zoom = max(1, round(WANTED_SIDE / max(layout.height, layout.width)))
    gray = _enlarge(stitch(torch.from_numpy(_to_bytes(image)), layout, 0).numpy(), zoom)
    picture = np.repeat(gray[..., None], 3, axis=2)
    inside = stitch(torch.ones(image.shape, dtype=torch.uint8), layout, 0).numpy()
    picture[np.kron(inside, np.ones((zoom, zoom), np.uint8)) == 0] = BLANK
    if labels is not None:
        canvas = stitch(torch.from_numpy(np.ascontiguousarray(labels)), layout, 255).numpy()
        canvas = np.kron(canvas, np.ones((zoom, zoom), np.uint8))
        for index in np.unique(canvas):
            if index not in (0, 255):
                outline = _outline(canvas == index, width=min(zoom, 2))
                picture[outline] = colors[(int(index) - 1) % len(colors)]

    drawing = Image.fromarray(picture)
    pen = ImageDraw.Draw(drawing)
    height, width = (side * zoom for side in layout.cell)
    size = int(min(18, max(9, width / 7)))
    font = ImageFont.load_default(size)
    for i in range(layout.slices):
        top, left = (value * zoom for value in layout.corner(i))
        pen.rectangle((left - 1, top - 1, left + width, top + height), outline=BORDER)
        if width >= 40:
            place = (left + 4, top + 2)
            pen.text(place, str(first + i), NUMBER, font, stroke_width=2, stroke_fill=BLANK)

    about = PngInfo()
    about.add_text("Description", f"{layout.slices} slices, {layout.rows} x {layout.cols} cells")
    with replacing(path) as temporary:
        drawing.save(temporary, format="PNG", pnginfo=about)


def _to_bytes(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    values = image.astype(np.float32)
    low, high = np.percentile(values, (0.5, 99.5))
    scaled = (values - low) / max(float(high - low), 1e-6)
    return (np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def _enlarge(gray: NDArray[np.uint8], zoom: int) -> NDArray[np.uint8]:
    from PIL import Image

    size = (gray.shape[1] * zoom, gray.shape[0] * zoom)
    return np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.BICUBIC))


def _outline(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The pixels of a mask within ``width`` steps of a pixel outside it."""
    from scipy.ndimage import binary_erosion

    return mask & ~binary_erosion(mask, iterations=width)
