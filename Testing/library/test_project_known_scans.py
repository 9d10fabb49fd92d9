"""Scans that the project has already: imported once more, copied, moved, labeled since."""

import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from SAMSemiSegLib.command.project import app
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.case_files import FOUND_AGAIN
from SAMSemiSegLib.project.importing import add_case, import_cases
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.volumes.reading import read_image
from SAMSemiSegLib.volumes.volume import Volume
from SAMSemiSegLib.volumes.writing import write_image


@pytest.fixture
def scans(scans) -> tuple[Path, Path]:
    """As c1, ..., c5."""
    for folder in scans:
        for path in sorted(folder.iterdir()):
            path.rename(folder / path.name.replace("phantom_00", "c"))
    return scans


def ids(cases: list) -> list[str]:
    return [case.id for case in cases]


def call(*arguments: object) -> str:
    """What ``samsemiseg project`` says."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("copy", [False, True])
def test_a_copy_of_a_folder_brings_no_scan_in_twice(project, scans, tmp_path, copy):
    images, labels = scans
    import_cases(project, images, labels, labeled=2, evaluate=1, copy=copy)
    again = Path(shutil.copytree(images, tmp_path / "again"))
    before = list(project.cases)
    with pytest.raises(InputError, match=r"Every image of .* is in the project already"):
        import_cases(project, again)
    with pytest.raises(InputError, match="already, as the case 'c5'"):
        add_case(project, again / "c5.nii.gz")
    assert Project.load(project.folder).cases == before
    # Another scan of that name is another case; its copy is known too, for all its number.
    shutil.copy(again / "c4.nii.gz", again / "c5.nii.gz")
    assert import_cases(project, again, copy=copy).imported == 1 and project.case("c5_2")
    with pytest.raises(InputError, match="Every image"):
        import_cases(project, Path(shutil.copytree(again, tmp_path / "third")), copy=copy)


@pytest.mark.parametrize("copy", [False, True])
def test_a_copy_of_a_folder_of_slices_is_the_same_case(project, dicom_folder, tmp_path, copy):
    import_cases(project, dicom_folder, copy=copy)
    again = Path(shutil.copytree(dicom_folder, tmp_path / "again"))
    with pytest.raises(InputError, match="Every image"):
        import_cases(project, again)
    next((again / "hippocampus_crop").iterdir()).unlink()
    with pytest.raises(InputError, match="missing slices"):  # no copy any more, so that it is read
        import_cases(project, again)


def test_headers_that_are_alike_do_not_make_scans_the_same(project, tmp_path, make_phantom):
    paths = [tmp_path / folder / "scan.mhd" for folder in "ab"]
    for seed, path in enumerate(paths):
        path.parent.mkdir()
        write_image(path.with_suffix(".mha"), make_phantom((24, 28, 20), seed)[0])
        sitk.WriteImage(sitk.ReadImage(str(path.with_suffix(".mha"))), str(path))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert [add_case(project, path).id for path in paths] == ["scan", "scan_2"]
    with pytest.raises(InputError, match="already, as the case 'scan_2'"):
        add_case(project, Path(shutil.copytree(tmp_path / "b", tmp_path / "c")) / "scan.mhd")


def test_a_scan_whose_folder_has_moved_is_found_again_with_its_label(project, scans, tmp_path):
    images, labels = scans
    import_cases(project, images, labels, labeled=2, evaluate=1)
    before = {case.id: case for case in project.cases}
    moved = images.rename(tmp_path / "moved")
    said = call("add", project.folder, moved / "c1.nii.gz")
    assert "Found the case 'c1' again (labeled)." in said and FOUND_AGAIN in said
    summary = import_cases(Project.load(project.folder), moved)
    assert summary.imported == 0
    assert "missing where they were, and found again: 4 of 5 images" in summary.notes[0]
    found = Project.load(project.folder).cases
    assert ids(found) == list(before)
    for case in found:
        assert project.path(case.image) == moved / f"{case.id}.nii.gz"
        assert case.note == FOUND_AGAIN
        assert case.model_copy(update={"image": "", "note": None}) == before[case.id].model_copy(
            update={"image": ""}
        )


def test_a_scan_on_another_grid_than_a_missing_ones_label_is_a_case_of_its_own(
    project, scans, tmp_path
):
    images, labels = scans
    import_cases(project, images, labels)
    moved = images.rename(tmp_path / "moved")
    whole = read_image(moved / "c1.nii.gz")
    write_image(moved / "c1.nii.gz", Volume.from_sitk(whole.to_sitk()[:-1]))
    assert add_case(project, moved / "c1.nii.gz").id == "c1_2"
    assert add_case(project, moved / "c2.nii.gz", name="other").id == "other"  # said to be another
    assert project.path(project.case("c1").image) == images / "c1.nii.gz"


def test_scans_that_moved_with_their_labels_are_found_again_together(project, scans, tmp_path):
    images, labels = scans
    import_cases(project, images, labels, labeled=2, evaluate=1)
    moved = images.parent.rename(tmp_path / "moved")
    lost = add_case(project, moved / "images" / "c1.nii.gz", name="c1_alone")
    project.cases.remove(lost)
    project.save()
    summary = import_cases(project, moved / "images", moved / "labels", labeled=2)
    assert summary.imported == 0 and "labeled now: 3 of 5" in summary.notes[0]
    assert (ids(project.labeled), ids(project.evaluation)) == (["c1", "c2"], ["c5"])
    for case in project.cases:
        assert project.path(case.image).is_file()
        assert all(project.path(p).is_file() for p in (case.label, case.reference) if p)


def test_a_held_out_scan_does_not_come_back_to_train(project, scans, tmp_path):
    """Nor where its label has moved too and is not given."""
    images, labels = scans
    import_cases(project, images, labels, labeled=2, evaluate=2)
    moved = images.parent.rename(tmp_path / "moved")
    assert add_case(project, moved / "images" / "c5.nii.gz").role == "evaluation"
    assert import_cases(project, moved / "images").imported == 2  # c1 and c2 without labels
    assert ids(project.evaluation) == ["c4", "c5"]
    assert all(project.path(case.image).is_file() for case in project.evaluation)


def test_a_path_that_windows_wrote_is_found_again(project, scans):
    images, labels = scans
    import_cases(project, images, labels)
    case = project.case("c3").model_copy(update={"image": r"D:\study\c3.nii.gz"})
    project.replace(case)
    project.save()
    assert add_case(project, images / "c3.nii.gz").id == "c3"


def test_which_of_two_missing_scans_it_is_is_not_guessed(project, scans, tmp_path):
    images, _ = scans
    other = tmp_path / "other" / "c1.nii.gz"
    other.parent.mkdir()
    shutil.copy(images / "c2.nii.gz", other)
    add_case(project, images / "c1.nii.gz")
    add_case(project, other)
    back = tmp_path / "back"
    shutil.copytree(images, back)
    shutil.rmtree(images)
    other.unlink()
    assert add_case(project, back / "c1.nii.gz").id == "c1_3"


def test_the_same_import_again_says_what_it_would_change(project, scans):
    """With the options of the first time, as the shell's history has them."""
    images, labels = scans
    late = labels / "c3.nii.gz"
    drawn_later = late.rename(images.parent / late.name)
    command = ("import", project.folder, "--images", images, "--labels", labels)
    call(*command, "--labeled", 2, "--evaluate", "c4,c5")
    with pytest.raises(InputError, match="none of them got its first label"):
        call(*command, "--labeled", 2, "--evaluate", "c4,c5")
    drawn_later.rename(late)
    with pytest.raises(InputError, match="--labeled 2 counts new images only; leave it out"):
        call(*command, "--labeled", 2, "--evaluate", "c4,c5")
    said = call(*command, "--labeled", "c1,c3", "--evaluate", 2)
    assert "labeled now: 1 of 5" in said and "No image is new, so that --evaluate 2" in said
    with pytest.raises(InputError, match="none lacks a label; choose a folder with new images"):
        call(*command, "--labeled", "c1,c3", "--evaluate", 2)
    assert ids(Project.load(project.folder).labeled) == ["c1", "c2", "c3"]


