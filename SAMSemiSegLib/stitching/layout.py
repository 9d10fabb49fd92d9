"""Where each slice of a volume lies on a canvas, and how a large volume is split into slabs.

Stitching is the input of SFR's fine-tuning stage (Li et al., IEEE TMI 44(10), 2025). Unlike the
published arithmetic (``S // height`` cells a side), the grid here is found by rounding up, so that
no slice is ever lost, and the canvas is as large as the slices need, not a fixed square.
"""

from __future__ import annotations

from dataclasses import dataclass

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.run.settings import StitchingSettings
from SAMSemiSegLib.volumes.volume import Shape

MAX_ASPECT = 1.5
"""Canvases longer than this are taken only where no squarer one fits the pixel budget."""


@dataclass(frozen=True)
class Layout:
    """The cells of a canvas, row by row, in the order of the slices.

    Attributes:
        slices: number of slices.
        cell: height and width of a slice in pixels.
        axis: axis of the volume whose slices are laid out.
        rows, cols: cells down and across; ``rows * cols >= offset + slices``.
        margin: blank pixels on each side of each cell.
        offset: blank cells before the first slice.
        height, width: the canvas in pixels; what the cells leave is blank, at the bottom and right.
    """

    slices: int
    cell: tuple[int, int]
    axis: int
    rows: int
    cols: int
    margin: int
    offset: int
    height: int
    width: int

    @property
    def pitch(self) -> tuple[int, int]:
        """Height and width of a cell with its margins."""
        return self.cell[0] + 2 * self.margin, self.cell[1] + 2 * self.margin

    def corner(self, index: int) -> tuple[int, int]:
        """Row and column of the first pixel of slice ``index`` on the canvas."""
        row, col = divmod(self.offset + index, self.cols)
        return row * self.pitch[0] + self.margin, col * self.pitch[1] + self.margin


@dataclass(frozen=True)
class Slab:
    """Slices ``start`` to ``stop`` (not included) of a volume, on a canvas of their own."""

    start: int
    stop: int
    layout: Layout


def plan_layout(
    shape: Shape, settings: StitchingSettings, multiple: int, offset: int = 0
) -> Layout:
    """The layout of a volume on one canvas: the fewest pixels among the near-square ones.

    Args:
        shape: (X, Y, Z) of the volume.
        settings: axis, margin, pixel budget, square or not.
        multiple: the canvas's sides are multiples of this many pixels.
        offset: blank cells before the first slice.

    Raises:
        InputError: the volume does not fit ``stitching.max_pixels``; :func:`plan_slabs` splits it.
    """
    layout = _find_layout(shape, settings, multiple, offset)
    if layout is None:
        raise InputError(
            f"A volume of {_times(shape)} voxels does not fit on one canvas of "
            f"{settings.max_pixels:,} pixels: raise stitching.max_pixels or lower "
            "preprocessing.scale."
        )
    return layout


def plan_slabs(
    shape: Shape,
    settings: StitchingSettings,
    multiple: int,
    overlap: int = 4,
    offset: int = 0,
) -> list[Slab]:
    """Ranges of slices that each fit on one canvas; one range where the whole volume does.

    The ranges are equally long, consecutive along the axis, and share at least ``overlap`` slices
    with their neighbors (fewer only where a canvas holds less than twice as many).

    Args:
        shape, settings, multiple, offset: as for :func:`plan_layout`.
        overlap: slices that neighbors share.

    Raises:
        InputError: not even one slice fits ``stitching.max_pixels``.
    """

    def layout_of(slices: int) -> Layout | None:
        part = list(shape)
        part[settings.axis] = slices
        return _find_layout((part[0], part[1], part[2]), settings, multiple, offset)

    depth = shape[settings.axis]
    whole = layout_of(depth)
    if whole is not None:
        return [Slab(0, depth, whole)]
    fits, too_many = 0, depth
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if layout_of(middle) is None:
            too_many = middle
        else:
            fits = middle
    if fits == 0:
        height, width = cell_size(shape, settings.axis)
        raise InputError(
            f"A single slice of {height} x {width} pixels is larger than a canvas of "
            f"{settings.max_pixels:,} pixels: raise stitching.max_pixels or lower "
            "preprocessing.scale."
        )
    overlap = min(overlap, fits // 2)
    count = -(-(depth - overlap) // (fits - overlap))
    length = -(-(depth + (count - 1) * overlap) // count)
    layout = layout_of(length)
    assert layout is not None  # length <= fits, and fewer slices never need more pixels
    starts = [(depth - length) * i // (count - 1) for i in range(count)]
    return [Slab(start, start + length, layout) for start in starts]


def cell_size(shape: Shape, axis: int) -> tuple[int, int]:
    """Height and width of a slice: of the two other axes the later runs down, the earlier across"""
    across, down = (size for i, size in enumerate(shape) if i != axis)
    return down, across


def _find_layout(
    shape: Shape, settings: StitchingSettings, multiple: int, offset: int
) -> Layout | None:
    """The best layout within the budget, or None where there is none."""
    height, width = cell_size(shape, settings.axis)
    slices = shape[settings.axis]
    cells = slices + offset
    pitch_h, pitch_w = height + 2 * settings.margin, width + 2 * settings.margin
    best: tuple[tuple[float, ...], Layout] | None = None
    for cols in range(1, cells + 1):
        rows = -(-cells // cols)
        canvas_h = -(-rows * pitch_h // multiple) * multiple
        canvas_w = -(-cols * pitch_w // multiple) * multiple
        if settings.square:
            canvas_h = canvas_w = max(canvas_h, canvas_w)
        pixels = canvas_h * canvas_w
        if pixels > settings.max_pixels:
            continue
        aspect = max(canvas_h / canvas_w, canvas_w / canvas_h)
        cost = (max(aspect, MAX_ASPECT), pixels, aspect)
        if best is None or cost < best[0]:
            best = (
                cost,
                Layout(
                    slices=slices,
                    cell=(height, width),
                    axis=settings.axis,
                    rows=rows,
                    cols=cols,
                    margin=settings.margin,
                    offset=offset,
                    height=canvas_h,
                    width=canvas_w,
                ),
            )
    return best[1] if best else None


def _times(shape: Shape) -> str:
    return " x ".join(str(size) for size in shape)
