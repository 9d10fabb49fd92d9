"""The ways in and out: files, folders, DICOM, installing, the library's offer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest.importorskip("pydantic", reason="the library's packages are not installed")
import numpy as np
import slicer
from actions import aScan, aSegmentation, draw, pump
from SAMSemiSegModule.process.outcome import End
from SAMSemiSegModule.process.query import NoAnswer
from SAMSemiSegModule.scene.volumes import exportVolume


@pytest.fixture
def scanFiles(scene, tmp_path) -> list[Path]:
    """Two image files, in a folder named ``images``."""
    paths = []
    for name in ("one", "two"):
        volume = aScan(name)
        paths.append(tmp_path / "scans" / "images" / f"{name}.nrrd")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        exportVolume(volume, paths[-1])
        slicer.mrmlScene.RemoveNode(volume)
    return paths


@pytest.fixture
def emptyProject(panel):
    panel.project.ui.newProjectButton.click()
    return panel


def test_files_stay_where_they_are(emptyProject, scanFiles):
    emptyProject.services.dialogs.files = scanFiles
    emptyProject.project.ui.addFilesButton.click()
    store = emptyProject.services.store
    assert [case.id for case in store.cases] == ["one", "two"]
    assert [store.imagePath(case) for case in store.cases] == scanFiles


def test_a_folder_is_added_whole(emptyProject, scanFiles):
    emptyProject.services.dialogs.folder = scanFiles[0].parent
    emptyProject.project.ui.addFolderButton.click()
    assert emptyProject.services.store.counts() == (0, 2, 0)


def test_a_folder_of_dicom_slices_is_shown_and_labeled(emptyProject, dicomFolder):
    from SAMSemiSegLib.volumes.reading import check_label_geometry, read_image_geometry

    panel, store = emptyProject, emptyProject.services.store
    panel.services.dialogs.folder = dicomFolder
    panel.project.ui.addFolderButton.click()
    store.setLabels([{"name": "liver", "value": 1, "color": (9, 9, 9)}])
    panel.project._openCase("hippocampus_crop")
    panel.labels.ui.labelCaseButton.click()
    draw(panel, np.s_[3:9, 3:9, 3:9])
    panel.labels.ui.saveLabelButton.click()
    case = store.case("hippocampus_crop")
    assert case.status == "labeled", panel.ui.messageLabel.text
    image = read_image_geometry(store.imagePath(case))
    assert check_label_geometry(store.labelPath(case), image) is None


def test_a_file_that_is_no_image_is_named_and_nothing_is_added(emptyProject, tmp_path):
    (tmp_path / "letter.nrrd").write_text("Dear colleague")
    emptyProject.services.dialogs.files = [tmp_path / "letter.nrrd"]
    emptyProject.project.ui.addFilesButton.click()
    assert "letter.nrrd" in emptyProject.ui.messageLabel.text
    assert not emptyProject.services.store.cases


def test_dicom_comes_by_slicers_database(emptyProject, monkeypatch):
    opened = []
    monkeypatch.setattr(slicer.util, "selectModule", opened.append)
    emptyProject.project.ui.addDicomButton.click()
    assert opened == ["DICOM"] and "Add from scene" in emptyProject.ui.messageLabel.text
    emptyProject.exit()
    emptyProject.enter()
    assert "Add from scene" in emptyProject.ui.messageLabel.text


def test_overlapping_segments_are_told_of(panel):
    volume = aScan("scan")
    node = aSegmentation(volume)
    second = node.GetSegmentation().AddEmptySegment("tumor", "tumor", [0.2, 0.3, 0.8])
    mask = np.zeros((20, 22, 24), np.uint8)
    mask[7:11, 5:9, 5:9] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, second, volume)
    panel.project.ui.newProjectButton.click()
    panel.project.ui.addSceneButton.click()
    assert [label.name for label in panel.services.store.labels] == ["liver", "tumor"]
    assert "32 voxels of 'scan' lie in several segments" in panel.ui.messageLabel.text


def test_each_case_gets_a_square_picture(openProject):
    from SAMSemiSegModule.scene.thumbnails import SIDE, thumbnailPath

    store = openProject.services.store
    paths = [thumbnailPath(store.folder, case.id) for case in store.cases]
    pump(lambda: all(path.is_file() for path in paths))
    import SimpleITK as sitk

    assert {sitk.ReadImage(str(path)).GetSize() for path in paths} == {(SIDE, SIDE)}


def test_a_large_file_gets_its_picture_when_it_is_shown(openProject, monkeypatch):
    import SimpleITK as sitk
    from SAMSemiSegModule.scene import thumbnails

    store = openProject.services.store
    target = thumbnails.thumbnailPath(store.folder, "second")
    pump(target.is_file)
    ofFile = sitk.GetArrayFromImage(sitk.ReadImage(str(target)))
    target.unlink()
    monkeypatch.setattr(thumbnails, "MOST_BYTES", 0)
    assert not thumbnails.canThumbnail(store.imagePath(store.case("second")))
    openProject.project._openCase("second")
    ofNode = sitk.GetArrayFromImage(sitk.ReadImage(str(target)))
    assert ofFile.max() == 255 and np.array_equal(ofNode, ofFile)


class SuggestedCases:
    """The library's answer to ``project suggest``; the first question is still under way."""

    def __init__(self, cases) -> None:
        self._answers = [None, {"mode": "next", "cases": cases}]
        self.ended = False

    def poll(self):
        answer = self._answers.pop(0)
        if answer is not None and not answer["cases"]:
            raise NoAnswer("The project 'p' has no case left to label.")
        return answer

    def end(self) -> None:
        self.ended = True


