"""Scene to project files and back, on Slicer's own MRML."""

from __future__ import annotations

from dataclasses import replace

import pytest

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
import numpy as np  # noqa: E402
import SimpleITK as sitk  # noqa: E402
import vtk  # noqa: E402
from SAMSemiSegModule.scene.content import contentOf, filledSegments, isPrediction  # noqa: E402
from SAMSemiSegModule.scene.geometry import isSheared, isValidVolume  # noqa: E402
from SAMSemiSegModule.scene.segmentations import (  # noqa: E402
    exportLabels,
    labelArray,
    loadLabels,
)
from SAMSemiSegModule.scene.volumes import exportVolume, loadVolume  # noqa: E402
from scene_phantoms import (  # noqa: E402
    LABELS,
    aSegmentation,
    aTransform,
    aVolume,
    box,
    rigid,
    worldMatrix,
)


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz", ".mha"])
def test_volume_comes_back_with_the_same_voxels_and_grid(scene, tmp_path, suffix):
    volume = aVolume()
    path = tmp_path / f"Fälle mit Leerzeichen{suffix}"
    exportVolume(volume, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    again = loadVolume(path, "again")
    assert np.array_equal(slicer.util.arrayFromVolume(again), slicer.util.arrayFromVolume(volume))
    # NIfTI stores single precision.
    assert np.allclose(worldMatrix(again), worldMatrix(volume), atol=1e-4)


def test_simpleitk_sees_the_same_grid(scene, tmp_path):
    volume = aVolume()
    exportVolume(volume, tmp_path / "scan.nrrd")
    image = sitk.ReadImage(str(tmp_path / "scan.nrrd"))
    assert np.allclose(image.GetSpacing(), volume.GetSpacing())
    corner = image.TransformIndexToPhysicalPoint((15, 13, 11))
    ras = worldMatrix(volume) @ [15, 13, 11, 1]
    assert np.allclose([-corner[0], -corner[1], corner[2]], ras[:3])


def test_linear_transform_is_hardened_in_the_file_and_not_in_the_scene(scene, tmp_path):
    volume = aVolume()
    before = worldMatrix(volume)
    transform = rigid()
    volume.SetAndObserveTransformNodeID(transform.GetID())
    exportVolume(volume, tmp_path / "scan.nrrd")
    toWorld = slicer.util.arrayFromTransformMatrix(transform, toWorld=True)
    again = loadVolume(tmp_path / "scan.nrrd", "again")
    assert np.allclose(worldMatrix(again), toWorld @ before, atol=1e-5)
    assert volume.GetParentTransformNode() is transform
    assert np.array_equal(worldMatrix(volume), before)


def test_no_node_is_left_behind(scene, tmp_path):
    volume = aVolume()
    segmentation = aSegmentation(volume, anterior=np.s_[2:5, 2:5, 2:5])
    before = names(scene)
    exportVolume(volume, tmp_path / "scan.nrrd")
    exportLabels(segmentation, volume, LABELS, tmp_path / "label.nrrd")
    assert names(scene) == before


def names(scene) -> list[str]:
    return [scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())]


def shearing():
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(1, 2, 0.3)
    return aTransform(matrix)


def warping():
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    grid = vtk.vtkThinPlateSplineTransform()
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for corner in ((0, 0, 0), (20, 0, 0), (0, 20, 0), (0, 0, 20)):
        source.InsertNextPoint(corner)
        target.InsertNextPoint([c + 2 * (c > 0) for c in corner])
    grid.SetSourceLandmarks(source)
    grid.SetTargetLandmarks(target)
    node.SetAndObserveTransformToParent(grid)
    return node


@pytest.mark.parametrize(
    ("transform", "advice"), [(shearing, "Resample"), (warping, "harden it in the Transforms")]
)
def test_what_would_change_the_voxels_is_refused_in_a_sentence(scene, tmp_path, transform, advice):
    volume = aVolume()
    volume.SetAndObserveTransformNodeID(transform().GetID())
    isValid, reason = isValidVolume(volume)
    assert not isValid and advice in reason and "'scan'" in reason
    with pytest.raises(ValueError, match=advice):
        exportVolume(volume, tmp_path / "scan.nrrd")
    assert not list(tmp_path.iterdir())


