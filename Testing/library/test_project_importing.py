"""Import: all cases or none, by order and by name."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.importing import add_case, import_cases
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.volumes.dicom import names_patient
from SAMSemiSegLib.volumes.reading import read_image, read_labels
from SAMSemiSegLib.volumes.volume import Volume
from SAMSemiSegLib.volumes.writing import write_image, write_labels


def files_of(project: Project) -> set[Path]:
    return set(project.folder.rglob("*"))


def test_the_order_decides_who_is_labeled(project, scans, tmp_path):
    order = tmp_path / "order.txt"
    order.write_text("phantom_004\nphantom_002\n\n# comment\nphantom_001\nphantom_003\n")
    seen: list[tuple[int, int, str]] = []
    summary = import_cases(
        project,
        *scans,
        labeled=1,
        order=order,
        evaluate=1,
        keep_references=True,
        progress=lambda *done: seen.append(done),
    )
    assert [case.id for case in project.cases] == [f"phantom_00{i}" for i in (4, 2, 1, 3)]
    assert [case.id for case in project.labeled] == ["phantom_004"]
    assert [case.id for case in project.evaluation] == ["phantom_003"]
    assert all(case.reference and not case.label for case in project.unlabeled)
    assert seen[-1] == (4, 4, "phantom_003")
    assert "1 images" in summary.notes[0] and summary.references == 3


def test_names_with_endings_are_matched_and_values_inferred(tmp_path, scans):
    images, labels = scans
    for path in sorted(images.iterdir()):
        path.rename(path.with_name(path.name.replace(".nii.gz", "_0000.nii.gz")))
    for path in sorted(labels.iterdir()):
        path.rename(path.with_name(path.name.replace(".nii.gz", "-label.nii.gz")))
    project = Project.create(tmp_path / "inferred")
    summary = import_cases(project, images, labels)
    assert project.label_set.names == ["label_1", "label_2"] and "label_1 = 1" in summary.notes[0]
    assert len(project.labeled) == 5 and project.cases[0].id == "phantom_001"
    assert Project.load(project.folder) == project


def test_copies_lie_in_the_project(project, scans):
    import_cases(project, *scans, labeled=["phantom_002"], copy=True)
    assert {p.name for p in (project.folder / "images").iterdir()} == {
        f"phantom_00{i}.nii.gz" for i in range(1, 6)
    }
    assert [p.name for p in (project.folder / "labels").iterdir()] == ["phantom_002.nii.gz"]
    assert project.labeled[0].label == "labels/phantom_002.nii.gz"
    assert project.unlabeled[0].reference is None


@pytest.mark.parametrize("copy", [False, True])
def test_one_bad_file_leaves_everything_as_it_was(project, scans, copy):
    before, stood = files_of(project), (project.folder / "project.json").read_bytes()
    bad = scans[0] / "phantom_005.nii.gz"
    image = read_image(bad)
    bad.write_bytes(bad.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"phantom_005.*truncated"):
        import_cases(project, *scans, labeled=2, copy=copy)
    array = image.array.copy()
    array[0, 0, 0] = np.nan
    write_image(bad, Volume(array, image.geometry))
    with pytest.raises(InputError, match=r"phantom_005.*NaN"):
        import_cases(project, *scans, labeled=2, copy=copy)
    write_image(bad, image)
    label = scans[1] / "phantom_002.nii.gz"
    channels, _ = read_labels(label, [1, 2], image.geometry)
    write_labels(label, channels, ["a", "b"], [1, 9], [(0, 0, 0)] * 2)
    with pytest.raises(InputError, match=r"phantom_002.*values 9"):
        import_cases(project, *scans, labeled=2, copy=copy)
    assert files_of(project) == before and project.cases == []
    assert (project.folder / "project.json").read_bytes() == stood
    import_cases(project, *scans, labeled=1, copy=copy)  # the bad label is not looked at
    assert len(project.cases) == 5


def test_requests_that_cannot_be_met_are_sentences(project, scans, tmp_path):
    images, labels = scans
    (labels / "phantom_001.nii.gz").unlink()
    order = tmp_path / "order.txt"
    for arguments, sentence in [
        ({"labeled": 1}, "no label in .*phantom_001"),
        ({"labeled": 9}, "--labeled 9 asks for more"),
        ({"evaluate": 9}, "--evaluate 9 asks for more"),
        ({"labeled": ["phantom_009"]}, "no image .*phantom_009"),
        ({"labeled": ["phantom_005"], "evaluate": 1}, "both in"),
        ({"order": order}, "cannot be read"),
    ]:
        with pytest.raises(InputError, match=sentence):
            import_cases(project, images, labels, **arguments)
    with pytest.raises(InputError, match="no image"):
        import_cases(project, tmp_path / "project", None)
    with pytest.raises(InputError, match="no folder"):
        import_cases(project, tmp_path / "nowhere", None)
    write_image(images / "phantom_002.mha", read_image(images / "phantom_002.nii.gz"))
    with pytest.raises(InputError, match="same case"):
        import_cases(project, images, labels)
    assert project.cases == []


@pytest.mark.parametrize("copy", [False, True])
def test_a_folder_that_has_grown_is_imported_once_more(project, scans, copy):
    images, labels = scans
    grown = images.parent / "grown"
    grown.mkdir()
    shutil.copy(images / "phantom_001.nii.gz", grown)
    import_cases(project, grown, labels, copy=copy)
    before = project.cases[0]
    with pytest.raises(InputError, match="Every image"):
        import_cases(project, grown, copy=copy)
    with pytest.raises(InputError, match="already, as the case 'phantom_001'"):
        add_case(project, grown / "phantom_001.nii.gz", copy=copy)
    link = grown.parent / "phantom_001.nii.gz"
    link.symlink_to(grown / "phantom_001.nii.gz")
    with pytest.raises(InputError, match="already, as the case 'phantom_001'"):
        add_case(project, link)
    shutil.copy(images / "phantom_002.nii.gz", grown)
    shutil.copy(images / "phantom_003.nii.gz", grown)
    summary = import_cases(project, grown, labels, labeled=1, copy=copy)
    assert (summary.imported, summary.labeled) == (2, 1)
    assert any("already" in note and "1 of 3" in note for note in summary.notes)
    assert project.cases[0] == before
    assert [case.id for case in project.labeled] == ["phantom_001", "phantom_002"]


def test_a_resampled_label_is_noted_and_a_case_is_added_once(project, scans):
    images, labels = scans
    image = read_image(images / "phantom_001.nii.gz")
    label, _ = read_labels(labels / "phantom_001.nii.gz", [1, 2], image.geometry)
    crop = Volume.from_sitk(label.to_sitk()[2:22, 2:26, 1:19])
    write_labels(labels / "crop.seg.nrrd", crop, ["front", "back"], [1, 2], [(0, 0, 0)] * 2)
    case = add_case(project, images / "phantom_001.nii.gz", labels / "crop.seg.nrrd")
    assert case.note is not None and "resampled" in case.note and case in project.labeled
    with pytest.raises(InputError, match="already"):
        add_case(project, images / "phantom_001.nii.gz")
    with pytest.raises(InputError, match="--id"):
        add_case(project, images / "phantom_002.nii.gz", name="phantom_001")
    held = add_case(
        project, images / "phantom_003.nii.gz", labels / "phantom_003.nii.gz", role="evaluation"
    )
    assert held.label is None and held.reference and Project.load(project.folder) == project


def test_folders_of_dicom_slices_are_cases(dicom_folder, project):
    summary = import_cases(project, dicom_folder, copy=True)
    assert summary.imported == 2
    case = project.case("hippocampus_crop")
    assert case.image == "images/hippocampus_crop"
    assert read_image(project.path(case.image)).array.shape == (36, 48, 35)


def test_real_cases_in_the_order_of_the_literature(hippocampus_folder, project):
    summary = import_cases(
        project,
        hippocampus_folder / "images",
        hippocampus_folder / "labels",
        labeled=4,
        order=hippocampus_folder / "train.list",
        evaluate=40,
    )
    assert (summary.labeled, summary.unlabeled, summary.evaluation) == (4, 164, 40)
    assert [case.id for case in project.labeled][:2] == ["hippocampus_001", "hippocampus_003"]
    # Another patient's label of nearly the same size is found out.
    images, labels = hippocampus_folder / "images", hippocampus_folder / "labels"
    fresh = Project.create(project.folder / "fresh", project.label_set)
    with pytest.raises(InputError, match="another patient"):
        add_case(fresh, images / "hippocampus_001.nii.gz", labels / "hippocampus_003.nii.gz")


def test_a_folder_named_after_its_patient_names_no_case(dicom_folder, project, tmp_path):
    folder = tmp_path / "Mustermann_Erika_2"
    folder.mkdir()
    reader, writer = sitk.ImageFileReader(), sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for path in sorted((dicom_folder / "hippocampus_crop").iterdir()):
        reader.SetFileName(str(path))
        reader.LoadPrivateTagsOn()
        slice_ = reader.Execute()
        slice_.SetMetaData("0010|0010", "MUSTERMANN^ERIKA")
        writer.SetFileName(str(folder / path.name))
        writer.Execute(slice_)
    case = add_case(project, folder)
    assert case.id == "case_1" and case.note is not None and "case_1" in case.note
    assert "mustermann" not in case.note.lower()
    with pytest.raises(InputError, match="already, as the case 'case_1'"):
        add_case(project, folder, name="erika")
    project.cases.clear()
    assert add_case(project, folder, name="erika").id == "erika"  # a name that is chosen is kept
    anonymous = dicom_folder / "hippocampus_crop"
    assert add_case(project, anonymous).id == "hippocampus_crop"


def test_a_patient_is_known_by_a_short_name_and_by_number(tmp_path):
    """Of a slice's header; see also the real slices above."""
    slice_ = sitk.Image(8, 8, sitk.sitkInt16)
    for name, tags, expected in (
        ("Wu_Li", {"0010|0010": "Wu^Li"}, True),
        ("liwu2", {"0010|0010": "Wu^Li"}, True),
        ("willow", {"0010|0010": "Wu^Li"}, False),
        ("MRN-0012345", {"0010|0020": "MRN0012345"}, True),
        ("scan_7", {"0010|0020": "7"}, True),
        ("scan_17", {"0010|0020": "7"}, False),
        ("SET-0007", {"0010|0020": "SET-0007", "0012|0062": "YES"}, False),
    ):
        folder = tmp_path / name
        folder.mkdir()
        for key, value in tags.items():
            slice_.SetMetaData(key, value)
        sitk.WriteImage(slice_, str(folder / "1.dcm"))
        for key in tags:
            slice_.EraseMetaData(key)
        assert names_patient(folder) is expected, name