def test_suggested_cases_are_selected_with_the_reason(openProject, monkeypatch):
    asked, queries = [], []
    cases = [{"id": "third", "why": "confidence 0.700"}]

    def ask(arguments):
        asked.append(arguments)
        queries.append(SuggestedCases(cases))
        return queries[-1]

    monkeypatch.setattr(openProject.services, "ask", ask)
    openProject.project.ui.suggestButton.click()
    assert "Looking at the volumes" in openProject.ui.messageLabel.text
    pump(lambda: "Label next: 'third' (confidence 0.700)." in openProject.ui.messageLabel.text)
    folder = str(openProject.services.store.folder)
    assert asked == [["project", "suggest", folder, "--count", "3"]]
    assert openProject.project._table.selectedIds() == ["third"]

    cases.clear()
    openProject.project.ui.suggestButton.click()
    pump(lambda: "'p' has no case left to label." in openProject.ui.messageLabel.text)
    assert openProject.project._suggestion._query is None
    openProject.project.ui.suggestButton.click()
    openProject.project.cleanup()
    assert queries[-1].ended


def test_the_library_says_what_can_be_chosen(openProject):
    ui = openProject.train.ui
    pump(lambda: ui.methodBox.count > 1)
    assert [ui.methodBox.itemText(i) for i in range(ui.methodBox.count)] == [
        "As in the preset",
        "Mean Teacher",
    ]
    assert ui.deviceBox.itemText(1) == "cpu: 2 cores, 5 GB memory free"
    assert "39 MB, license Apache-2.0" in ui.weightsLabel.text
    assert "It is downloaded once" in ui.weightsLabel.text
    assert openProject.train._catalog.hasToDownload("lite_medsam")
    assert not openProject.train._catalog.hasToDownload("medsam2")
    assert "foundation.weights" in openProject.train._catalog.weightsSentence("medsam2")
    pump(lambda: not openProject.train._catalog._queries)
    openProject.enter()
    assert list(openProject.train._catalog._queries) == ["doctor"]
    ui.methodBox.setCurrentIndex(1)
    assert openProject.services.parameters.method == "mean_teacher"