def test_sheared_grid_of_the_volume_itself_is_refused(scene):
    volume = aVolume()
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    assert not isSheared(matrix)
    matrix.SetElement(0, 2, matrix.GetElement(0, 2) + 1.0)
    volume.SetIJKToRASMatrix(matrix)
    assert "sheared" in isValidVolume(volume)[1]


def test_what_is_no_volume_is_refused(scene):
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    labelMap = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    flat = aVolume(shape=(1, 20, 20))
    reasons = [isValidVolume(node)[1] for node in (None, empty, labelMap, flat)]
    assert ["Choose" in reasons[0], "no voxels" in reasons[1]] == [True, True]
    assert ["label map" in reasons[2], "single slice" in reasons[3]] == [True, True]


def test_segments_become_label_values_on_the_source_grid(scene, tmp_path):
    volume = aVolume()
    segmentation = aSegmentation(
        volume, anterior=np.s_[2:5, 3:6, 4:7], posterior=np.s_[6:9, 3:6, 4:7]
    )
    account = exportLabels(segmentation, volume, LABELS, tmp_path / "label.nrrd")
    assert account.voxels == {"anterior": 27, "posterior": 27}
    assert account.overlapping == 0
    image = sitk.ReadImage(str(tmp_path / "label.nrrd"))
    values = sitk.GetArrayFromImage(image)
    assert values[3, 4, 5] == 1 and values[7, 4, 5] == 2 and np.count_nonzero(values) == 54
    exportVolume(volume, tmp_path / "scan.nrrd")
    scan = sitk.ReadImage(str(tmp_path / "scan.nrrd"))
    assert image.GetSize() == scan.GetSize()
    assert image.GetDirection() == scan.GetDirection() and image.GetOrigin() == scan.GetOrigin()


def test_where_segments_overlap_the_later_label_wins_and_it_is_said(scene):
    volume = aVolume()
    segmentation = aSegmentation(
        volume, anterior=np.s_[2:6, 2:6, 2:6], posterior=np.s_[4:8, 2:6, 2:6]
    )
    values, account = labelArray(segmentation, volume, LABELS)
    assert account.overlapping == 2 * 4 * 4
    assert values[5, 3, 3] == 2
    assert account.voxels == {"anterior": 32, "posterior": 64}


def test_segments_of_one_name_are_one_label(scene):
    volume = aVolume()
    segmentation = aSegmentation(volume, anterior=np.s_[2:6, 2:6, 2:6])
    another = segmentation.GetSegmentation().AddEmptySegment("more", "Anterior")
    mask = box(slicer.util.arrayFromVolume(volume).shape, np.s_[4:8, 2:6, 2:6])
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, another, volume)
    values, account = labelArray(segmentation, volume, LABELS)
    assert (values == 1).sum() == 6 * 4 * 4 and not account.overlapping and not account.ignored


def test_a_model_of_a_surface_is_counted_and_exported_too(scene, tmp_path):
    volume = aVolume(turned=False)
    segmentation = aSegmentation(volume, anterior=np.s_[2:9, 2:9, 2:9])
    assert segmentation.CreateClosedSurfaceRepresentation()
    segmentation.GetSegmentation().SetSourceRepresentationName("Closed surface")
    segmentation.RemoveBinaryLabelmapRepresentation()
    assert filledSegments(segmentation) == ["anterior"]
    account = exportLabels(segmentation, volume, LABELS, tmp_path / "label.nrrd")
    assert account.voxels["anterior"] > 100


def test_segment_of_another_name_is_left_out_and_named(scene):
    volume = aVolume()
    segmentation = aSegmentation(volume, anterior=np.s_[2:6, 2:6, 2:6])
    segmentation.GetSegmentation().AddEmptySegment("t", "tumor")
    assert labelArray(segmentation, volume, LABELS)[1].ignored == ["tumor"]


def test_content_is_voxels_and_names_however_they_are_kept(scene, tmp_path):
    volume = aVolume()
    boxes = {"anterior": np.s_[2:6, 2:6, 2:6], "posterior": np.s_[7:9, 2:6, 2:6]}
    drawn = aSegmentation(volume, **boxes)
    segmentation, before = drawn.GetSegmentation(), contentOf(drawn)
    assert filledSegments(drawn) == list(boxes) and segmentation.GetNumberOfLayers() == 2
    segmentation.AddEmptySegment("another", "another")
    segmentation.CollapseBinaryLabelmaps(False)
    assert segmentation.GetNumberOfLayers() == 1 and contentOf(drawn) == before
    moved = aSegmentation(volume, **{**boxes, "anterior": np.s_[2:6, 2:6, 3:7]})
    segmentation.GetSegment(segmentation.GetNthSegmentID(0)).SetName("posterior of it")
    assert len({before, contentOf(moved), contentOf(drawn)}) == 3


