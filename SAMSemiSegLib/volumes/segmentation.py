"""Slicer's segmentation files (.seg.nrrd): a label map of layers, and a header of segments.

Keys as Slicer's vtkMRMLSegmentationStorageNode documents them: for each segment ``SegmentN_ID``,
``_Name``, ``_Color`` (0..1), ``_LabelValue``, ``_Layer`` (index of the component that holds it),
``_Extent`` (first and last voxel along each axis) and ``_Tags``.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.volumes.headers import text_header
from SAMSemiSegLib.volumes.volume import Geometry, Volume

if TYPE_CHECKING:
    import SimpleITK as sitk

Color = tuple[int, int, int]

PREDICTED = "SAMSemiSeg.PredictedVoxels"
"""Tag of a segment that a model wrote. Slicer keeps tags, so that a segmentation tells whether a
person has changed it since."""


@dataclass(frozen=True)
class Segment:
    """One segment: voxels of ``value`` in layer ``layer``. ``color`` is 0..255."""

    name: str
    value: int
    layer: int
    color: Color | None


def refuse(path: Path) -> None:
    """Refuse a segmentation where a scan is wanted: its voxels could be read like one's.

    Raises:
        InputError: by its name or header it is one.
    """
    name = path.name.lower()
    is_nrrd = name.endswith(".nrrd") and path.is_file()
    if name.endswith(".seg.nrrd") or (is_nrrd and "\nSegment0_" in text_header(path, b"\n\n")):
        raise InputError(
            f"'{path}' is a segmentation, not a scan; give the scan that it was drawn on, and the "
            "segmentation as its label."
        )


def segments_of(path: Path, image: sitk.Image) -> list[Segment]:
    """The segments named in the header, in its order; none for a plain label map.

    Args:
        path: of the image, for the message.

    Raises:
        InputError: a segment's value or layer is no number, or the file has no such layer.
    """
    segments: list[Segment] = []
    while True:
        prefix = f"Segment{len(segments)}_"

        def get(key: str, prefix: str = prefix) -> str | None:
            return image.GetMetaData(prefix + key) if image.HasMetaDataKey(prefix + key) else None

        name = get("Name") or get("ID")
        if name is None:
            return segments
        # Files from before Slicer 4.11 have a layer of zeros and ones for each segment.
        value, layer = get("LabelValue"), get("Layer")
        own_layer = len(segments) if value is None else 0
        try:
            segment = Segment(
                name,
                1 if value is None else int(value),
                own_layer if layer is None else int(layer),
                _color(get("Color")),
            )
        except ValueError as error:
            raise InputError(
                f"The segment '{name}' of '{path}' has a value or a layer that is no whole number; "
                "save the segmentation again in Slicer."
            ) from error
        if not 0 <= segment.layer < image.GetNumberOfComponentsPerPixel():
            raise InputError(
                f"The segment '{name}' of '{path}' is said to be in layer {segment.layer}, which "
                "the file does not have; save the segmentation again in Slicer."
            )
        segments.append(segment)


def flatten(
    path: Path,
    image: sitk.Image,
    segments: list[Segment],
    values: Sequence[int],
    names: Sequence[str] | None,
    own: bool = False,
) -> tuple[Volume, str | None]:
    """The segments as one volume of channel indices (uint8); where they overlap the later wins.

    Args:
        own: a run of the project wrote them, so that the values count before the names.

    Returns:
        The volume on the file's grid, and a sentence if segments overlap.

    Raises:
        InputError: a segment that is not empty belongs to no label of the label set.
    """
    layers = _layers(image)
    masks = [(s, layers[..., s.layer] == s.value) for s in segments]
    drawn = [(s, mask) for s, mask in masks if mask.any()]
    channels = np.zeros(layers.shape[:3], np.uint8)
    overlap = 0
    for channel, mask in zip(
        _channel_of(path, [s for s, _ in drawn], values, names, own),
        (m for _, m in drawn),
        strict=True,
    ):
        overlap += int(np.count_nonzero(channels[mask]))
        channels[mask] = channel
    note = None
    if overlap:
        note = (
            f"The segments of '{path.name}' overlap in {overlap} voxels; these were given to the "
            "later segment."
        )
    return Volume(channels, Geometry.of(image)), note


def header_of(
    channels: np.ndarray,
    names: Sequence[str],
    values: Sequence[int],
    colors: Sequence[Color],
    terminologies: Sequence[str | None] | None = None,
    predicted: bool = False,
) -> dict[str, str]:
    """All keys Slicer writes, for a single-layer segmentation.

    Args:
        channels: (X, Y, Z) channel indices; segment i is channel i + 1.
        terminologies: terminology entries as Slicer writes them in ``Tags``.
        predicted: a model made the segments, which each is marked with.
    """
    header = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ConversionParameters": "",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_SourceRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for i, (name, value, color) in enumerate(zip(names, values, colors, strict=True)):
        entry = terminologies[i] if terminologies else None
        mask = channels == i + 1
        tags = {"Segmentation.Status": "inprogress"}
        if predicted:
            tags[PREDICTED] = predicted_mark(name, int(np.count_nonzero(mask)), len(names))
        if entry:
            tags["TerminologyEntry"] = entry
        header |= {
            f"Segment{i}_ID": f"Segment_{value}",
            f"Segment{i}_Name": name,
            f"Segment{i}_NameAutoGenerated": "0",
            f"Segment{i}_Color": " ".join(f"{c / 255:.6g}" for c in color),
            f"Segment{i}_ColorAutoGenerated": "0",
            f"Segment{i}_LabelValue": str(value),
            f"Segment{i}_Layer": "0",
            f"Segment{i}_Extent": _extent(mask),
            f"Segment{i}_Tags": "".join(f"{key}:{text}|" for key, text in tags.items()),
        }
    return header


def predicted_mark(name: str, voxels: int, segments: int) -> str:
    """What a segment is tagged with that a model made: another one once it is renamed, drawn on, or
    another segment comes or goes."""
    return f"{zlib.crc32(name.encode()):08x} {voxels} of {segments}"


def _channel_of(
    path: Path,
    segments: list[Segment],
    values: Sequence[int],
    names: Sequence[str] | None,
    own: bool,
) -> list[int]:
    """The channel of each segment: by name if all names are known, else by value, unless a name
    that is known says otherwise. In the project's own files by value: what a label is called may
    have changed since, its value has not."""
    by_value = len({s.value for s in segments}) == len(segments) and all(
        s.value in values for s in segments
    )
    if own and by_value:
        return [list(values).index(s.value) + 1 for s in segments]
    known = [name.strip().casefold() for name in names or ()]
    named = [s.name.strip().casefold() for s in segments]
    if all(name in known for name in named):
        return [known.index(name) + 1 for name in named]
    contradicted = any(
        name in known and values[known.index(name)] != segment.value
        for name, segment in zip(named, segments, strict=True)
    )
    if by_value and not contradicted:
        return [list(values).index(s.value) + 1 for s in segments]
    if names is None and len(segments) == len(values):
        return list(range(1, len(values) + 1))
    listed = ", ".join(f"'{s.name}' (value {s.value})" for s in segments)
    wanted = ", ".join(names or map(str, values)) or "empty"
    raise InputError(
        f"The segments of '{path}' ({listed}) do not match the project's label set ({wanted}); "
        "name them as in the label set."
    )


def _layers(image: sitk.Image) -> np.ndarray:
    """(X, Y, Z, layers)."""
    import SimpleITK as sitk

    array = sitk.GetArrayViewFromImage(image)
    array = array if array.ndim == 4 else array[..., None]
    return np.ascontiguousarray(array.transpose(2, 1, 0, 3))


def _extent(mask: np.ndarray) -> str:
    """First and last index along x, y, z; Slicer's empty extent if nothing is set."""
    if not mask.any():
        return "0 -1 0 -1 0 -1"
    bounds: list[int] = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        bounds += [int(hit[0]), int(hit[-1])]
    return " ".join(map(str, bounds))


def _color(text: str | None) -> Color | None:
    try:
        red, green, blue = (round(255 * float(part)) for part in (text or "").split())
    except (ValueError, OverflowError):  # the latter of an infinite one
        return None
    return red, green, blue
