"""What the headers of image files say in their own words.

ITK mends some headers silently (a NIfTI spacing of 0 is read as 1, a negative one as a mirrored
axis), reads a truncated NIfTI file as if the rest were black, and NaN in NIfTI files as 0. Each
would spoil a training without a word, so the raw file is looked at first.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SAMSemiSegLib.errors import InputError

NIFTI_HEADER_SIZE = 348
SINGLE_FILE = b"n+1"
"""In the header of a NIfTI file that holds its voxels too; a .hdr/.img pair says "ni1"."""
NIFTI_TYPES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304)
_META_LOCAL = re.compile(rb"^ElementDataFile\s*=\s*LOCAL\r?\n", re.MULTILINE)
META_BYTES = {
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_LONG", "MET_ULONG", "MET_FLOAT"), 4),
    **dict.fromkeys(("MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"), 8),
}
"""Bytes of a voxel by MetaImage's element types."""


def check_header(path: Path) -> None:
    """Refuse a file whose header has an impossible spacing, or that ends too early.

    Files that are no image of the suffix's format pass: the reader itself will say so.

    Raises:
        InputError: zero, negative or undefined spacing; a voxel type or place of the voxels
            that NIfTI does not know; truncated NIfTI or MetaImage file.
    """
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        _check_nifti(path)
    elif name.endswith(".nrrd"):
        _check_spacing(path, _nrrd_spacing(text_header(path, b"\n\n")))
    elif name.endswith((".mha", ".mhd")):
        header = text_header(path, b"ElementDataFile")
        _check_spacing(path, _meta_spacing(header))
        _check_meta_size(path, header)


def check_compressed(path: Path) -> None:
    """Refuse a file whose compressed voxels are damaged: the readers pass over their check sums.

    Takes about as long as reading the file does.

    Raises:
        InputError: the voxels cannot be unpacked, or end too early.
    """
    place = _compressed_at(path)
    if place is None:
        return
    start, kind = place
    unpacking = zlib.decompressobj(kind)
    try:
        with path.open("rb") as file:
            file.seek(start)
            while not unpacking.eof and (chunk := file.read(1 << 16)):
                unpacking.decompress(chunk)
    except zlib.error as error:
        raise InputError(
            f"'{path}' is damaged: its compressed voxels cannot be unpacked; copy or export it "
            "again."
        ) from error
    if not unpacking.eof:
        raise InputError(_truncated(path))


def _compressed_at(path: Path) -> tuple[int, int] | None:
    """Where the compressed part of a file starts, and its kind for zlib (31 gzip, 15 zlib)."""
    name = path.name.lower()
    if name.endswith(".nii.gz"):
        return 0, 31
    head = _head(path)
    if name.endswith(".nrrd"):
        end = re.search(rb"\r?\n\r?\n", head)
        text = head[: end.start()] if end else b""
        packed = re.search(rb"^encoding: *(gzip|gz)\s*$", text, re.MULTILINE)
        apart = re.search(rb"^data ?file:", text, re.MULTILINE)
        return (end.end(), 31) if end and packed and not apart else None
    if name.endswith(".mha"):
        local = _META_LOCAL.search(head)
        packed = re.search(rb"^CompressedData\s*=\s*True\s*$", head, re.MULTILINE)
        return (local.end(), 15) if local and packed and packed.start() < local.start() else None
    return None


def text_header(path: Path, end: bytes) -> str:
    """The text before ``end`` of a NRRD or MetaImage file (at most 1 MiB of it)."""
    return _head(path).replace(b"\r\n", b"\n").split(end)[0].decode("utf-8", "replace")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1 << 20)


def nifti_header(path: Path) -> bytes:
    """The first 348 bytes of a NIfTI-1 file, decompressed; fewer if it has no more.

    Raises:
        InputError: the file's name ends in .gz but it is not compressed, or is damaged.
    """
    if not path.name.lower().endswith(".gz"):
        with path.open("rb") as file:
            return file.read(NIFTI_HEADER_SIZE)
    try:
        with gzip.open(path, "rb") as compressed:
            return compressed.read(NIFTI_HEADER_SIZE)
    except (EOFError, zlib.error) as error:
        raise InputError(_truncated(path)) from error
    except gzip.BadGzipFile as error:
        raise InputError(
            f"'{path}' is not an image: its name ends in .gz but it is not gzip-compressed; rename "
            "it or export it again."
        ) from error


def byte_order(header: bytes) -> str:
    """``<`` or ``>`` of a NIfTI-1 header, empty if it is none."""
    if len(header) < NIFTI_HEADER_SIZE:
        return ""
    for order in "<>":
        if struct.unpack_from(order + "i", header)[0] == NIFTI_HEADER_SIZE:
            return order
    return ""