def segmentation(path: Path, image: Volume, names: list[str]) -> None:
    """Segments of the values 1, 2, ... in this order: four slices of the first, one of the last."""
    array = np.zeros_like(image.array, np.uint8)
    array[..., 2:6], array[..., 8] = 1, len(names)
    values, colors = range(1, len(names) + 1), [(9, 9, 9)] * len(names)
    write_labels(path, Volume(array, image.geometry), names, values, colors)


def test_segments_are_never_taken_for_others_that_have_their_number_elsewhere(tmp_path, scans):
    """Slicer numbers the segments of each file anew."""
    images, _ = scans
    image = read_image(images / "phantom_001.nii.gz")
    labels = tmp_path / "segmentations"
    labels.mkdir()
    for number, names in ((1, ["Kidney"]), (2, ["Liver"]), (3, ["liver", "kidney"])):
        segmentation(labels / f"phantom_00{number}.seg.nrrd", image, names)
    project = Project.create(tmp_path / "inferred")
    import_cases(project, images, labels)
    assert [(x.name, x.value) for x in project.label_set.labels] == [("Kidney", 1), ("Liver", 2)]
    slices = []
    for case in project.labeled:
        read = read_labels(project.path(case.label), [1, 2], image.geometry, ["Kidney", "Liver"])
        slices.append([int((read[0].array == i).any((0, 1)).sum()) for i in (1, 2)])
    assert slices == [[5, 0], [0, 5], [1, 4]]
    segmentation(labels / "other.seg.nrrd", image, ["Liver", "Cyst"])
    with pytest.raises(InputError, match="do not match the project's label set"):
        read_labels(labels / "other.seg.nrrd", [1, 2], image.geometry, ["Kidney", "Liver"])
    # A label map has no names, so that nobody knows which of the two it means.
    shutil.copy(scans[1] / "phantom_004.nii.gz", labels)
    with pytest.raises(InputError, match="value 1 to 'Kidney' and to 'Liver'"):
        import_cases(Project.create(tmp_path / "mixed"), images, labels)


