"""What is read, and the one sentence for each file that cannot be."""

import contextlib
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.volumes.dicom import names_patient
from SAMSemiSegLib.volumes.reading import (
    check_label_geometry,
    read_image,
    read_image_geometry,
    read_labels,
)
from SAMSemiSegLib.volumes.volume import Geometry, Volume
from SAMSemiSegLib.volumes.writing import write_image, write_labels

NAMES, VALUES, COLORS = ["front", "back"], [2, 5], [(200, 10, 10), (10, 200, 10)]
SUFFIXES = [".nrrd", ".nii", ".nii.gz", ".mha"]


@pytest.fixture
def phantom(make_phantom) -> tuple[Volume, Volume]:
    return make_phantom((24, 28, 20), 0)


def refused(path: Path, word: str, read=read_image) -> str:
    with pytest.raises(InputError, match=word) as error:
        read(path)
    sentence = str(error.value)
    assert path.name in sentence and "\n" not in sentence and ";" in sentence
    return sentence


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_image_is_read_with_its_type_and_geometry(tmp_path, phantom, suffix):
    path = tmp_path / "Bild mit Größe 肝" / f"scan é{suffix}"
    write_image(path, phantom[0])
    back = read_image(path)
    assert back.array.dtype == np.float32 and back.array.shape == (24, 28, 20)
    np.testing.assert_array_equal(back.array, phantom[0].array)
    assert back.geometry == phantom[0].geometry == read_image_geometry(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_image_or_ends_early_is_refused(tmp_path, phantom, suffix):
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(b"this is no image " * 100)
    refused(path, "not an image")
    path.write_bytes(b"")
    refused(path, "empty")
    write_image(path, phantom[0])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    refused(path, "truncated")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_metaimage_is_told_in_one_sentence(tmp_path, phantom, compressed, capfd):
    """Its library would print two lines of its own beside ours."""
    path = tmp_path / "scan.mha"
    sitk.WriteImage(phantom[0].to_sitk(), str(path), compressed)
    whole = path.read_bytes()
    assert read_image(path).geometry == phantom[0].geometry
    path.write_bytes(whole[:-10])
    capfd.readouterr()
    refused(path, "truncated")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz", ".mha"])
def test_compressed_voxels_that_were_damaged_are_told(tmp_path, phantom, suffix, capfd):
    """The readers give what they could unpack, without a word or with one of their own."""
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(phantom[0].to_sitk(), str(path), True)
    assert read_image(path).geometry == phantom[0].geometry
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) * 2 // 3] ^= 0x55
    path.write_bytes(damaged)
    capfd.readouterr()
    refused(path, "damaged")
    assert capfd.readouterr() == ("", "")


def test_nothing_but_the_sentence_is_said_of_odd_headers(tmp_path, phantom, capfd):
    path = tmp_path / "scan.nii"
    write_image(path, phantom[0])
    whole = path.read_bytes()
    capfd.readouterr()
    odd = [(70, struct.pack("<h", 99)), (280, struct.pack("<f", 3.0))]
    odd += [(108, struct.pack("<f", offset)) for offset in (math.nan, math.inf, -1e30)]
    for place, value in odd:
        path.write_bytes(whole[:place] + value + whole[place + len(value) :])
        if place == 70:
            refused(path, "voxel type 99")
        elif place == 108:
            refused(path, "impossible place (nan|inf|-1e\\+30)")
        else:
            read_image(path)  # an sform of another scale: the qform counts
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("no slice")
    refused(tmp_path / "folder", "no DICOM slices")
    assert capfd.readouterr() == ("", "")


def test_a_nifti_file_with_something_behind_the_image_is_whole(tmp_path, phantom):
    path = tmp_path / "scan.nii"
    write_image(path, phantom[0])
    path.write_bytes(path.read_bytes() + b"tail")
    assert read_image(path).geometry == phantom[0].geometry


def test_missing_file_unknown_suffix_and_folder_without_slices(tmp_path):
    refused(tmp_path / "none.nrrd", "no file")
    (tmp_path / "table.csv").write_text("1,2")
    refused(tmp_path / "table.csv", "known format")
    refused(tmp_path, "no DICOM slices")


