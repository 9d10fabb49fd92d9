"""Segmentations as files: what their segments are said to be, and that they are no scans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import SimpleITK as sitk

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.importing import add_case
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.volumes.reading import (
    label_values,
    read_grid,
    read_image,
    read_image_geometry,
    read_labels,
)
from SAMSemiSegLib.volumes.volume import Volume
from SAMSemiSegLib.volumes.writing import write_labels

MakeProject = Callable[..., Project]


@pytest.fixture
def project(tmp_path: Path, phantom_project: MakeProject) -> Project:
    return phantom_project(tmp_path, 2, 1, seed=1)


@pytest.mark.parametrize(
    "key, value, told",
    [
        ("LabelValue", "one", "a value or a layer that is no whole number"),
        ("Layer", "x", "a value or a layer that is no whole number"),
        ("Layer", "1", "in layer 1, which the file does not have"),
        ("Layer", "-1", "in layer -1, which the file does not have"),
    ],
)
def test_a_segment_that_is_described_wrongly_is_refused(
    project: Project, tmp_path: Path, key: str, value: str, told: str
) -> None:
    case = project.labeled[0]
    assert case.label is not None
    image = sitk.ReadImage(str(project.path(case.label)))
    header = {"ID": "a", "Name": "head", "LabelValue": "1", "Layer": "0", key: value}
    for name, text in header.items():
        image.SetMetaData(f"Segment0_{name}", text)
    path = tmp_path / "label.seg.nrrd"
    sitk.WriteImage(image, str(path))
    grid = read_image_geometry(project.path(case.image))
    readers: list[Callable[[], object]] = [
        lambda: read_labels(path, [1, 2], grid, ["head", "tail"]),
        lambda: label_values(path),
    ]
    for read in readers:
        with pytest.raises(InputError, match=f"segment 'head' of '.*' (has|is said to be) {told}"):
            read()


def test_a_segmentation_is_taken_for_no_scan(project: Project, tmp_path: Path) -> None:
    case = project.labeled[0]
    scan = read_image(project.path(case.image))
    drawn = Volume((scan.array > scan.array.mean()).astype("uint8"), scan.geometry)
    path = tmp_path / "drawn.seg.nrrd"
    write_labels(path, drawn, ["head"], [1], [(9, 9, 9)])
    renamed = path.rename(tmp_path / "renamed.nrrd")
    write_labels(path, drawn, ["head"], [1], [(9, 9, 9)])
    for segmentation in (path, renamed):
        for read in (read_image, read_image_geometry, lambda path: add_case(project, path)):
            with pytest.raises(InputError, match="is a segmentation, not a scan"):
                read(segmentation)
        assert read_grid(segmentation) == scan.geometry
    sitk.WriteImage(sitk.ReadImage(str(project.path(case.image))), str(tmp_path / "scan.nrrd"))
    assert read_image(tmp_path / "scan.nrrd").geometry == scan.geometry
