"""A picture of a pseudo-label: three slices with outlines and the uncertainty as heat."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from SAMSemiSegLib.atomic import replacing
from SAMSemiSegLib.pseudolabels.pseudo_label import PseudoLabel

Array = np.ndarray[Any, Any]
Color = tuple[int, int, int]

WIDEST = 3.0
"""Of a panel, by its height."""

_VIEWS = (("axial", 2), ("coronal", 1), ("sagittal", 0))


def draw_pseudo_label(
    image: Array,
    pseudo: PseudoLabel,
    path: Path,
    colors: Sequence[Color],
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> None:
    """Write one PNG: axial, coronal and sagittal slice, each where the foreground is largest.

    Outlines have the labels' colors; the warmer a voxel, the less sure its label. Drawn as
    radiologists look: the patient's right is on the left, anterior and superior are up.

    Args:
        image: (X, Y, Z) preprocessed gray values in RAS orientation.
        pseudo: the pseudo-label on the same grid.
        path: of the PNG.
        colors: red, green, blue in 0..255 of the channels 1..C.
        spacing: millimeters between voxels along x, y, z.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    low, high = np.percentile(image, (0.5, 99.5))
    gray = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
    extents = np.array(image.shape) * spacing
    widths = [extents[0], extents[0], extents[1]]
    heights = [extents[1], extents[2], extents[2]]
    # The axial and coronal panels share x; all are scaled to one height, but for what would be
    # wider than a screen: a few thick slices, seen from the side.
    ratios = [min(w / h, WIDEST) for w, h in zip(widths, heights, strict=True)]
    height = 3.0
    figure = Figure(figsize=(height * sum(ratios) + 0.1, height), dpi=110, facecolor="black")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3, gridspec_kw={"width_ratios": ratios, "wspace": 0.02})
    figure.subplots_adjust(left=0, right=1, bottom=0, top=1)
    rim = [withStroke(linewidth=2.5, foreground="black")]
    for panel, (title, axis) in zip(panels, _VIEWS, strict=True):
        index = _largest_slice(pseudo.hard > 0, axis)
        extent = _extent(extents, axis)
        _show(panel, _seen(gray, axis, index), extent, cmap="gray", vmin=0, vmax=1)
        uncertainty = 1 - _seen(pseudo.confidence, axis, index)
        heat = np.clip(uncertainty, 0, 1)
        _show(panel, heat, extent, cmap="inferno", vmin=0, vmax=1.2, alpha=0.65 * heat)
        labels = _seen(pseudo.hard, axis, index)
        for channel, color in enumerate(colors, start=1):
            _outline(panel, labels == channel, extent, tuple(c / 255 for c in color))
        panel.set_axis_off()
        # On the image, which may be as bright as the letters.
        name = panel.text(0.02, 0.98, title, transform=panel.transAxes, color="0.9", fontsize=9)
        name.set(va="top", path_effects=rim)
    with replacing(path) as temporary:
        figure.savefig(temporary, facecolor="black")


def _largest_slice(foreground: Array, axis: int) -> int:
    """Where the foreground's area is largest; the middle where there is none."""
    area = foreground.sum(axis=tuple(a for a in range(3) if a != axis))
    return int(area.argmax()) if area.any() else len(area) // 2


def _seen(volume: Array, axis: int, index: int) -> Array:
    """A slice as rows and columns of the picture, row 0 at the bottom."""
    plane = np.take(volume, index, axis=axis).T
    # RAS: x grows to the patient's right, which is shown on the left; y grows to the front.
    return plane[:, ::-1]


def _extent(extents: Array, axis: int) -> tuple[float, float, float, float]:
    across, up = (float(extents[a]) for a in range(3) if a != axis)
    return (0, across, 0, up)


def _show(panel: Any, plane: Array, extent: tuple[float, ...], **style: Any) -> None:
    panel.imshow(plane, origin="lower", extent=extent, aspect="equal", **style)


def _outline(panel: Any, mask: Array, extent: tuple[float, ...], color: Any) -> None:
    if not mask.any():
        return
    # A rim of background closes the outline of a label that touches the edge of the slice.
    padded = np.pad(mask.astype(float), 1)
    step = (extent[1] / mask.shape[1], extent[3] / mask.shape[0])
    x = (np.arange(padded.shape[1]) - 0.5) * step[0]
    y = (np.arange(padded.shape[0]) - 0.5) * step[1]
    panel.contour(x, y, padded, levels=[0.5], colors=[color], linewidths=1.4)