def test_the_foundation_model_that_is_named_is_the_one_that_is_used(openProject):
    train, ui = openProject.train, openProject.train.ui
    pump(lambda: not train._catalog._queries)
    assert ui.weightsLabel.text.startswith("LiteMedSAM")
    ui.presetBox.setCurrentIndex(ui.presetBox.findData("paper"))
    assert ui.weightsLabel.text.startswith("SAM ViT-B: 375 MB")
    ui.presetBox.setCurrentIndex(ui.presetBox.findData("quick"))
    train._catalog._answers["doctor"]["devices"].append({"name": "cuda:0", "about": "a GPU"})
    openProject.refresh()
    assert ui.weightsLabel.text.startswith("SAM ViT-B")
    ui.deviceBox.setCurrentIndex(ui.deviceBox.findData("cpu"))
    assert ui.weightsLabel.text.startswith("LiteMedSAM")
    ui.extraSettingsEdit.text = "foundation.name=sam_vit_b foundation.weights=sam.pth"
    ui.extraSettingsEdit.editingFinished.emit()
    assert ui.weightsLabel.text.startswith("SAM ViT-B")
    assert "Its file is named in the further settings" in ui.weightsLabel.text


def test_a_strategy_guided_by_a_vnet_gets_one_with_every_preset(openProject):
    from SAMSemiSegModule.process.arguments import runSettings

    from SAMSemiSegLib.run.checks import check_before_start

    train = openProject.train
    pump(lambda: not train._catalog._queries)
    for preset in ("quick", "balanced", "paper"):
        train.parameters.preset, train.parameters.strategy = preset, "box"
        settings = train._settings()
        minutes = settings.get("retraining.warm_start.minutes")
        assert minutes == ("15.0" if preset == "paper" else None)
        check_before_start(train.store.project, runSettings(train.parameters, settings))


def test_the_library_says_why_it_cannot_answer(openProject):
    class Failed:
        def poll(self):
            raise NoAnswer("The file 'weights.json' is damaged; delete it.")

    catalog = openProject.train._catalog
    pump(lambda: not catalog._queries)
    before = catalog.methods()
    catalog._queries["methods"] = Failed()
    pump(lambda: "'weights.json' is damaged" in openProject.ui.messageLabel.text)
    assert not catalog._queries and catalog.methods() == before


def test_missing_packages_grey_out_all_and_are_installed_by_a_click(panel, monkeypatch):
    from SAMSemiSegModule.install.requirements import Requirement

    installer = panel.services.installer
    absent = [Requirement("monai", "1.4")]
    monkeypatch.setattr(installer, "_findMissing", lambda wanted: list(absent))
    asked = []

    def pip(requirements, wheels):
        asked.append(([requirement.text for requirement in requirements], wheels))
        absent.clear()

    monkeypatch.setattr(installer, "_pip", pip)
    panel.refresh()
    assert panel.ui.installFrame.visible and "monai" in panel.ui.installLabel.text
    assert not any(section.button.enabled for section in panel.sections)
    panel.ui.installButton.click()
    assert asked == [(["monai>=1.4"], None)]
    assert not panel.ui.installFrame.visible
    assert all(section.button.enabled for section in panel.sections)
    absent.append(Requirement("monai", "1.4"))
    panel.refresh()
    panel.ui.installWheelsButton.click()
    assert asked[1] == (["monai>=1.4"], panel.services.dialogs.folder)


def test_an_installation_that_fails_is_told(panel, monkeypatch):
    from SAMSemiSegModule.install.requirements import Requirement

    installer = panel.services.installer
    monkeypatch.setattr(installer, "_findMissing", lambda wanted: [Requirement("torch", "2.4")])
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    panel.refresh()
    panel.ui.installButton.click()
    assert "Extensions Manager" in panel.ui.messageLabel.text
    assert panel.ui.installFrame.visible
    panel.ui.restartButton.click()
    assert slicer.app.restarted


def test_downloaded_weights_are_removed(panel, monkeypatch, tmp_path):
    from SAMSemiSegLib.foundation import cache

    removed = []
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "lite_medsam.safetensors").touch()
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "weights")
    monkeypatch.setattr(cache, "remove", lambda name: removed.append(name) or True)
    panel.project.ui.newProjectButton.click()
    panel.train._removeWeights()
    assert removed == ["lite_medsam"] and "1 weights" in panel.ui.messageLabel.text