def test_what_a_model_wrote_is_told_from_what_a_person_has_changed(scene, tmp_path):
    from SAMSemiSegLib.volumes.reading import read_image
    from SAMSemiSegLib.volumes.volume import Volume
    from SAMSemiSegLib.volumes.writing import write_labels

    volume = aVolume()
    assert not isPrediction(aSegmentation(volume, anterior=np.s_[2:6, 2:6, 2:6]))
    exportVolume(volume, tmp_path / "scan.nrrd")
    image = read_image(tmp_path / "scan.nrrd")
    channels = np.zeros(image.array.shape, np.uint8)
    channels[2:6, 2:6, 2:6] = 1
    path = tmp_path / "scan.seg.nrrd"
    names = [label.name for label in LABELS]
    colors = [label.color for label in LABELS]
    values = [label.value for label in LABELS]
    found = Volume(channels, image.geometry)
    write_labels(path, found, names, values, colors, predicted=True)
    node = slicer.util.loadSegmentation(str(path))
    assert isPrediction(node)
    again = tmp_path / "again.seg.nrrd"
    slicer.util.saveNode(node, str(again))
    corrected = slicer.util.loadSegmentation(str(again))
    assert isPrediction(corrected)
    exchanged = slicer.util.loadSegmentation(str(path))
    segments = [
        exchanged.GetSegmentation().GetSegment(segmentId)
        for segmentId in exchanged.GetSegmentation().GetSegmentIDs()
    ]
    for segment, name in zip(segments, reversed(names), strict=True):  # left and right, say
        segment.SetName(name)
    assert not isPrediction(exchanged)
    again = slicer.util.loadSegmentation(str(path))
    again.GetSegmentation().RemoveSegment(again.GetSegmentation().GetNthSegmentID(1))
    assert not isPrediction(again)
    segmentId = corrected.GetSegmentation().GetNthSegmentID(1)  # in which the model saw nothing
    mask = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    mask[8, 3, 3] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, corrected, segmentId, volume)
    assert not isPrediction(corrected)
    write_labels(path, found, names, values, colors)
    assert not isPrediction(slicer.util.loadSegmentation(str(path)))


def test_empty_label_is_refused(scene, tmp_path):
    volume = aVolume()
    with pytest.raises(ValueError, match="anterior, posterior"):
        exportLabels(aSegmentation(volume), volume, LABELS, tmp_path / "label.nrrd")
    assert not list(tmp_path.iterdir())


def test_label_under_the_volumes_transform_keeps_its_voxels(scene, tmp_path):
    volume = aVolume()
    volume.SetAndObserveTransformNodeID(rigid().GetID())
    segmentation = aSegmentation(volume, posterior=np.s_[2:5, 3:6, 4:7])
    assert segmentation.GetParentTransformNode() is volume.GetParentTransformNode()
    account = exportLabels(segmentation, volume, LABELS, tmp_path / "label.nrrd")
    assert account.voxels["posterior"] == 27


def test_label_comes_back_with_names_colors_and_voxels(scene, tmp_path):
    volume = aVolume()
    drawn = aSegmentation(volume, anterior=np.s_[2:5, 3:6, 4:7], posterior=np.s_[6:9, 3:6, 4:7])
    exportLabels(drawn, volume, LABELS, tmp_path / "label.nrrd")
    again = loadLabels(tmp_path / "label.nrrd", volume, LABELS, "again")
    segmentation = again.GetSegmentation()
    segment = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName("posterior"))
    assert np.allclose(segment.GetColor(), [78 / 255, 162 / 255, 206 / 255])
    assert np.array_equal(
        labelArray(again, volume, LABELS)[0], labelArray(drawn, volume, LABELS)[0]
    )


def test_overlapping_segments_survive_a_seg_nrrd(scene, tmp_path):
    volume = aVolume()
    drawn = aSegmentation(volume, anterior=np.s_[2:6, 2:6, 2:6], posterior=np.s_[4:8, 2:6, 2:6])
    assert slicer.util.saveNode(drawn, str(tmp_path / "label.seg.nrrd"))
    again = loadLabels(tmp_path / "label.seg.nrrd", volume, LABELS, "again")
    assert labelArray(again, volume, LABELS)[1].overlapping == 32


