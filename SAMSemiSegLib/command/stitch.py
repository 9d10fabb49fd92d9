"""``samsemiseg stitch``: see a volume as the foundation model sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from SAMSemiSegLib.errors import InputError

if TYPE_CHECKING:
    from SAMSemiSegLib.volumes.volume import Volume

MOST_LABELS = 64
MULTIPLE = 32
"""Canvas sides are multiples of this, which suits every foundation model; SAM itself takes 16."""


def stitch(
    image: Annotated[Path, typer.Argument(help="A volume, or a folder with one DICOM series.")],
    labels: Annotated[
        Path | None, typer.Option(help="Labels to outline: a label map or a .seg.nrrd.")
    ] = None,
    axis: Annotated[
        int, typer.Option(min=0, max=2, help="Slices to lay out: 0 sagittal, 1 coronal, 2 axial.")
    ] = 2,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Pixel budget of a canvas; beyond it, several are made.")
    ] = 1024 * 1024,
    scale: Annotated[
        float, typer.Option(min=0.05, max=1, help="0.5 halves the voxels along each axis.")
    ] = 1.0,
    output: Annotated[
        Path | None, typer.Option(help="PNG to write; IMAGE_canvas.png here if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Lay all slices of a volume out on one canvas and save it as a picture."""
    from SAMSemiSegLib.preprocessing.plan import make_plan
    from SAMSemiSegLib.preprocessing.preprocessor import Preprocessor
    from SAMSemiSegLib.project.label_set import PALETTE
    from SAMSemiSegLib.run.settings import PreprocessingSettings, StitchingSettings
    from SAMSemiSegLib.stitching.layout import plan_slabs
    from SAMSemiSegLib.stitching.picture import draw_canvas
    from SAMSemiSegLib.volumes.formats import stem_of
    from SAMSemiSegLib.volumes.reading import read_image

    if output is not None and output.suffix.lower() != ".png":
        raise InputError(f"'{output}' is no name of a PNG picture: let it end in .png.")
    output = output or Path(stem_of(image.resolve()) + "_canvas.png")
    volume = read_image(image)
    preprocessor = Preprocessor(make_plan([volume], PreprocessingSettings(scale=scale)))
    gray = preprocessor.image(volume)
    note, marked = None, None
    if labels is not None:
        channels, note = _read_labels(labels, volume)
        marked = preprocessor.labels(channels)

    settings = StitchingSettings.model_validate({"axis": axis, "max_pixels": max_pixels})
    shape = preprocessor.shape(volume.geometry)
    try:
        slabs = plan_slabs(shape, settings, MULTIPLE)
    except InputError as error:  # which names the settings of a run
        told = str(error).replace("stitching.max_pixels", "--max-pixels")
        raise InputError(told.replace("preprocessing.scale", "--scale")) from error
    canvases: list[dict[str, Any]] = []
    for number, slab in enumerate(slabs, start=1):
        path = output if len(slabs) == 1 else output.with_stem(f"{output.stem}_{number}")
        part = [slice(None)] * 3
        part[axis] = slice(slab.start, slab.stop)
        where = tuple(part)
        outlined = None if marked is None else marked[where]
        draw_canvas(gray[where], outlined, slab.layout, path, PALETTE, first=slab.start)
        canvases.append(
            {
                "path": str(path),
                "first_slice": slab.start,
                "last_slice": slab.stop - 1,
                "rows": slab.layout.rows,
                "columns": slab.layout.cols,
                "width": slab.layout.width,
                "height": slab.layout.height,
            }
        )

    if as_json:
        result = {"image": str(image), "axis": axis, "shape": shape, "canvases": canvases}
        print(json.dumps(result | ({"note": note} if note else {})))
        return
    size = " x ".join(map(str, shape))
    print(f"{size} voxels, {shape[axis]} slices along axis {axis}, on {_count(len(slabs))}:")
    for canvas in canvases:
        print(
            "  slices {first_slice} to {last_slice} in {rows} x {columns} cells, "
            "{width} x {height} pixels: {path}".format(**canvas)
        )
    if note:
        print(note)


def _read_labels(path: Path, volume: Volume) -> tuple[Volume, str | None]:
    """Labels as channel indices in the order of their values, on the image's grid."""
    from SAMSemiSegLib.volumes.reading import label_values, read_labels

    values = list(label_values(path)) or [1]  # read_labels tells of an empty label
    if len(values) > MOST_LABELS:
        raise InputError(
            f"'{path}' holds {len(values)} values, too many for labels; give the label, not the "
            "image."
        )
    return read_labels(path, values, volume.geometry)


def _count(canvases: int) -> str:
    return "one canvas" if canvases == 1 else f"{canvases} canvases"