def test_a_run_goes_on_over_a_reload_of_the_module(fakeTraining, widget):
    from host.application import closeModule, openModule

    train = fakeTraining("obey")
    pump(lambda: bool(train.progress.curves))
    panel = train.services
    closeModule(widget)
    assert not panel.trainer.isRunning()
    again = openModule()
    try:
        runner = again.panel.services.trainer
        assert runner.isRunning() and again.panel.train.ui.cancelButton.enabled
        pump(lambda: bool(again.panel.train.progress.curves))
        again.panel.train.ui.cancelButton.click()
        pump(lambda: again.panel.train.outcome is not None)
        assert again.panel.train.outcome.end is End.CANCELLED
    finally:
        again.panel.endWithSlicer()
        closeModule(again)


STUB = """
import os, types
app = None
util = types.SimpleNamespace(
    selectModule=lambda name: None,
    getModuleWidget=lambda name: None,
    exit=lambda code: os._exit(code),
)
"""


@pytest.mark.parametrize(
    ("story", "code"),
    [
        ("pass", 0),
        ("assert data, 'no scans'", 1),
        ("raise SystemExit(0)", 1),
        ("import nothing", 1),
    ],
)
def test_the_script_for_a_real_slicer_fails_closed(tmp_path, story, code):
    """Run with a stand-in for Slicer that does nothing but end with the code it is given."""
    import os
    import subprocess

    (tmp_path / "slicer.py").write_text(STUB)
    (tmp_path / "SAMSemiSegModule").mkdir()
    (tmp_path / "SAMSemiSegModule" / "__init__.py").touch()
    (tmp_path / "SAMSemiSegModule" / "story.py").write_text(
        f"def runStory(widget, data):\n    {story}\n"
    )
    script = Path(__file__).resolve().parents[1] / "slicer" / "story.py"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    environment.pop("SAMSEMISEG_DATA", None)
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, timeout=60
    )
    assert done.returncode == code, done.stderr.decode()


def test_without_scans_the_story_is_no_success(tmp_path):
    from SAMSemiSegModule.story import runStory, scansIn

    with pytest.raises(AssertionError, match="SAMSEMISEG_DATA"):
        runStory(None, str(tmp_path))
    (tmp_path / "hippocampus").mkdir()
    (tmp_path / "hippocampus" / "train.list").touch()
    assert (
        scansIn(str(tmp_path)) == tmp_path / "hippocampus" == scansIn(str(tmp_path / "hippocampus"))
    )


def test_the_sample_data_become_a_project_in_two_clicks(panel, hippocampusFolder):
    """As Slicer's Sample Data module loads them: each label as a segmentation without a volume."""
    import hashlib

    from SAMSemiSegModule.sample_data import IMAGES, LABELS

    for name, digest in IMAGES.items():
        path = hippocampusFolder / "images" / f"{name}.nii.gz"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
        slicer.util.loadVolume(str(path), {"name": name})
    for name, digest in LABELS.items():
        path = hippocampusFolder / "labels" / f"{name}.nii.gz"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
        slicer.util.loadSegmentation(str(path), {"name": f"{name} label"})
    panel.project.ui.newProjectButton.click()
    panel.project.ui.addSceneButton.click()
    store = panel.services.store
    assert store.counts() == (2, 4, 0), panel.ui.messageLabel.text
    assert [case.id for case in store.cases if case.label] == list(LABELS)
    assert len(store.labels) == 2
    import SimpleITK as sitk

    for name in LABELS:
        ours = sitk.GetArrayFromImage(sitk.ReadImage(str(store.labelPath(store.case(name)))))
        given = sitk.GetArrayFromImage(
            sitk.ReadImage(str(hippocampusFolder / "labels" / f"{name}.nii.gz"))
        )
        assert np.array_equal(ours, given)