def test_images_of_other_dimensions_are_refused(tmp_path):
    def write(name: str, array: np.ndarray, is_vector: bool = False) -> Path:
        sitk.WriteImage(sitk.GetImageFromArray(array, isVector=is_vector), str(tmp_path / name))
        return tmp_path / name

    random = np.random.default_rng(0)
    refused(write("flat.nrrd", random.random((6, 5))), "2D")
    refused(write("slice.nii.gz", random.random((1, 6, 5))), "2D")
    refused(write("time.nii.gz", random.random((3, 4, 6, 5))), "4D")
    refused(write("color.nrrd", random.random((4, 6, 5, 3)), True), "3 values at each voxel")
    array = random.random((1, 4, 6, 5))
    assert read_image(write("one.nii", array)).array.shape == (5, 6, 4)


def test_voxels_that_cannot_be_trained_on_are_refused(tmp_path, phantom):
    array = phantom[0].array.copy()
    array[1, 2, 3] = np.nan
    array[2, 2, 3] = np.inf
    for suffix in SUFFIXES:
        write_image(tmp_path / f"holes{suffix}", Volume(array, phantom[0].geometry))
        refused(tmp_path / f"holes{suffix}", "has 2 NaN or infinite voxels")
    flat = Volume(np.full_like(array, 7), phantom[0].geometry)
    write_image(tmp_path / "flat.nrrd", flat)
    refused(tmp_path / "flat.nrrd", "constant")


@pytest.mark.parametrize("spacing", ["0", "-1.5"])
def test_impossible_spacings_are_seen_in_the_raw_header(tmp_path, phantom, spacing):
    for suffix in SUFFIXES:
        write_image(tmp_path / f"scan{suffix}", phantom[0])
    nifti = tmp_path / "scan.nii"
    data = bytearray(nifti.read_bytes())
    struct.pack_into("<f", data, 84, float(spacing))
    nifti.write_bytes(data)
    refused(nifti, f"spacing 1 x {spacing} x 1")
    with pytest.raises(InputError):
        read_image_geometry(nifti)

    meta = tmp_path / "scan.mha"
    old, new = b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 %s 1" % spacing.encode()
    meta.write_bytes(meta.read_bytes().replace(old, new))
    refused(meta, "spacing")

    nrrd = tmp_path / "scan.nrrd"
    head, voxels = nrrd.read_bytes().split(b"\n\n", 1)
    lines = [x for x in head.split(b"\n") if not x.startswith((b"space", b"kinds"))]
    lines.append(b"spacings: 1 %s 1" % spacing.encode())
    nrrd.write_bytes(b"\n".join(lines) + b"\n\n" + voxels)
    refused(nrrd, "spacing")


def test_a_sheared_grid_is_refused(tmp_path, phantom):
    path = tmp_path / "sheared.nii"
    write_image(path, phantom[0])
    data = bytearray(path.read_bytes())
    struct.pack_into("<hh", data, 252, 0, 1)  # the affine alone holds
    struct.pack_into("<f", data, 284, 0.4)
    path.write_bytes(data)
    refused(path, "right angles")


def test_labels_come_as_channel_indices(tmp_path, phantom):
    image, channels = phantom
    write_labels(tmp_path / "label.nii.gz", channels, NAMES, VALUES, COLORS)
    raw = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "label.nii.gz")))
    assert set(np.unique(raw)) == {0, 2, 5}
    back, note = read_labels(tmp_path / "label.nii.gz", VALUES, image.geometry)
    np.testing.assert_array_equal(back.array, channels.array)
    assert note is None and back.array.dtype == np.uint8 and back.geometry == image.geometry