def nonfinite_voxels(path: Path) -> int:
    """How many voxels of a NIfTI file of floats are NaN or infinite as stored; 0 for other files.

    The NIfTI library sets them to 0 while reading, so the array does not show them.
    """
    name = path.name.lower()
    header = nifti_header(path) if name.endswith((".nii", ".nii.gz")) else b""
    fields = _nifti_fields(header)
    types = {16: "f4", 64: "f8"}
    if fields is None or fields.code not in types or header[344:347] != SINGLE_FILE:
        return 0
    dtype = np.dtype(fields.order + types[fields.code])
    left = fields.voxels * dtype.itemsize
    count = 0
    with gzip.open(path, "rb") if name.endswith(".gz") else path.open("rb") as file:
        file.seek(int(fields.offset))
        while left > 0 and (chunk := file.read(min(left, 1 << 22))):
            left -= len(chunk)
            voxels = np.frombuffer(chunk, dtype, len(chunk) // dtype.itemsize)
            count += voxels.size - int(np.isfinite(voxels).sum())
    return count


@dataclass(frozen=True)
class _NiftiFields:
    """What a NIfTI-1 header says of the voxels.

    Attributes:
        order: byte order, ``<`` or ``>``.
        voxels: number of them.
        code, bits: of the voxel type.
        offset: bytes before the first voxel.
        spacing: along x, y, z.
    """

    order: str
    voxels: int
    code: int
    bits: int
    offset: float
    spacing: list[float]


def _nifti_fields(header: bytes) -> _NiftiFields | None:
    """The fields of a NIfTI-1 header; None if it is none."""
    order = byte_order(header)
    if not order:
        return None
    dimensions, *sizes = struct.unpack_from(order + "8h", header, 40)
    code, bits = struct.unpack_from(order + "2h", header, 70)
    return _NiftiFields(
        order,
        math.prod(max(n, 1) for n in sizes[: max(dimensions, 0)]),
        code,
        bits,
        struct.unpack_from(order + "f", header, 108)[0],
        list(struct.unpack_from(order + "3f", header, 80)),
    )


def _check_nifti(path: Path) -> None:
    header = nifti_header(path)
    fields = _nifti_fields(header)
    if fields is None:
        return
    if fields.code not in NIFTI_TYPES:
        raise InputError(
            f"'{path}' has the unknown voxel type {fields.code} in its header; copy or export it "
            "again."
        )
    _check_spacing(path, fields.spacing)
    if header[344:347] != SINGLE_FILE:
        return
    if not math.isfinite(fields.offset) or fields.offset < 0:
        raise InputError(
            f"'{path}' has its voxels at the impossible place {fields.offset:g} in its header; "
            "copy or export it again."
        )
    if not _holds(path, int(fields.offset) + fields.voxels * fields.bits // 8):
        raise InputError(_truncated(path))


def _holds(path: Path, expected: int) -> bool:
    """Whether the file has ``expected`` bytes once decompressed."""
    if not path.name.lower().endswith(".gz"):
        return path.stat().st_size >= expected
    # A whole gzip file ends with its decompressed size. Files of several gzip members, or with
    # something behind the image, end with another number: only these are decompressed to count.
    with path.open("rb") as file:
        file.seek(-4, 2)
        if struct.unpack("<I", file.read(4))[0] == expected % 2**32:
            return True
    count = 0
    try:
        with gzip.open(path, "rb") as file:
            while chunk := file.read(1 << 22):
                count += len(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return False
    return count >= expected


def _nrrd_spacing(header: str) -> list[float]:
    directions = re.search(r"^space directions:(.*)$", header, re.MULTILINE)
    if directions:
        vectors = re.findall(r"\(([^)]*)\)", directions[1])
        return [math.hypot(*(_number(x) for x in vector.split(","))) for vector in vectors]
    spacings = re.search(r"^spacings:(.*)$", header, re.MULTILINE)
    kinds = re.search(r"^kinds:(.*)$", header, re.MULTILINE)
    numbers = [_number(x) for x in spacings[1].split()] if spacings else []
    if kinds:  # an axis of components has no spacing
        spatial = ["domain", "space"]
        numbers = [n for n, kind in zip(numbers, kinds[1].split(), strict=False) if kind in spatial]
    return numbers


def _meta_spacing(header: str) -> list[float]:
    for key in ("ElementSpacing", "ElementSize"):
        found = re.search(rf"^{key}\s*=(.*)$", header, re.MULTILINE)
        if found:
            return [_number(x) for x in found[1].split()]
    return []


def _check_meta_size(path: Path, header: str) -> None:
    """Refuse a MetaImage that ends before its last voxel: its library would say so beside us."""
    fields = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", header, re.MULTILINE))
    local = _META_LOCAL.search(_head(path))
    if not local:
        return
    if fields.get("CompressedData", "").lower() == "true":
        size = fields.get("CompressedDataSize", "0")
        expected = int(size) if size.isdigit() else 0
    else:
        width = META_BYTES.get(fields.get("ElementType", ""), 0)
        channels = fields.get("ElementNumberOfChannels", "1")
        sides = [*fields.get("DimSize", "0").split(), channels]
        expected = width * math.prod(int(n) if n.isdigit() else 0 for n in sides)
    if path.stat().st_size - local.end() < expected:
        raise InputError(_truncated(path))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _check_spacing(path: Path, spacing: list[float]) -> None:
    if all(np.isfinite(s) and s > 0 for s in spacing):
        return
    raise InputError(
        f"'{path}' has the voxel spacing {' x '.join(f'{s:g}' for s in spacing)} mm in its header, "
        "which cannot be; correct the header or export the image again."
    )


def _truncated(path: Path) -> str:
    return f"'{path}' is truncated: it ends before its last voxel; copy or export it again."
