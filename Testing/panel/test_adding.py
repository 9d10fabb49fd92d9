"""Adding cases: what is added, what is not, and that the latter is told."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest.importorskip("pydantic", reason="the library's packages are not installed")
import numpy as np
import qt
import SimpleITK as sitk
import slicer
import vtk
from actions import aScan, aSegmentation
from SAMSemiSegModule.scene.candidates import segmentationsOf
from SAMSemiSegModule.scene.volumes import exportVolume


def ids(panel) -> list[str]:
    return [case.id for case in panel.services.store.cases]


def check(panel, volume) -> None:
    panel.project.ui.addVolumeSelector.setCheckState(volume, qt.Qt.Checked)


def test_what_cannot_be_added_from_the_scene_does_not_hold_up_the_rest(panel):
    aScan("straight")
    tilted = aScan("tilted")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(1, 2, 0.4)
    tilted.SetIJKToRASMatrix(matrix)
    for name in ("one", "two"):  # each with a segment too many: two notes
        node = aSegmentation(aScan(name))
        node.GetSegmentation().AddEmptySegment("extra", f"extra of {name}")
    panel.project.ui.newProjectButton.click()
    panel.services.store.setLabels([{"name": "liver", "value": 1, "color": (9, 9, 9)}])
    panel.project.ui.addSceneButton.click()
    assert ids(panel) == ["straight", "one", "two"]
    message = panel.ui.messageLabel.text
    for part in ("'tilted' has a sheared grid", "extra of one", "extra of two"):
        assert part in message


def test_a_label_from_a_file_belongs_to_the_volume_whose_name_fits_best(panel, tmp_path):
    """Slicer calls the second of two volumes of one name "T1_1"."""
    scans = [aScan("T1"), aScan("T1_1"), aScan("other")]
    drawn = aSegmentation(scans[1])
    assert slicer.util.saveNode(drawn, str(tmp_path / "label.seg.nrrd"))
    slicer.mrmlScene.RemoveNode(drawn)
    slicer.util.loadSegmentation(str(tmp_path / "label.seg.nrrd"), {"name": "T1_1 label"})
    panel.project.ui.newProjectButton.click()
    panel.project.ui.addSceneButton.click()
    labeled = [case.id for case in panel.services.store.cases if case.label is not None]
    assert len(ids(panel)) == 3 and labeled == ["T1_1"]

    scans[2].SetName("T1_1")
    assert not any(segmentationsOf(scan, set()) for scan in scans)


def test_a_volume_is_added_once_to_each_project(openProject):
    panel, store = openProject, openProject.services.store
    first, second = slicer.util.getNode("first"), slicer.util.getNode("second")
    check(panel, first)
    panel.project.ui.addSceneButton.click()
    assert ids(panel) == ["first", "second", "third"]
    assert "'first' is in the project already" in panel.ui.messageLabel.text

    store.remove(["second"])
    panel.project.ui.addVolumeSelector.setCheckState(first, qt.Qt.Unchecked)
    check(panel, second)
    panel.project.ui.addSceneButton.click()
    assert ids(panel) == ["first", "third", "second"], panel.ui.messageLabel.text
    assert not panel.project.ui.addVolumeSelector.checkedNodes()

    before = store.folder
    panel.services.dialogs.folder = before.parent / "other"
    panel.project.ui.newProjectButton.click()
    panel.project.ui.addSceneButton.click()
    assert store.counts() == (1, 2, 0), panel.ui.messageLabel.text
    panel.project.openFolder(before)
    panel.project.ui.addSceneButton.click()
    assert len(ids(panel)) == 3 and "no volume" in panel.ui.messageLabel.text


def test_a_bad_or_a_known_file_does_not_hold_up_the_others(panel, scene, tmp_path):
    paths = [tmp_path / "scans" / name for name in ("a.nrrd", "letter.nrrd", "z.nrrd")]
    for path in (paths[0], paths[2]):
        volume = aScan(path.stem)
        path.parent.mkdir(exist_ok=True)
        exportVolume(volume, path)
        slicer.mrmlScene.RemoveNode(volume)
    paths[1].write_text("Dear colleague")
    panel.project.ui.newProjectButton.click()
    panel.services.dialogs.files = paths
    for _ in range(2):
        panel.project.ui.addFilesButton.click()
        assert ids(panel) == panel.project._table.visibleIds() == ["a", "z"]
        assert "letter.nrrd" in panel.ui.messageLabel.text
    assert "a.nrrd' is in the project already, as the case 'a'" in panel.ui.messageLabel.text


def test_a_scan_that_was_moved_is_added_to_its_case(panel, tmp_path):
    scan = tmp_path / "before" / "a.nrrd"
    scan.parent.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(np.random.default_rng(5).random((9, 8, 7))), str(scan))
    panel.services.dialogs.folder = tmp_path / "project"
    panel.project.ui.newProjectButton.click()
    panel.services.dialogs.files = [scan]
    panel.project.ui.addFilesButton.click()
    moved = scan.parent.rename(tmp_path / "after") / "a.nrrd"
    panel.services.dialogs.files = [moved]
    panel.project.ui.addFilesButton.click()
    store = panel.services.store
    assert ids(panel) == ["a"] and store.imagePath(store.case("a")) == moved
    assert "'a': Its scan was missing and was found again" in panel.ui.messageLabel.text


def test_adding_shows_how_far_it_is_and_can_be_stopped(panel):
    from SAMSemiSegModule.panel.dialogs import QtDialogs

    for name in ("one", "two"):
        aScan(name)
    panel.project.ui.newProjectButton.click()
    shown = []

    @contextmanager
    def progress(title):
        with QtDialogs().progress(title) as goOn:

            def stopAtTheSecond(done, count, name):
                assert goOn(done, count, name)
                window = qt.QApplication.activeModalWidget()
                shown.append((window.value, window.maximum, window.labelText))
                if done == 1:
                    window.cancel()
                return goOn(done, count, name)

            yield stopAtTheSecond

    panel.services.dialogs.progress = progress
    panel.project.ui.addSceneButton.click()
    assert shown == [(0, 2, "one"), (1, 2, "two")]
    assert ids(panel) == ["one"] and "1 were not added" in panel.ui.messageLabel.text
    panel.services.dialogs.folder = panel.services.store.folder / "images"
    panel.services.store.remove(["one"])
    panel.project.ui.addFolderButton.click()
    assert "none of the folder's images was added" in panel.ui.messageLabel.text
    assert not ids(panel)


def test_segments_without_a_voxel_become_no_labels(panel):
    node = aSegmentation(aScan("first"))
    node.GetSegmentation().AddEmptySegment("helper", "helper")
    aScan("second")
    panel.project.ui.newProjectButton.click()
    panel.project.ui.addSceneButton.click()
    store = panel.services.store
    assert [(label.name, label.value) for label in store.labels] == [("liver", 1)]
    assert "left out: helper" in panel.ui.messageLabel.text

    panel.project._openCase("first")
    panel.labels.ui.takeSegmentsButton.click()
    assert [label.name for label in store.labels] == ["liver"]
    assert "hold no voxel became no labels: helper" in panel.ui.messageLabel.text
    panel.labels.ui.addLabelButton.click()
    panel.labels._rename(1, "helper")
    panel.labels.ui.takeSegmentsButton.click()
    assert panel.ui.messageLabel.text == ""


def test_labels_that_are_set_up_before_anything_is_drawn_are_taken(panel):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "set up")
    for name in ("liver", "tumor"):
        node.GetSegmentation().AddEmptySegment(name, name)
    panel.project.ui.newProjectButton.click()
    panel.labels.ui.takeSegmentsButton.click()
    assert [label.name for label in panel.services.store.labels] == ["liver", "tumor"]