def test_labels_that_do_not_fit_the_label_set_are_refused(tmp_path, phantom):
    image, channels = phantom

    def read(path: Path) -> None:
        read_labels(path, [2], image.geometry)

    write_labels(tmp_path / "more.nrrd", channels, NAMES, VALUES, COLORS)
    assert "values 5" in refused(tmp_path / "more.nrrd", "label set", read)
    empty = Volume(np.zeros_like(channels.array), image.geometry)
    write_labels(tmp_path / "empty.nrrd", empty, NAMES, VALUES, COLORS)
    refused(tmp_path / "empty.nrrd", "empty", read)
    write_image(tmp_path / "scan.nrrd", image)
    refused(tmp_path / "scan.nrrd", "not whole numbers", read)
    # The NIfTI library would read them as background.
    undefined = channels.array.astype(np.float32)
    undefined[0, 0, :2] = np.nan
    sitk.WriteImage(Volume(undefined, image.geometry).to_sitk(), str(tmp_path / "nan.nii.gz"))
    refused(tmp_path / "nan.nii.gz", "2 of its voxels are NaN", read)


def test_what_a_damaged_header_cannot_say_is_no_program_error(tmp_path, phantom, recwarn):
    """Found by changing bytes of headers at random."""
    image, channels = phantom
    path = tmp_path / "label.seg.nrrd"
    write_labels(path, channels, NAMES, VALUES, COLORS)
    color = b"Segment0_Color:=0.784314 0.0392157 0.0392157"
    whole = path.read_bytes()
    assert color in whole
    path.write_bytes(whole.replace(color, b"Segment0_Color:=inf 0 0"))
    labels, _ = read_labels(path, VALUES, image.geometry, NAMES)
    np.testing.assert_array_equal(labels.array, channels.array)

    # No single file by its magic word, so that its voxels are said to lie elsewhere, at 1e30.
    path = tmp_path / "scan.nii"
    write_image(path, image)
    data = bytearray(path.read_bytes())
    data[344:347] = b"nix"
    struct.pack_into("<f", data, 108, 1e30)
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        read_image(path)

    path = tmp_path / "huge.nrrd"
    write_image(path, Volume(np.float32(1e30) * channels.array, image.geometry))
    refused(path, "not whole numbers", lambda path: read_labels(path, VALUES, image.geometry))
    assert not recwarn.list


def test_a_label_on_another_grid_is_resampled_and_said_so(tmp_path, phantom):
    image, channels = phantom
    finer = sitk.Image((48, 42, 20), sitk.sitkUInt8)
    finer.SetSpacing((0.5, 28 / 42, 1.0))
    finer.SetOrigin((-0.25, 28 / 84 - 0.5, 0.0))
    label = sitk.Resample(channels.to_sitk(), finer, sitk.Transform(), sitk.sitkNearestNeighbor)
    path = tmp_path / "finer.nrrd"
    sitk.WriteImage(label, str(path))
    back, note = read_labels(path, [1, 2], image.geometry)
    assert back.geometry == image.geometry
    assert note is not None and "resampled" in note and "48x42x20" in note
    assert check_label_geometry(path, image.geometry) == note
    for channel in (1, 2):
        a, b = back.array == channel, channels.array == channel
        assert 2 * np.sum(a & b) / (a.sum() + b.sum()) > 0.95

    # A crop around the organ is put back in its place, voxel by voxel.
    sitk.WriteImage(channels.to_sitk()[2:22, 3:26, 1:19], str(path))
    back, note = read_labels(path, [1, 2], image.geometry)
    assert note is not None
    np.testing.assert_array_equal(back.array[2:22, 3:26, 1:19], channels.array[2:22, 3:26, 1:19])


def test_a_label_of_another_patient_is_refused(tmp_path, phantom, make_phantom):
    grid = phantom[0].geometry
    other = make_phantom((26, 27, 20), 1)[1]
    label = phantom[1]

    def write(volume: Volume, **changed) -> Path:
        geometry = Geometry(**{**volume.geometry.__dict__, **changed})
        path = tmp_path / "label.nrrd"
        write_labels(path, Volume(volume.array, geometry), NAMES, [1, 2], COLORS)
        return path

    def read(path: Path) -> None:
        with pytest.raises(InputError):
            check_label_geometry(path, grid)
        read_labels(path, [1, 2], grid)

    refused(write(other), "another patient", read)
    refused(write(label, spacing=(2.0, 2.0, 2.0)), "header was lost", read)
    refused(write(label, origin=(500.0, 0.0, 0.0)), "does not overlap", read)
    refused(write(other, spacing=(3.0, 3.0, 3.0), origin=(-20.0, 0.0, 0.0)), "another size", read)