def test_names_that_are_held_out_already_may_be_named_again(project, scans):
    images, labels = scans
    late = labels / "c3.nii.gz"
    drawn_later = late.rename(images.parent / late.name)
    command = ("import", project.folder, "--images", images, "--labels", labels)
    call(*command, "--labeled", 2, "--evaluate", "c4,c5")
    drawn_later.rename(late)
    assert "labeled now: 1 of 5" in call(*command, "--evaluate", "c4,c5")
    for options, sentence in [
        (("--evaluate", "c1"), "'c1', which --evaluate names, .* for training"),
        (("--labeled", "c4"), "'c4', which --labeled names, .* only scores"),
        (("--labeled", "c9"), "no image .*'c9' of --labeled"),
    ]:
        with pytest.raises(InputError, match=sentence):
            call(*command, *options)
    shutil.copy(images / "c1.nii.gz", images / "c6.nii.gz")
    shutil.copy(labels / "c1.nii.gz", labels / "c6.nii.gz")
    call(*command, "--labeled", "c1,c2", "--evaluate", "c4,c5,c6")
    assert ids(Project.load(project.folder).evaluation) == ["c4", "c5", "c6"]


def test_a_label_that_is_named_but_not_there_is_said_to_be_missing(project, scans):
    images, labels = scans
    (labels / "c3.nii.gz").unlink()
    import_cases(project, images, labels, labeled=1)
    with pytest.raises(InputError, match="no label for the case 'c3', which --labeled names"):
        import_cases(project, images, labels, labeled=["c2", "c3"])


def test_a_case_that_only_scores_has_a_label(project, scans):
    images, labels = scans
    scan, label = images / "c1.nii.gz", labels / "c1.nii.gz"
    with pytest.raises(InputError, match=r"no label for .*c1\.nii\.gz', which only scores"):
        call("add", project.folder, scan, "--evaluate")
    assert "(for evaluation)" in call("add", project.folder, scan, "--label", label, "--evaluate")


@pytest.mark.parametrize("way", [["--evaluate"], []])
def test_a_case_that_could_not_score_gets_the_label_to_score_by(project, scans, way):
    """A version before let it into the project."""
    images, labels = scans
    held_out = add_case(project, images / "c1.nii.gz", labels / "c1.nii.gz", role="evaluation")
    project.replace(held_out.model_copy(update={"reference": None}))
    project.save()
    command = ("add", project.folder, images / "c1.nii.gz", *way, "--label")
    with pytest.raises(InputError, match="There is no file"):
        call(*command, labels / "c9.nii.gz")
    assert "Labeled the case 'c1' (for evaluation)." in call(*command, labels / "c1.nii.gz")
    assert Project.load(project.folder).cases == [held_out]
    with pytest.raises(InputError, match="already, as the case 'c1'"):
        call(*command, labels / "c1.nii.gz")
