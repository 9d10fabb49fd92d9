"""Results lie where their source lies, to the last bit of the header."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.volumes.reading import (
    label_values,
    read_grid,
    read_image,
    read_image_geometry,
    read_labels,
)
from SAMSemiSegLib.volumes.volume import Geometry, Volume
from SAMSemiSegLib.volumes.writing import write_image, write_labels

NAMES, VALUES, COLORS = ["Vorhof links", "Κόλπος"], [1, 4], [(255, 0, 0), (10, 20, 30)]


def labels_on(geometry: Geometry, seed: int = 0) -> Volume:
    array = np.random.default_rng(seed).integers(0, 3, geometry.size).astype(np.uint8)
    return Volume(array, geometry)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".seg.nrrd"])
def test_labels_lie_on_the_grid_of_real_scans(
    hippocampus_folder, la_folder, dicom_folder, tmp_path, suffix
):
    sources = [
        *sorted((hippocampus_folder / "images").iterdir())[:5],
        *sorted((la_folder / "images").iterdir())[:1],
    ]
    for source in sources:
        grid = read_image_geometry(source)
        path = tmp_path / f"out{suffix}"
        write_labels(path, labels_on(grid), NAMES, VALUES, COLORS, source=source)
        assert read_grid(path) == grid, source

    oblique = read_image_geometry(dicom_folder / "t2_22_slices")
    small = Geometry((6, 5, 4), oblique.spacing, oblique.origin, oblique.direction)
    write_labels(tmp_path / f"out{suffix}", labels_on(small), NAMES, VALUES, COLORS)
    back = read_grid(tmp_path / f"out{suffix}")
    exactness = {".mha": 0, ".nrrd": 1e-14, ".seg.nrrd": 1e-14, ".nii.gz": 1e-5}[suffix]
    for part in ("spacing", "origin", "direction"):
        np.testing.assert_allclose(getattr(back, part), getattr(small, part), 0, exactness)


@pytest.mark.parametrize("source_suffix", [".nii.gz", ".nii", ".nrrd"])
@pytest.mark.parametrize("seed", range(5))
def test_an_oblique_source_is_matched_to_the_last_bit(tmp_path, source_suffix, seed):
    random = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix()
    image = sitk.GetImageFromArray(random.normal(size=(4, 5, 6)).astype(np.float32))
    image.SetSpacing(random.uniform(0.3, 5, 3).tolist())
    image.SetOrigin((200 * random.normal(size=3)).tolist())
    image.SetDirection(turn.ravel().tolist())
    source = tmp_path / f"source{source_suffix}"
    sitk.WriteImage(image, str(source))
    grid = read_image(source).geometry
    target_suffix = ".seg.nrrd" if source_suffix == ".nrrd" else ".nii.gz"
    target = tmp_path / f"target{target_suffix}"
    label = labels_on(grid, seed)
    write_labels(target, label, NAMES, VALUES, COLORS, source=source)
    assert read_grid(target) == grid
    back, note = read_labels(target, VALUES, grid, NAMES)
    assert note is None
    np.testing.assert_array_equal(back.array, label.array)


def test_slicer_finds_every_key_of_a_segmentation(tmp_path):
    grid = Geometry.upright((6, 5, 4))
    array = np.zeros(grid.size, np.uint8)
    array[1:3, 2:5, 0:2] = 1
    array[4, 0, 3] = 2
    path = tmp_path / "out.seg.nrrd"
    write_labels(path, Volume(array, grid), NAMES, VALUES, COLORS, ["~SCT^1^Atrium~", None])
    image = sitk.ReadImage(str(path))
    header = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    assert header["Segment0_Extent"] == "1 2 2 4 0 1"
    assert header["Segment1_Extent"] == "4 4 0 0 3 3"
    assert header["Segment0_Color"] == "1 0 0" and header["Segment1_Name"] == "Κόλπος"
    assert header["Segment1_LabelValue"] == "4" and header["Segment1_Layer"] == "0"
    assert header["Segment0_Tags"].endswith("TerminologyEntry:~SCT^1^Atrium~|")
    assert header["Segment0_ID"] != header["Segment1_ID"]
    assert "Predicted" not in header["Segment0_Tags"]
    assert header["Segmentation_ContainedRepresentationNames"] == "Binary labelmap|"
    assert label_values(path) == {1: "Vorhof links", 4: "Κόλπος"}
    # Names count before values, so a project that numbers its labels otherwise reads it right.
    swapped, _ = read_labels(path, [1, 4], grid, NAMES[::-1])
    np.testing.assert_array_equal(swapped.array, np.array([0, 2, 1], np.uint8)[array])


@pytest.mark.parametrize("kind", ["list", "vector"])
def test_overlapping_segments_in_layers(tmp_path, kind):
    layers = np.zeros((4, 5, 6, 2), np.uint8)  # z, y, x, layer, as Slicer stores them
    layers[1, 1:3, 1:4, 0] = 1
    layers[1, 2:4, 2:5, 1] = 1
    segments = "".join(
        f"Segment{i}_ID:=s{i}\nSegment{i}_Name:={name}\nSegment{i}_LabelValue:=1\n"
        f"Segment{i}_Layer:={i}\n"
        for i, name in enumerate(["outer", "inner"])
    )
    path = tmp_path / "layers.seg.nrrd"
    path.write_bytes(
        (
            "NRRD0004\ntype: unsigned char\ndimension: 4\nspace: left-posterior-superior\n"
            "sizes: 2 6 5 4\nspace directions: none (1,0,0) (0,1,0) (0,0,1)\n"
            f"kinds: {kind} domain domain domain\nencoding: raw\nspace origin: (0,0,0)\n"
            f"{segments}\n"
        ).encode()
        + layers.tobytes()
    )
    grid = Geometry.upright((6, 5, 4))
    label, note = read_labels(path, [1, 2], grid, ["outer", "inner"])
    assert note is not None and "overlap in 2 voxels" in note
    assert (label.array == 1).sum() == 4 and (label.array == 2).sum() == 6
    assert label.array[2, 2, 1] == 2
    with pytest.raises(InputError, match="do not match the project's label set"):
        read_labels(path, [1, 2], grid, ["liver", "spleen"])


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path):
    grid = Geometry.upright((2, 2, 2))
    with pytest.raises(InputError, match="suffix"):
        write_image(tmp_path / "out.png", labels_on(grid))
    with pytest.raises(InputError, match="could not be written"):
        write_image(tmp_path / ("long" * 70 + ".mha"), labels_on(grid))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="could not be written"):
        write_image(tmp_path / "file" / "out.mha", labels_on(grid))
