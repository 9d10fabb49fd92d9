"""What a person draws: never lost, and never taken for something else, without a question."""

from __future__ import annotations

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest.importorskip("pydantic", reason="the library's packages are not installed")
import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from actions import draw, pretendPseudoLabels
from SAMSemiSegModule.scene.case_view import FILE, isUnsaved
from SAMSemiSegModule.scene.content import filledSegments
from SAMSemiSegModule.scene.thumbnails import thumbnailPath

from SAMSemiSegLib.volumes.reading import read_image
from SAMSemiSegLib.volumes.volume import Volume
from SAMSemiSegLib.volumes.writing import write_labels

BLOCK = np.s_[3:9, 3:9, 3:9]


class Answer:
    """Answers one kind of question, and remembers what was asked."""

    def __init__(self, value) -> None:
        self.value = value
        self.asked: list[str] = []

    def __call__(self, question: str):
        self.asked.append(question)
        return self.value


@pytest.fixture
def answer(openProject) -> Answer:
    """To what becomes of a drawing; "stay" unless a test says otherwise."""
    openProject.services.dialogs.saveDrawing = Answer(None)
    return openProject.services.dialogs.saveDrawing


def move(volume, scale=1.0):
    """A transform over the volume that puts it elsewhere."""
    matrix = vtk.vtkTransform()
    matrix.Translate(7, -5, 3)
    matrix.RotateZ(20)
    matrix.Scale(scale, scale, scale)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    transform.SetMatrixTransformToParent(matrix.GetMatrix())
    volume.SetAndObserveTransformNodeID(transform.GetID())


def liesOnImage(panel, caseId: str, where) -> bool:
    """Whether the case's label is the voxels there, on the grid of the project's image."""
    store = panel.services.store
    label = sitk.ReadImage(str(store.labelPath(store.case(caseId))))
    image = sitk.ReadImage(str(store.imagePath(store.case(caseId))))
    expected = np.zeros(image.GetSize()[::-1], bool)
    expected[where] = True
    isOnGrid = image.IsSameImageGeometryAs(label)
    return isOnGrid and np.array_equal(sitk.GetArrayFromImage(label) > 0, expected)


def storedVoxels(panel, caseId: str) -> int:
    path = panel.services.store.labelPath(panel.services.store.case(caseId))
    return int((sitk.GetArrayFromImage(sitk.ReadImage(str(path))) > 0).sum())


def test_an_unsaved_drawing_is_not_thrown_away_without_a_question(openProject, answer):
    panel, parameters = openProject, openProject.services.parameters
    panel.project._openCase("second")
    panel.labels.ui.labelCaseButton.click()
    panel.project._openCase("third")  # nothing is drawn yet
    panel.project._openCase("second")
    panel.labels.ui.labelCaseButton.click()
    assert not answer.asked
    drawn, node = draw(panel, BLOCK), parameters.caseSegmentation
    panel.project._openCase("second")
    assert not answer.asked and parameters.caseSegmentation is node

    panel.project._openCase("third")
    panel.services.dialogs.folder = panel.services.store.folder.parent / "other"
    panel.project.ui.newProjectButton.click()
    assert len(answer.asked) == 2 and "'second' is not saved" in answer.asked[0]
    assert parameters.caseId == "second" and slicer.mrmlScene.IsNodePresent(node)

    answer.value = True
    panel.project._openCase("third")
    assert parameters.caseId == "third" and storedVoxels(panel, "second") == drawn
    panel.project._openCase("second")
    draw(panel, np.s_[3:5, 3:5, 3:5])
    answer.value = False
    panel.project._openCase("third")
    assert parameters.caseId == "third" and storedVoxels(panel, "second") == drawn


def test_a_training_asks_whether_an_unsaved_drawing_takes_part(openProject, answer, monkeypatch):
    panel, started = openProject, []
    monkeypatch.setattr(panel.train, "_start", lambda *_: started.append(1))
    panel.project._openCase("second")
    panel.labels.ui.labelCaseButton.click()
    drawn, node = draw(panel, BLOCK), panel.services.parameters.caseSegmentation
    for value, runs in ((None, 0), (False, 1), (True, 2), (True, 3)):
        answer.value = value
        panel.train.train()
        assert len(started) == runs
    assert len(answer.asked) == 3 and "trains without it" in answer.asked[0]
    assert storedVoxels(panel, "second") == drawn and slicer.mrmlScene.IsNodePresent(node)


