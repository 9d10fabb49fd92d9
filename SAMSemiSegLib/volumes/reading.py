"""Reading images and labels, each refused with a sentence if it cannot be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.volumes import dicom, segmentation
from SAMSemiSegLib.volumes.access import told_if_unreadable
from SAMSemiSegLib.volumes.formats import FORMATS, check_name, suffix_of
from SAMSemiSegLib.volumes.grids import check_same_patient, describe_resampling, same_grid
from SAMSemiSegLib.volumes.headers import check_compressed, check_header, nonfinite_voxels
from SAMSemiSegLib.volumes.volume import Geometry, Volume

if TYPE_CHECKING:
    import SimpleITK as sitk


@told_if_unreadable
def read_image(path: Path) -> Volume:
    """Read a scan: one component, 3D, finite, not constant. The voxel type is the file's.

    Args:
        path: a file, or a folder that holds the slices of one DICOM series.

    Raises:
        InputError: one sentence that names the file and what is wrong with it.
    """
    segmentation.refuse(path)
    volume = Volume.from_sitk(_read(path))
    array = volume.array
    count = nonfinite_voxels(path)
    if not count and np.issubdtype(array.dtype, np.floating):
        count = int(array.size - np.isfinite(array).sum())
    if count:
        raise InputError(
            f"'{path}' has {count} NaN or infinite voxels; replace them (by the value of "
            "air, say) and import it again."
        )
    if array.min() == array.max():
        raise InputError(
            f"'{path}' is constant: every voxel is {array.flat[0]:g}; export the scan again."
        )
    return volume


@told_if_unreadable
def read_image_geometry(path: Path) -> Geometry:
    """The grid of a scan by its header alone (of a DICOM folder: by its slices).

    Raises:
        InputError: not a scan, not 3D, impossible spacing, truncated as far as can be seen.
    """
    segmentation.refuse(path)
    return read_grid(path)


@told_if_unreadable
def read_grid(path: Path) -> Geometry:
    """As :func:`read_image_geometry`, of a scan or of a label."""
    if path.is_dir():
        return Geometry.of(dicom.read_series(path))
    return _grid(_open(path))


@told_if_unreadable
def read_labels(
    path: Path,
    values: Sequence[int],
    like: Geometry,
    names: Sequence[str] | None = None,
    own: bool = False,
) -> tuple[Volume, str | None]:
    """Read a label onto its image's grid as channel indices.

    Args:
        path: a label map, or a segmentation saved by Slicer (.seg.nrrd).
        values: the label set's values; a voxel of ``values[i]`` becomes ``i + 1``, 0 stays 0.
        like: the geometry of the image.
        names: the label set's names, by which the segments of a .seg.nrrd are found first.
        own: a run of the project wrote the file; its segments are found by their values first, as
            voxels of label maps are, for labels may have been renamed since.

    Returns:
        A uint8 volume on exactly the grid ``like``, and what the user should be told: resampled,
        overlapping segments. ``None`` if there is nothing.

    Raises:
        InputError: no label map, values outside the label set, empty, or another patient's.
    """
    image = _read_label(path)
    notes: list[str] = []
    segments = segmentation.segments_of(path, image)
    if segments:
        channels, note = segmentation.flatten(path, image, segments, values, names, own)
        notes += [note] if note else []
    else:
        channels = _channels(path, image, values)
    if not channels.array.any():
        raise InputError(
            f"The label '{path}' is empty: it has background only; label the case or leave the "
            "file out."
        )
    return _onto(path, channels, like, notes)


@told_if_unreadable
def label_values(path: Path) -> dict[int, str]:
    """The values a label file holds, in rising order, each with its segment's name or "".

    Raises:
        InputError: no label map.
    """
    image = _read_label(path)
    segments = segmentation.segments_of(path, image)
    if segments:
        if len({s.value for s in segments}) == len(segments):
            return {s.value: s.name for s in sorted(segments, key=lambda s: s.value)}
        return {i + 1: s.name for i, s in enumerate(segments)}
    raw = _whole_numbers(path, Volume.from_sitk(image).array)
    return {int(v): "" for v in np.unique(raw) if v > 0}


@told_if_unreadable
def check_label_geometry(path: Path, like: Geometry) -> str | None:
    """Refuse by its header a label that cannot belong to the image; the sentence if resampled.

    Raises:
        InputError: as :func:`SAMSemiSegLib.volumes.grids.check_same_patient`.
    """
    grid = _grid(_open(path, segmentation_allowed=True))
    check_same_patient(path, grid, like)
    return None if same_grid(grid, like) else describe_resampling(path, grid, like)


def _grid(reader: sitk.ImageFileReader) -> Geometry:
    """By the header, without trailing axes of one."""
    matrix = np.array(reader.GetDirection()).reshape(reader.GetDimension(), -1)[:3, :3]
    return Geometry(
        reader.GetSize()[:3],
        reader.GetSpacing()[:3],
        reader.GetOrigin()[:3],
        tuple(matrix.ravel().tolist()),
    )


def _open(path: Path, segmentation_allowed: bool = False) -> sitk.ImageFileReader:
    """A reader that has read the header of a single-component 3D file."""
    import SimpleITK as sitk

    check_name(path)
    if not path.exists():
        raise InputError(f"There is no file '{path}'; check the path.")
    if path.is_dir():
        raise InputError(f"'{path}' is a folder; give one of its files.")
    if not suffix_of(path):
        raise InputError(f"'{path}' is not an image of a known format; give {FORMATS}.")
    if path.stat().st_size == 0:
        raise InputError(f"'{path}' is not an image: the file is empty; copy or export it again.")
    check_header(path)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ours are the sentences
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise InputError(
                f"'{path}' has axes that do not stand at right angles (a sheared grid); resample "
                "it to a regular grid, in Slicer by Resample Scalar/Vector/DWI Volume."
            ) from error
        raise InputError(
            f"'{path}' is not an image that can be read, or its header is damaged; copy or export "
            "it again."
        ) from error
    size = reader.GetSize()
    if len(size) < 3 or (len(size) == 3 and min(size) < 2 and not segmentation_allowed):
        raise InputError(
            f"'{path}' is a 2D image ({'x'.join(map(str, size))}); give a 3D volume of at least "
            "two slices along each axis."
        )
    if len(size) > 3 and max(size[3:]) > 1:
        raise InputError(
            f"'{path}' is a {len(size)}D image ({'x'.join(map(str, size))}); give one 3D volume "
            "(split the time points or channels into a file each)."
        )
    if reader.GetNumberOfComponents() > 1 and not segmentation_allowed:
        raise InputError(
            f"'{path}' has {reader.GetNumberOfComponents()} values at each voxel (color or vector "
            "image); give a scan with one gray value at each voxel."
        )
    return reader


def _read(path: Path, segmentation_allowed: bool = False) -> sitk.Image:
    """A 3D image; several components only for a segmentation's layers."""
    if path.is_dir() and not segmentation_allowed:
        return dicom.read_series(path)
    reader = _open(path, segmentation_allowed)
    check_compressed(path)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(
            f"'{path}' is truncated or damaged: its header can be read but not its voxels; copy "
            "or export it again."
        ) from error
    while image.GetDimension() > 3:  # a trailing axis of one
        image = image[..., 0]
    if "complex" in image.GetPixelIDTypeAsString():
        raise InputError(f"'{path}' has complex voxels; export its magnitude image.")
    if image.GetNumberOfComponentsPerPixel() > 1 and not segmentation.segments_of(path, image):
        raise InputError(
            f"'{path}' has {image.GetNumberOfComponentsPerPixel()} values at each voxel but no "
            "segments; give a label map or a .seg.nrrd saved by Slicer."
        )
    return image