def test_cases_that_several_processes_add_at_once_all_stay(project, scans):
    code = (
        "import sys; from pathlib import Path;"
        "from SAMSemiSegLib.project.importing import add_case;"
        "from SAMSemiSegLib.project.project import Project;"
        "project = Project.load(Path(sys.argv[1]));"
        "sys.stdin.readline();"
        "[add_case(project, Path(path)) for path in sys.argv[2:]]"
    )
    images = sorted(map(str, scans[0].iterdir()))
    parts = (images[:2], images[2:4], images[4:])
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(project.folder), *part], stdin=subprocess.PIPE
        )
        for part in parts
    ]
    for process in started:
        process.communicate(b"go\n")
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(Project.load(project.folder).cases) == len(images) == 5


def test_a_case_that_had_no_label_gets_one_that_was_drawn_since(project, scans):
    images, labels = scans
    import_cases(project, images)
    project.replace(project.cases[1].model_copy(update={"status": "rejected"}))
    project.save()
    drawn = [labels / path.name for path in sorted(images.iterdir())]
    case = add_case(project, images / drawn[0].name, drawn[0])
    assert (case.status, case.origin) == ("labeled", "expert") and project.labeled == [case]
    for number, label, role in ((0, drawn[0], "training"), (1, None, "training")):
        with pytest.raises(InputError, match=f"already, as the case 'phantom_00{number + 1}'"):
            add_case(project, images / drawn[number].name, label, role=role)
    with pytest.raises(InputError, match="already"):  # and not into training
        add_case(project, images / drawn[1].name, drawn[1], role="evaluation")

    summary = import_cases(project, images, labels, labeled=["phantom_003"], copy=True)
    assert summary.imported == 0 and "labeled now: 1 of 5 images" in summary.notes[0]
    assert project.case("phantom_003").label == "labels/phantom_003.nii.gz"
    import_cases(project, images, labels)
    assert len(Project.load(project.folder).labeled) == 5
    with pytest.raises(InputError, match="Every image"):
        import_cases(project, images, labels)


def test_labels_that_were_kept_to_score_by_do_not_train_after_another_import(project, scans):
    images, labels = scans
    last = images / "phantom_005.nii.gz"
    later = last.rename(images.parent / last.name)
    import_cases(project, images, labels, labeled=2, keep_references=True, copy=True)
    later.rename(last)
    import_cases(project, images, labels, copy=True)
    assert [case.id for case in project.labeled] == [f"phantom_00{i}" for i in (1, 2, 5)]
    import_cases(project, images, labels, labeled=["phantom_003"], copy=True)
    assert project.case("phantom_003").label == project.case("phantom_003").reference


def test_a_late_label_that_does_not_fit_changes_nothing(project, scans):
    images, labels = scans
    import_cases(project, images)
    before = files_of(project)
    (labels / "phantom_005.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError, match="phantom_005"):
        import_cases(project, images, labels, copy=True)
    assert Project.load(project.folder).labeled == [] and files_of(project) == before