def test_what_is_drawn_on_a_pseudo_label_makes_it_a_correction(openProject, answer):
    panel, ui = openProject, openProject.review.ui
    store = panel.services.store
    pretendPseudoLabels(panel)
    ui.nextButton.click()
    ui.editButton.click()
    drawn = draw(panel, BLOCK)
    ui.acceptButton.click()
    assert "'third'" in answer.asked[0] and store.case("third").status == "pseudo"
    answer.value = True
    ui.acceptButton.click()
    assert store.case("third").status == "corrected" and storedVoxels(panel, "third") == drawn

    assert panel.services.parameters.caseId == "second"
    before = storedVoxels(panel, "second")
    ui.editButton.click()
    draw(panel, BLOCK)
    answer.value = False
    ui.acceptButton.click()
    assert store.case("second").status == "accepted" and storedVoxels(panel, "second") == before
    assert len(answer.asked) == 3


def test_a_pseudo_label_that_came_meanwhile_is_shown_before_it_is_accepted(openProject):
    from SAMSemiSegLib.project.project import Project
    from SAMSemiSegLib.project.review import offer

    panel, ui = openProject, openProject.review.ui
    store = panel.services.store
    pretendPseudoLabels(panel)
    ui.nextButton.click()
    other = Project.load(store.folder)
    newer = store.folder / "runs" / "run-2" / "proposals" / "third.nrrd"
    newer.parent.mkdir(parents=True)
    newer.write_bytes(store.labelPath(store.case("third")).read_bytes())
    offer(other, "third", newer, 0.7)
    ui.acceptButton.click()
    assert store.case("third").status == "pseudo"
    assert "look at it, then decide" in panel.ui.messageLabel.text
    assert panel.services.parameters.caseId == "third"
    ui.acceptButton.click()
    assert store.case("third").status == "accepted"
    assert store.labelPath(store.case("third")) == newer


def test_segments_that_the_label_set_does_not_name_are_asked_about(openProject):
    panel = openProject
    panel.services.dialogs.confirm = Answer(False)
    panel.project._openCase("second")
    panel.labels.ui.labelCaseButton.click()
    drawn = draw(panel, BLOCK)
    draw(panel, np.s_[12:15, 12:15, 12:15], "Segment_1")
    panel.labels.ui.saveLabelButton.click()
    assert "Segment_1" in panel.services.dialogs.confirm.asked[0]
    assert panel.services.store.case("second").status == "unlabeled"
    assert not list((panel.services.store.folder / "labels").glob("second*"))
    panel.services.dialogs.confirm.value = True
    panel.labels.ui.saveLabelButton.click()
    assert storedVoxels(panel, "second") == drawn


@pytest.mark.parametrize("isHardened", [False, True])
def test_what_is_drawn_on_a_scan_that_was_moved_becomes_the_label_of_its_voxels(
    openProject, isHardened
):
    panel, volume = openProject, slicer.util.getNode("second")
    move(volume)
    if isHardened:
        volume.HardenTransform()
    panel.project._openCase("second")
    panel.labels.ui.labelCaseButton.click()
    draw(panel, BLOCK)
    panel.labels.ui.saveLabelButton.click()
    assert panel.services.store.case("second").status == "labeled", panel.ui.messageLabel.text
    assert liesOnImage(panel, "second", BLOCK)


@pytest.mark.parametrize("isHardened", [False, True])
def test_a_drawing_from_before_its_scan_was_moved_is_neither_saved_beside_it_nor_lost(
    openProject, isHardened
):
    panel, volume, store = openProject, slicer.util.getNode("second"), openProject.services.store
    panel.project._openCase("second")
    panel.labels.ui.labelCaseButton.click()
    draw(panel, BLOCK)
    move(volume)
    if isHardened:
        volume.HardenTransform()
    panel.labels.ui.saveLabelButton.click()
    assert "scan of 'second' was moved" in panel.ui.messageLabel.text
    assert store.case("second").status == "unlabeled"
    assert not list((store.folder / "labels").glob("second*"))

    slicer.mrmlScene.RemoveNode(volume)  # as the sentence says
    panel.project._openCase("second")
    panel.labels.ui.saveLabelButton.click()
    assert store.case("second").status == "labeled", panel.ui.messageLabel.text
    assert liesOnImage(panel, "second", BLOCK)