def test_a_seg_nrrd_from_before_a_label_was_renamed_comes_with_the_new_name(scene, tmp_path):
    volume = aVolume()
    drawn = aSegmentation(volume, anterior=np.s_[2:6, 2:6, 2:6], posterior=np.s_[7:9, 2:6, 2:6])
    assert slicer.util.saveNode(drawn, str(tmp_path / "label.seg.nrrd"))
    renamed = [replace(LABELS[0], name="front"), LABELS[1]]
    again = loadLabels(tmp_path / "label.seg.nrrd", volume, renamed, "again")
    assert labelArray(again, volume, renamed)[1].voxels == {"front": 64, "posterior": 32}


@pytest.mark.parametrize("isOwn", [False, True])
def test_labels_that_were_swapped_since_name_a_runs_segments_by_value(scene, tmp_path, isOwn):
    """As training reads them. In other files the names are right, whatever the values."""
    from SAMSemiSegLib.volumes.reading import read_image
    from SAMSemiSegLib.volumes.volume import Volume
    from SAMSemiSegLib.volumes.writing import write_labels

    volume = aVolume()
    exportVolume(volume, tmp_path / "scan.nrrd")
    image = read_image(tmp_path / "scan.nrrd")
    channels = np.zeros(image.array.shape, np.uint8)
    channels[2:6, 2:6, 2:6], channels[7:9, 2:6, 2:6] = 1, 2
    written = zip(*((x.name, x.value, x.color) for x in LABELS), strict=True)
    write_labels(tmp_path / "label.seg.nrrd", Volume(channels, image.geometry), *written)
    first, second = LABELS
    swapped = [replace(first, name=second.name), replace(second, name=first.name)]
    again = loadLabels(tmp_path / "label.seg.nrrd", volume, swapped, "again", isOwn)
    front, back = ("posterior", "anterior") if isOwn else ("anterior", "posterior")
    assert labelArray(again, volume, swapped)[1].voxels == {front: 64, back: 32}


def test_a_label_value_beyond_a_byte_is_kept(scene, tmp_path):
    volume = aVolume()
    drawn = aSegmentation(volume, posterior=np.s_[2:4, 3:6, 3:6])
    labels = [replace(label, value=label.value + 699) for label in LABELS]
    exportLabels(drawn, volume, labels, tmp_path / "label.nrrd")
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "label.nrrd")))
    value = labels[1].value
    assert value > 255 and np.unique(array).tolist() == [0, value]
    again = loadLabels(tmp_path / "label.nrrd", volume, labels, "again")
    assert np.array_equal(labelArray(again, volume, labels)[0], array)


def test_real_label_keeps_every_voxel(scene, tmp_path, hippocampusFolder):
    name = (hippocampusFolder / "train.list").read_text().split()[0]
    volume = loadVolume(hippocampusFolder / "images" / f"{name}.nii.gz", name)
    source = hippocampusFolder / "labels" / f"{name}.nii.gz"
    segmentation = loadLabels(source, volume, LABELS, "label")
    exportLabels(segmentation, volume, LABELS, tmp_path / "label.nrrd")
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "label.nrrd")))
    assert np.array_equal(written, sitk.GetArrayFromImage(sitk.ReadImage(str(source))))


@pytest.mark.parametrize("name", ["t2_22_slices", "hippocampus_crop"])
def test_a_folder_of_dicom_slices_lies_where_the_library_sees_it(
    scene, tmp_path, dicomFolder, name
):
    from SAMSemiSegLib.volumes.grids import same_grid
    from SAMSemiSegLib.volumes.reading import read_image

    volume = loadVolume(dicomFolder / name, "series")
    exportVolume(volume, tmp_path / "scan.nrrd")
    ours, theirs = read_image(tmp_path / "scan.nrrd"), read_image(dicomFolder / name)
    assert volume.GetName() == "series" and np.array_equal(ours.array, theirs.array)
    assert same_grid(ours.geometry, theirs.geometry)


def test_missing_file_is_named(scene, tmp_path):
    with pytest.raises(OSError, match=r"gone\.nrrd"):
        loadVolume(tmp_path / "gone.nrrd", "gone")
