"""Which files of a folder are which cases."""

import os
import sys
from pathlib import Path

import pytest

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.case import case_id
from SAMSemiSegLib.project.importing import import_cases


@pytest.mark.parametrize(
    ("last", "has_labels"), [("c", False), ("c_0000", True), ("scan_2019", True)]
)
def test_further_channels_of_a_scan_are_no_cases(project, scans, last, has_labels):
    """Else the second channel of a patient who is held out would train."""
    images, labels = scans if has_labels else (scans[0], None)
    names = ("a_0000", "a_0001", "b_0000", "b_0001", last)
    for path, name in zip(sorted(images.iterdir()), names, strict=True):
        path.rename(path.with_name(f"{name}.nii.gz"))
    if labels is not None:
        for path in sorted(labels.iterdir())[2:]:
            path.unlink()
        for path, name in zip(sorted(labels.iterdir()), "ab", strict=True):
            path.rename(path.with_name(f"{name}.nii.gz"))
    summary = import_cases(project, images, labels)
    assert [case.id for case in project.cases] == ["a", "b", case_id(names[-1])]
    assert "2 images are further channels" in summary.notes[0]


@pytest.mark.parametrize(
    "names",
    [
        [f"case_{number:04}" for number in range(5)],
        ["a_0000", "a_0001", "b_0000", "b_0001", "b_0002"],
    ],
)
def test_cases_that_are_numbered_from_0000_all_come(project, scans, names):
    for path, name in zip(sorted(scans[0].iterdir()), names, strict=True):
        path.rename(path.with_name(f"{name}.nii.gz"))
    assert import_cases(project, scans[0]).imported == 5


def test_images_whose_labels_are_numbered_too_are_cases(project, scans):
    names = ("a_0000", "a_0001", "b_0000", "b_0001")
    for folder in scans:
        *numbered, last = sorted(folder.iterdir())
        last.unlink()
        for path, name in zip(numbered, names, strict=True):
            path.rename(path.with_name(f"{name}.nii.gz"))
    assert import_cases(project, *scans).labeled == 4


def test_a_segmentation_among_the_images_is_no_case(project, scans):
    images, _ = scans
    first = min(images.iterdir())
    (images / first.name.replace(".nii.gz", ".seg.nrrd")).write_bytes(b"of the same scan")
    (images / "another.seg.nrrd").write_bytes(b"of another")
    import_cases(project, images)
    assert len(project.cases) == 5


def test_a_number_may_be_a_count_or_a_name(project, scans):
    from SAMSemiSegLib.command.project import _number_or_names

    assert _number_or_names("3", "--labeled") == 3
    assert _number_or_names("003", "--labeled") == ["003"]
    images, labels = scans
    for folder in scans:
        (folder / "phantom_001.nii.gz").rename(folder / "3.nii.gz")
    import_cases(project, images, labels, labeled=["3.nii.gz"])
    assert [case.id for case in project.labeled] == ["3"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are Unicode")
def test_a_name_in_another_encoding_is_a_sentence_and_ends_no_process(project, scans):
    """ITK would end the process, and Slicer with it."""
    images, _ = scans
    path = next(images.iterdir())
    path.rename(Path(os.fsdecode(os.fsencode(images) + b"/M\xfcller.nii.gz")))
    with pytest.raises(InputError, match=r"ller\.nii\.gz' is not in UTF-8") as refused:
        import_cases(project, images)
    str(refused.value).encode()
