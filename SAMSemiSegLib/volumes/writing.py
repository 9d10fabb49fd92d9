"""Writing volumes so that they lie exactly where their source lies.

How exact a format is (measured by reading back what was written):

- MetaImage (.mha) keeps size, spacing, origin and direction to the last bit.
- NRRD (.nrrd, .seg.nrrd) stores spacing times direction: to the last bit for axes along the
  patient's, within 2e-15 (one unit in the last place of a double) for oblique ones.
- NIfTI (.nii, .nii.gz) stores single precision. Axes along the patient's with spacings and origins
  that came from a NIfTI file: to the last bit. Oblique ones: within 6e-8 in direction and 1e-7 of
  the value in spacing and origin, because ITK derives the stored numbers anew.

So that oblique scans too come back to the last bit, the geometry fields of the source's own header
are copied where source and result are of one format (``source``).
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from SAMSemiSegLib.atomic import replacing
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.volumes import segmentation
from SAMSemiSegLib.volumes.formats import FORMATS, check_name, suffix_of
from SAMSemiSegLib.volumes.headers import byte_order, nifti_header, text_header
from SAMSemiSegLib.volumes.reading import read_grid
from SAMSemiSegLib.volumes.volume import Volume


def write_labels(
    path: Path,
    channels: Volume,
    names: Sequence[str],
    values: Sequence[int],
    colors: Sequence[segmentation.Color],
    terminologies: Sequence[str | None] | None = None,
    source: Path | None = None,
    predicted: bool = False,
) -> None:
    """Write channel indices as the label set's values, on exactly the volume's grid.

    Args:
        path: .nii, .nii.gz, .nrrd, .mha or .seg.nrrd (which Slicer opens as a segmentation).
        channels: channel indices 0..C; 255 (ignore) is written as 0.
        names: the label set's names, ``values`` and ``colors`` (0..255) in the same order.
        source: the image the labels belong to, whose header is matched bit for bit if it is of
            the same format.
        predicted: a model made them; .seg.nrrd says so, the other formats cannot.

    Raises:
        InputError: the suffix is none of these.
        DiskFullError: no space left; nothing is left behind.
    """
    highest = max(values, default=0)
    dtype = np.uint8 if highest < 256 else np.uint16 if highest < 65536 else np.int32
    table = np.zeros(256, dtype)
    table[1 : len(values) + 1] = values
    header = None
    if suffix_of(path) == ".seg.nrrd":
        header = segmentation.header_of(
            channels.array, names, values, colors, terminologies, predicted
        )
    _write(path, Volume(table[channels.array], channels.geometry), header, source)


def write_image(path: Path, volume: Volume, source: Path | None = None) -> None:
    """Write a volume of any voxel type; arguments and errors as :func:`write_labels`."""
    _write(path, volume, None, source)


def _write(path: Path, volume: Volume, header: dict[str, str] | None, source: Path | None) -> None:
    import SimpleITK as sitk

    check_name(path)
    suffix = suffix_of(path)
    if suffix in ("", ".mhd"):
        raise InputError(
            f"'{path.name}' cannot be written: its suffix is none that is known; use .nii.gz, "
            f".nrrd, .mha or .seg.nrrd (reading also takes {FORMATS})."
        )
    image = volume.to_sitk()
    for key, value in (header or {}).items():
        image.SetMetaData(key, value)
    try:
        with replacing(path) as temporary:
            try:
                sitk.WriteImage(image, str(temporary), useCompression=True)
            except RuntimeError:
                # ITK does not say why. The operating system does: a full disk, a missing right.
                temporary.write_bytes(volume.array.tobytes())
                raise
            if source is not None and source.is_file():
                _copy_geometry(source, temporary, volume)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "the image library refused it"
        raise InputError(
            f"'{path}' could not be written ({reason}); choose another place or name."
        ) from error


def _copy_geometry(source: Path, target: Path, volume: Volume) -> None:
    """Copy the geometry fields of the source's header if they describe the volume's grid."""
    if read_grid(target) == volume.geometry:
        return
    if read_grid(source) != volume.geometry:
        return
    kinds = {".nii": "nifti", ".nii.gz": "nifti", ".nrrd": "nrrd", ".seg.nrrd": "nrrd"}
    kind = kinds.get(suffix_of(target))
    if kind is None or kind != kinds.get(suffix_of(source)):
        return
    (_copy_nifti if kind == "nifti" else _copy_nrrd)(source, target)


def _copy_nifti(source: Path, target: Path) -> None:
    ours, theirs = nifti_header(target), nifti_header(source)
    if not byte_order(theirs) or byte_order(ours) != byte_order(theirs):
        return
    whole = (gzip.open if target.name.endswith(".gz") else open)(target, "rb").read()
    patched = bytearray(whole)
    patched[76:92] = theirs[76:92]  # handedness and spacing along x, y, z
    patched[123:124] = theirs[123:124]  # units
    patched[252:328] = theirs[252:328]  # quaternion, offsets, affine, and which of them holds
    data = bytes(patched)
    target.write_bytes(gzip.compress(data, 6, mtime=0) if target.name.endswith(".gz") else data)


def _copy_nrrd(source: Path, target: Path) -> None:
    theirs = text_header(source, b"\n\n")
    head, data = target.read_bytes().split(b"\n\n", 1)
    ours = head.decode()
    for key in ("space", "space directions", "space origin"):
        found = re.search(rf"^{key}:.*$", theirs, re.MULTILINE)
        if found is None or "none" in found[0]:
            return
        ours = re.sub(rf"^{key}:.*$", found[0], ours, flags=re.MULTILINE)
    target.write_bytes(ours.encode() + b"\n\n" + data)