def _read_label(path: Path) -> sitk.Image:
    """A label map, or a segmentation's layers; no voxel is undefined."""
    image = _read(path, segmentation_allowed=True)
    if count := nonfinite_voxels(path):
        raise InputError(
            f"'{path}' is not a label map: {count} of its voxels are NaN or infinite; export the "
            "label again."
        )
    return image


def _whole_numbers(path: Path, array: np.ndarray) -> np.ndarray:
    if np.issubdtype(array.dtype, np.floating):
        # Beyond 2^53 not every whole number is there, and at 2^63 they end.
        if not (np.abs(array) < 2**53).all() or np.any(array != np.round(array)):
            raise InputError(
                f"'{path}' is not a label map: its voxels are not whole numbers; give the label, "
                "not the image."
            )
        return array.astype(np.int64)
    return array


def _channels(path: Path, image: sitk.Image, values: Sequence[int]) -> Volume:
    volume = Volume.from_sitk(image)
    array = _whole_numbers(path, volume.array)
    present = np.unique(array)
    unknown = [int(v) for v in present if v != 0 and int(v) not in values]
    if unknown:
        listed = ", ".join(map(str, unknown[:5])) + (" and more" if len(unknown) > 5 else "")
        raise InputError(
            f"The label '{path}' has the values {listed}, which are not in the project's label "
            f"set ({', '.join(map(str, values)) or 'empty'}); correct the label or add them to "
            "the label set."
        )
    channels = np.zeros(array.shape, np.uint8)
    for index, value in enumerate(values):
        channels[array == value] = index + 1
    return Volume(channels, volume.geometry)


def _onto(path: Path, label: Volume, like: Geometry, notes: list[str]) -> tuple[Volume, str | None]:
    """The label on the grid ``like``, resampled where it must be."""
    if not same_grid(label.geometry, like):
        check_same_patient(path, label.geometry, like)
        resampled = _resample(label, like)
        # What is lost outside the image, in mm³, against what was drawn.
        kept = (resampled > 0).sum() * np.prod(like.spacing)
        drawn = (label.array > 0).sum() * np.prod(label.geometry.spacing)
        if kept < 0.5 * drawn:
            raise InputError(
                f"The label '{path}' lies for the most part outside its image; check that they "
                "belong to the same patient and that both headers have the right origin."
            )
        notes.append(describe_resampling(path, label.geometry, like))
        label = Volume(resampled, like)
    return Volume(label.array, like), " ".join(notes) or None


def _resample(label: Volume, like: Geometry) -> np.ndarray:
    """Label-Gaussian interpolation where voxel sides differ (each voxel takes the label with the
    most weight around it), nearest neighbor where grids are only shifted or cropped."""
    import SimpleITK as sitk

    reference = sitk.Image(like.size, sitk.sitkUInt8)
    like.apply_to(reference)
    alike = np.allclose(sorted(label.geometry.spacing), sorted(like.spacing), rtol=1e-3)
    interpolator = sitk.sitkNearestNeighbor if alike else sitk.sitkLabelGaussian
    image = sitk.Resample(label.to_sitk(), reference, sitk.Transform(), interpolator, 0)
    return Volume.from_sitk(image).array
