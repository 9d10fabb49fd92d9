"""What a person draws: never lost, and never taken for something else, without a question."""

from __future__ import annotations

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest.importorskip("pydantic", reason="the library's packages are not installed")
import numpy as np
import SimpleITK as sitk
import slicer
from actions import BLOCK, draw, pretendPseudoLabels
from SAMSemiSegModule.scene.case_view import isUnsaved


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