def test_dicom_folders_are_read_in_order(dicom_folder, tmp_path):
    folder = dicom_folder / "t2_22_slices"
    volume = read_image(folder)
    assert volume.array.shape == (512, 512, 22)
    assert volume.geometry == read_image_geometry(folder)
    assert volume.geometry.spacing == pytest.approx((0.4297, 0.4297, 6.5), abs=1e-4)

    series = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(dicom_folder / "hippocampus_crop"))
    gap = tmp_path / "gap"
    gap.mkdir()
    for i, name in enumerate(series):
        if i != 10:
            (gap / f"{i}.dcm").symlink_to(name)
    refused(gap, "gap of 2 mm")
    for name in sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)):
        (gap / f"t2_{Path(name).name}").symlink_to(name)
    refused(gap, "2 DICOM series")


def slices(folder: Path, places: list[tuple[float, float, float]], **tags: str) -> Path:
    """A DICOM series whose slices lie at these places (mm)."""
    folder.mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, place in enumerate(places, 1):
        image = sitk.GetImageFromArray(np.arange(64, dtype=np.int16).reshape(8, 8) + number)
        image.SetSpacing((2, 2))
        content = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"1.2.3.{number}",
            "0008|0060": "CT",
            "0020|000d": "1.2",
            "0020|000e": "1.2.3",
            "0020|0013": str(number),
            "0020|0032": "\\".join(map(str, place)),
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|0030": "2\\2",
            **{key.replace("_", "|"): value for key, value in tags.items()},
        }
        for key, value in content.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{number:03}.dcm"))
        writer.Execute(image)
    return folder


def test_dicom_slices_that_are_no_regular_stack_are_refused(tmp_path):
    """ITK would place them as if they were one."""
    straight = [(0.0, 0.0, 3.0 * i) for i in range(8)]
    assert read_image(slices(tmp_path / "good", straight)).geometry.spacing == (2, 2, 3)
    tilted = [(0.0, 1.0 * i, 3.0 * i) for i in range(8)]
    refused(slices(tmp_path / "tilted", tilted), "tilted gantry")
    thin_then_thick = [(0.0, 0.0, 2.5 * min(i, 4) + 5.0 * max(i - 4, 0)) for i in range(12)]
    refused(slices(tmp_path / "mixed", thin_then_thick), "2.5 to 5 mm apart")
    refused(slices(tmp_path / "nowhere", [(0.0, 0.0, 0.0)] * 8), "do not say where they lie")
    twice = [place for place in straight for _ in range(2)]
    refused(slices(tmp_path / "times", twice), "several slices at one place")
    echoes = slices(tmp_path / "echoes", straight + straight)
    refused(echoes, "several slices at one place")


def test_a_dicom_file_of_many_slices_is_called_so(tmp_path):
    sitk.WriteImage(sitk.Image(8, 8, 4, sitk.sitkUInt16), str(tmp_path / "many.dcm"))
    refused(tmp_path, "many DICOM slices in one file")


@pytest.mark.parametrize("search", ["GetGDCMSeriesIDs", "GetGDCMSeriesFileNames"])
def test_slices_that_gdcm_stumbles_over_are_told_in_a_sentence(tmp_path, monkeypatch, search):
    """Some damaged headers it does not pass over but throws at."""
    folder = slices(tmp_path / "series", [(0.0, 0.0, 3.0 * i) for i in range(4)])

    def throw(*_):
        raise RuntimeError("Exception thrown in SimpleITK")

    monkeypatch.setattr(f"SimpleITK.ImageSeriesReader.{search}", throw)
    read = read_image if search == "GetGDCMSeriesIDs" else names_patient
    refused(folder, "a damaged file", read)
