"""Cases whose label file is gone, as where the folder of a run was deleted."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest.importorskip("pydantic", reason="the library's packages are not installed")
import slicer
from actions import BLOCK, aSegmentation, draw, pretendPseudoLabels


@pytest.fixture
def withoutRun(openProject):
    """'third' is accepted and 'second' waits; the run that made their labels is deleted."""
    store = openProject.services.store
    pretendPseudoLabels(openProject)
    store.accept("third")
    store.project.case("third").label = store.project.stored(
        store.folder / "runs" / "run-1" / "proposals" / "third.nrrd"
    )
    store.project.save()
    shutil.rmtree(store.folder / "runs" / "run-1")
    openProject.refresh()
    return openProject


def test_a_case_whose_label_is_gone_is_shown_and_labeled_anew(withoutRun):
    panel, parameters = withoutRun, withoutRun.services.parameters
    store = panel.services.store
    panel.project._openCase("third")
    assert parameters.caseId == "third" and parameters.caseVolume is not None
    assert "'third' is not there any more" in panel.ui.messageLabel.text
    assert "third.nrrd" in panel.ui.messageLabel.text and parameters.caseSegmentation is None
    panel.labels.ui.labelCaseButton.click()
    drawn = draw(panel, BLOCK)
    panel.labels.ui.saveLabelButton.click()
    assert store.case("third").status == "corrected" and not store.hasLostLabel(store.case("third"))
    panel.project._openCase("first")
    panel.project._openCase("third")
    assert drawn and panel.ui.messageLabel.text == "" and parameters.caseSegmentation is not None


def test_the_review_goes_on_over_a_pseudo_label_that_is_gone(withoutRun):
    panel, ui, store = withoutRun, withoutRun.review.ui, withoutRun.services.store
    ui.nextButton.click()
    assert ui.caseLabel.text == "second" and "Its file is gone" in ui.whyLabel.text
    assert ui.rejectButton.enabled and ui.editButton.enabled
    assert not ui.acceptButton.enabled and not ui.correctButton.enabled
    ui.rejectButton.click()
    assert store.case("second").status == "rejected", panel.ui.messageLabel.text
    ui.undoButton.click()
    assert ui.caseLabel.text == "second"
    ui.editButton.click()
    draw(panel, BLOCK)
    panel.refresh()
    assert not ui.acceptButton.enabled  # there is nothing to accept
    ui.correctButton.click()
    assert store.case("second").status == "corrected", panel.ui.messageLabel.text


def test_a_rejection_throws_away_no_drawing_on_a_lost_label_without_a_question(withoutRun):
    panel, ui, asked = withoutRun, withoutRun.review.ui, []
    ui.nextButton.click()
    ui.editButton.click()
    draw(panel, BLOCK)
    panel.services.dialogs.saveDrawing = lambda question: asked.append(question)
    ui.rejectButton.click()
    assert len(asked) == 1 and panel.services.store.case("second").status == "pseudo"
    panel.services.dialogs.saveDrawing = lambda question: False
    ui.rejectButton.click()
    assert panel.services.store.case("second").status == "rejected"


def test_a_pseudo_label_that_came_in_place_of_a_lost_one_is_looked_at_first(withoutRun):
    from SAMSemiSegLib.project.project import Project
    from SAMSemiSegLib.project.review import offer

    panel, ui, store = withoutRun, withoutRun.review.ui, withoutRun.services.store
    ui.nextButton.click()
    newer = store.folder / "runs" / "run-2" / "proposals" / "second.nrrd"
    newer.parent.mkdir(parents=True)
    shutil.copy(store.labelPath(store.case("first")), newer)
    offer(Project.load(store.folder), "second", newer, 0.7)
    ui.rejectButton.click()
    assert "look at it, then decide" in panel.ui.messageLabel.text
    assert store.case("second").status == "pseudo" and ui.acceptButton.enabled


def test_what_slicers_own_editor_drew_takes_the_place_of_a_lost_label(withoutRun):
    panel, parameters = withoutRun, withoutRun.services.parameters
    own = aSegmentation(slicer.util.getNode("third"), BLOCK)
    panel.project._openCase("third")
    panel.labels.ui.labelCaseButton.click()
    assert parameters.caseSegmentation is own
    panel.labels.ui.saveLabelButton.click()
    assert panel.services.store.case("third").status == "corrected"