def test_a_drawing_on_a_scan_that_was_scaled_is_not_saved(openProject):
    panel = openProject
    move(slicer.util.getNode("second"), scale=1.5)
    panel.project._openCase("second")
    panel.labels.ui.labelCaseButton.click()
    draw(panel, BLOCK)
    panel.labels.ui.saveLabelButton.click()
    assert "scan of 'second' was moved" in panel.ui.messageLabel.text
    assert panel.services.store.case("second").status == "unlabeled"


def test_nodes_that_were_deleted_are_named_and_come_back(openProject):
    panel, parameters = openProject, openProject.services.parameters
    pretendPseudoLabels(panel)
    panel.review.ui.nextButton.click()
    slicer.mrmlScene.RemoveNode(parameters.caseSegmentation)
    for button in (panel.review.ui.correctButton, panel.review.ui.acceptButton):
        button.click()
        assert "'third' is not in the scene any more" in panel.ui.messageLabel.text
    slicer.mrmlScene.RemoveNode(parameters.caseVolume)
    panel.review.ui.editButton.click()
    assert "'third' is not in the scene any more" in panel.ui.messageLabel.text
    panel.project._openCase("third")
    panel.review.ui.acceptButton.click()
    assert panel.services.store.case("third").status == "accepted"


def test_the_segment_editor_takes_mouse_and_keys_on_screen_only(openProject, widget):
    editor = openProject.labels.ui.editor
    widget.exit()
    widget.enter()
    assert not editor.observesViews and not editor.hasShortcuts  # it is not open
    openProject.project._openCase("second")
    openProject.labels.ui.labelCaseButton.click()
    assert editor.observesViews and editor.hasShortcuts
    editor.setActiveEffectByName("Paint")
    drawing = editor.segmentationNode()
    widget.exit()
    assert (editor.effect, editor.observesViews, editor.hasShortcuts) == ("", False, False)
    assert editor.segmentationNode() is drawing is openProject.services.parameters.caseSegmentation
    openProject.ui.labelsButton.collapsed = True
    widget.enter()
    assert editor.observesViews and editor.hasShortcuts

    slicer.mrmlScene.Clear(0)
    assert editor.segmentationNode() is None
    assert (editor.effect, editor.observesViews, editor.hasShortcuts) == ("", False, False)


def test_new_project_leaves_the_case_on_screen(openProject):
    openProject.project._openCase("second")
    openProject.services.dialogs.folder = openProject.services.store.folder.parent / "other"
    openProject.project.ui.newProjectButton.click()
    assert openProject.services.parameters.caseId == ""


def test_another_scan_under_a_name_that_is_free_again_is_another_case(openProject, tmp_path):
    panel, store = openProject, openProject.services.store
    panel.project._openCase("second")
    picture = thumbnailPath(store.folder, "second")
    assert picture.is_file()
    panel.project._table.select(["second"])
    panel.project.ui.removeCaseButton.click()
    assert store.case("second") is None and not picture.exists()
    other = tmp_path / "second.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.random.default_rng(5).random((9, 8, 7))), str(other))
    panel.services.dialogs.files = [other]
    panel.project.ui.addFilesButton.click()
    panel.project._openCase("second")
    shown = panel.services.parameters.caseVolume
    assert slicer.util.arrayFromVolume(shown).shape == (9, 8, 7)


def test_a_training_asks_about_drawings_of_cases_that_are_not_on_screen(openProject, monkeypatch):
    """The user's own segmentations stay in the scene when the next case comes."""
    panel, started = openProject, []
    monkeypatch.setattr(panel.train, "_start", lambda *_: started.append(1))
    panel.project._openCase("first")
    draw(panel, BLOCK)
    panel.project._openCase("second")
    panel.services.dialogs.confirm = Answer(False)
    panel.train.train()
    assert not started and "not saved: first." in panel.services.dialogs.confirm.asked[0]
    panel.services.dialogs.confirm.value = True
    panel.train.train()
    assert started
    panel.project._openCase("first")
    panel.labels.ui.labelCaseButton.click()
    panel.labels.ui.saveLabelButton.click()
    panel.project._openCase("second")
    panel.train.train()
    assert len(started) == 2 and len(panel.services.dialogs.confirm.asked) == 2


