"""A folder of DICOM slices as one volume."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.volumes.access import told_if_unreadable
from SAMSemiSegLib.volumes.formats import check_name

if TYPE_CHECKING:
    import SimpleITK as sitk

PATIENT_NAME = "0010|0010"
NUMBERS = ("0010|0020", "0008|0050")
"""Of the patient, of the examination (the accession number)."""
DAYS = ("0010|0030", "0008|0020")
"""Of birth, of the examination."""
CHARACTER_SETS = (
    *("utf-8", "gb18030", "big5", "iso2022_jp_1", "shift_jis", "euc_kr"),
    *("iso8859-1", "iso8859-2", "iso8859-5", "iso8859-7"),
)
"""In which names are found in DICOM files."""
ANNOUNCEMENT = rb"\x1b(?:\$\)|-|\))[@-Z]"
"""Of a second set by ISO 2022, which Python's codecs take for given."""


@told_if_unreadable
def is_series_folder(folder: Path) -> bool:
    """Whether the folder itself (not a sub-folder) holds DICOM files, by their magic word."""
    files = (p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith("."))
    for path in files:
        if path.name == "DICOMDIR":
            continue
        with path.open("rb") as file:
            if file.read(132)[128:] == b"DICM":
                return True
    return False


@told_if_unreadable
def names_patient(folder: Path) -> bool:
    """Whether the folder's name holds a part of the name of the patient whose slices it holds, the
    number of the patient or of the examination, or the day of birth or of the examination. Where
    the slices say that the identity was removed, it is no patient's."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    with _damage_told(folder):
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
        if not files:
            return False
        reader.SetFileName(files[0])
        reader.ReadImageInformation()

    def value(tag: str) -> str:
        return reader.GetMetaData(tag).strip() if reader.HasMetaDataKey(tag) else ""

    if value("0012|0062").casefold() == "yes":
        return False
    own = _folded(folder.resolve().name)
    names = {group for name in _decoded(value(PATIENT_NAME)) for group in name.split("=")}
    days = {day for tag in DAYS for day in _written(re.sub(r"\D", "", value(tag)))}
    return (
        any(_has_name(own, name) for name in names)
        or any(_has_number(own, re.sub(r"[\W_]", "", _folded(value(tag)))) for tag in NUMBERS)
        or any(day in re.sub(r"[\W_]", "", own) for day in days)
    )


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _decoded(text: str) -> set[str]:
    """What a field may say, whose bytes ITK takes for UTF-8 in whatever character set they are. In
    the wrong ones it says what is no folder's name."""
    raw = text.encode("utf-8", "surrogateescape")
    raw = re.sub(ANNOUNCEMENT, b"", raw)
    return {_folded(raw.decode(codec, "ignore")) for codec in CHARACTER_SETS}


def _has_name(own: str, name: str) -> bool:
    """Whether a folder's name holds a name's longer parts, or all of them."""
    words, joined = set(re.findall(r"[^\W_]+", own)), re.sub(r"[\W_]", "", own)
    parts = re.findall(r"[^\W\d_]+", name)
    # Shorter parts (initials, "Dr") would be found in any name, but not all of them together.
    if any(len(part) >= (3 if _is_latin(part) else 2) and part in own for part in parts):
        return True
    whole = ("".join(parts), "".join(reversed(parts)))
    long = len(whole[0]) >= (4 if _is_latin(whole[0]) else 2)
    return bool(parts) and (words.issuperset(parts) or (long and any(w in joined for w in whole)))


def _is_latin(word: str) -> bool:
    """Others, such as Chinese characters, say more with fewer letters."""
    return any("LATIN" in unicodedata.name(letter, "") for letter in word)


def _has_number(own: str, number: str) -> bool:
    words, joined = re.findall(r"[^\W_]+", own), re.sub(r"[\W_]", "", own)
    return bool(number) and (number in words or (len(number) > 3 and number in joined))


def _written(date: str) -> tuple[str, ...]:
    """The digits of a DICOM date (YYYYMMDD) in the orders in which people write it."""
    year, month, day = date[:4], date[4:6], date[6:]
    return (date, day + month + year, month + day + year) if len(date) == 8 else ()