def test_an_unsaved_drawing_outlives_the_move_of_its_project(openProject, answer):
    panel, parameters = openProject, openProject.services.parameters
    store, folder = panel.services.store, panel.services.store.folder
    panel.project._openCase("second")
    panel.labels.ui.labelCaseButton.click()
    drawn, node = draw(panel, BLOCK), parameters.caseSegmentation
    moved = folder.rename(folder.with_name("moved"))
    panel.setParameters(parameters)
    store.close()  # as where the scene is loaded again
    panel.project.openFolder(moved)
    assert not answer.asked and parameters.caseSegmentation is node
    panel.labels.ui.saveLabelButton.click()
    assert storedVoxels(panel, "second") == drawn
    # Its volumes are in it already.
    panel.project.ui.addSceneButton.click()
    assert len(store.cases) == 3


def test_an_unsaved_drawing_stays_where_another_project_is_opened_in_place_of_its_lost_one(
    openProject, answer, tmp_path
):
    panel, parameters = openProject, openProject.services.parameters
    panel.project._openCase("second")
    panel.labels.ui.labelCaseButton.click()
    draw(panel, BLOCK)
    node = parameters.caseSegmentation
    panel.services.store.close()
    panel.services.dialogs.folder = tmp_path / "other"
    panel.project.ui.newProjectButton.click()
    assert not answer.asked and slicer.mrmlScene.IsNodePresent(node)
    assert parameters.caseId == "" and isUnsaved(node)


def test_a_pseudo_label_that_came_while_its_case_was_on_screen_is_opened_to_correct(openProject):
    panel, parameters = openProject, openProject.services.parameters
    panel.project._openCase("second")
    pretendPseudoLabels(panel)
    assert parameters.caseSegmentation is None
    assert "is not on screen" in panel.review.ui.whyLabel.text
    assert not panel.review.ui.acceptButton.enabled
    panel.review.ui.editButton.click()
    assert filledSegments(parameters.caseSegmentation) == ["liver"]
    assert parameters.caseSegmentation.GetAttribute(FILE) is not None


def test_slicers_own_save_never_writes_over_a_label_of_the_project(openProject):
    panel, store = openProject, openProject.services.store
    case = store.case("first")
    label = store.labelPath(case).with_name("first.seg.nrrd")
    image = read_image(store.imagePath(case))
    drawn = np.zeros(image.array.shape, np.uint8)
    drawn[BLOCK] = 1
    write_labels(label, Volume(drawn, image.geometry), ["liver"], [1], [(200, 80, 50)])
    store.setExpertLabel("first", label)
    slicer.mrmlScene.Clear(0)
    panel.project._openCase("first")
    assert panel.services.parameters.caseSegmentation.GetStorageNode() is None


def test_a_copy_of_a_cases_nodes_is_the_users_own(openProject, tmp_path):
    panel, parameters = openProject, openProject.services.parameters
    slicer.mrmlScene.Clear(0)
    panel.project._openCase("first")
    volume, drawing = parameters.caseVolume, parameters.caseSegmentation
    copies = []
    for node in (volume, drawing):
        copy = slicer.mrmlScene.AddNewNodeByClass(node.GetClassName())
        copy.Copy(node)
        copy.SetName("my copy")
        copies.append(copy)
    panel.project._openCase("second")
    panel.project._openCase("first")
    assert all(slicer.mrmlScene.IsNodePresent(copy) for copy in copies)
    assert parameters.caseVolume not in copies and parameters.caseSegmentation not in copies

    panel.project.ui.addSceneButton.click()  # the copy joins as a case of its own
    assert "my_copy" in [case.id for case in panel.services.store.cases]
    panel.project._openCase("my_copy")
    panel.project._openCase("second")
    assert slicer.mrmlScene.IsNodePresent(copies[0])


def test_a_label_that_a_scene_was_saved_without_is_loaded_again(openProject):
    panel, parameters = openProject, openProject.services.parameters
    slicer.mrmlScene.Clear(0)
    panel.project._openCase("first")
    erased = parameters.caseSegmentation
    segmentId = erased.GetSegmentation().GetNthSegmentID(0)
    nothing = np.zeros(slicer.util.arrayFromVolume(parameters.caseVolume).shape, np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        nothing, erased, segmentId, parameters.caseVolume
    )
    panel.project._openCase("first")
    assert parameters.caseSegmentation is erased  # that was the user's doing
    erased.GetSegmentation().RemoveAllSegments()  # as it comes back
    panel.project._openCase("first")
    assert filledSegments(parameters.caseSegmentation) == ["liver"]