def read_series(folder: Path) -> sitk.Image:
    """The slices of the one series in ``folder``, in order, as a 3D image.

    Raises:
        InputError: no series, several, one slice, color, slices missing or of unequal size, or
            that do not lie behind each other at equal steps.
    """
    import SimpleITK as sitk

    if not folder.exists():
        raise InputError(f"There is no folder '{folder}'; check the path.")
    for path in folder.iterdir():
        check_name(path)
        if path.is_file():  # a slice that may not be read would be passed over without a word
            path.open("rb").close()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ours are the sentences
    with _damage_told(folder):
        found = any(folder.iterdir())
        series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)) if found else ()
    if not series:
        raise InputError(
            f"The folder '{folder}' holds no DICOM slices; give a folder of one DICOM series or "
            "an image file."
        )
    if len(series) > 1:
        counts = [
            f"{uid} ({len(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid))} slices)"
            for uid in series
        ]
        raise InputError(
            f"The folder '{folder}' holds {len(series)} DICOM series: {', '.join(counts)}; put "
            "the slices of each into a folder of its own."
        )
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    if len(files) == 1 and _slice_count(files[0]) > 1:
        raise InputError(
            f"'{files[0]}' holds many DICOM slices in one file, which is not read here; load it in "
            "Slicer and save it as .nrrd."
        )
    if len(files) < 2:
        raise InputError(
            f"The folder '{folder}' holds one DICOM slice, which is 2D; give all slices of the "
            "series."
        )
    _check_slices(folder, files)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    with _damage_told(folder):
        image = reader.Execute()
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(f"The DICOM slices in '{folder}' are in color; give a gray-value series.")
    return image


@contextmanager
def _damage_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            f"The DICOM slices in '{folder}' cannot be read as one volume (a damaged file, or "
            "slices of unequal size); export the series again."
        ) from error


def _slice_count(file: str) -> int:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return 0
    return int(reader.GetSize()[2]) if reader.GetDimension() > 2 else 1


def _check_slices(folder: Path, files: tuple[str, ...]) -> None:
    """Refuse slices that are no regular stack: ITK would only warn, and place them as if."""
    import SimpleITK as sitk

    positions, normal = [], np.zeros(3)
    sides = [1.0]
    reader = sitk.ImageFileReader()
    for name in files:
        reader.SetFileName(name)
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise InputError(
                f"'{name}' cannot be read as a DICOM slice; export the series again."
            ) from error
        if reader.HasMetaDataKey("0028|0030"):
            spacing = reader.GetMetaData("0028|0030").strip().split("\\")
            sides = [_millimeters(side) for side in spacing]
            if not all(side > 0 for side in sides):
                raise InputError(
                    f"'{name}' has the pixel spacing '{' x '.join(spacing)}' mm, which cannot be; "
                    "export the series again."
                )
        direction = np.array(reader.GetDirection()).reshape(reader.GetDimension(), -1)
        normal = direction[:, 2] if direction.shape[0] > 2 else normal
        positions.append(reader.GetOrigin())
    places = np.array(positions)[:, : len(normal)]
    along = places @ normal
    steps = np.abs(np.diff(np.sort(along)))
    step = float(np.median(steps[steps > 1e-3])) if steps.max() > 1e-3 else 0.0
    if not step:
        raise InputError(
            f"The DICOM slices in '{folder}' do not say where they lie; export the series again."
        )
    if steps.min() < 0.01 * step:
        raise InputError(
            f"The DICOM series in '{folder}' has several slices at one place; put each time point "
            "into a folder of its own."
        )
    if steps.max() > 1.5 * step:
        place = int(steps.argmax()) + 1
        raise InputError(
            f"The DICOM series in '{folder}' has a gap of {steps.max():.4g} mm after slice {place} "
            f"(others lie {step:.4g} mm apart); export the missing slices."
        )
    even = along[0] + (along[-1] - along[0]) * np.linspace(0, 1, len(along))
    if np.abs(along - even).max() > 0.5 * step:
        raise InputError(
            f"The DICOM slices in '{folder}' lie {steps.min():.4g} to {steps.max():.4g} mm apart; "
            "resample them to equal steps, in Slicer's DICOM module (acquisition geometry "
            "regularization), and save the volume as .nrrd."
        )
    # What a slice lies aside of the one before it, within its own plane.
    aside = places - places[0] - np.outer(along - along[0], normal)
    if np.abs(aside).max() > max(0.2 * min(sides), 1e-2):
        raise InputError(
            f"The DICOM slices in '{folder}' do not lie straight behind each other (a tilted "
            "gantry); load them in Slicer's DICOM module, which straightens them, and save the "
            "volume as .nrrd."
        )


def _millimeters(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
