"""Section 4: the queue, its decisions, its end."""

from __future__ import annotations

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest.importorskip("pydantic", reason="the library's packages are not installed")
from actions import pretendPseudoLabels


def test_review_goes_from_the_least_certain_to_a_clear_end(openProject):
    panel, ui = openProject, openProject.review.ui
    pretendPseudoLabels(panel)
    assert ui.body.enabled and ui.leftLabel.text == "2 left to review"
    ui.nextButton.click()
    assert ui.caseLabel.text == "third"
    assert "Confidence 0.40" in ui.whyLabel.text
    ui.acceptButton.click()
    assert ui.caseLabel.text == "second" and ui.leftLabel.text == "1 left to review"
    ui.undoButton.click()
    assert ui.caseLabel.text == "third" and ui.leftLabel.text == "2 left to review"
    ui.rejectButton.click()
    ui.acceptButton.click()
    assert ui.leftLabel.text == "All pseudo-labels are reviewed."
    assert not ui.acceptButton.enabled and not ui.nextButton.enabled
    assert ui.trainAgainButton.enabled


def test_at_the_end_the_review_says_what_can_be_done(openProject, fakeTraining):
    ui, store = openProject.review.ui, openProject.services.store
    pretendPseudoLabels(openProject)
    ui.nextButton.click()
    ui.rejectButton.click()
    ui.rejectButton.click()
    assert [case.status for case in store.cases] == ["labeled", "rejected", "rejected"]
    assert "label some of the cases in 'Labels'" in ui.whyLabel.text
    assert not ui.trainAgainButton.enabled
    ui.undoButton.click()
    ui.acceptButton.click()
    assert "Train again with your corrections" in ui.whyLabel.text and ui.trainAgainButton.enabled
    fakeTraining("obey")
    assert "A training is under way" in ui.whyLabel.text and not ui.trainAgainButton.enabled


def test_review_starts_with_the_least_certain_whatever_is_on_screen(openProject):
    panel, ui = openProject, openProject.review.ui
    pretendPseudoLabels(panel)
    panel.project._openCase("second")
    ui.nextButton.click()
    assert ui.caseLabel.text == "third"
    ui.nextButton.click()
    assert ui.caseLabel.text == "second"


def test_a_bad_case_does_not_hold_up_the_others(openProject):
    panel, ui = openProject, openProject.review.ui
    pretendPseudoLabels(panel)
    store = panel.services.store
    store.labelPath(store.case("third")).unlink()
    ui.nextButton.click()
    assert "third.nrrd" in panel.ui.messageLabel.text
    panel.project._openCase("second")
    ui.acceptButton.click()
    assert store.case("second").status == "accepted"


def test_keyboard_shortcuts_work_on_screen_only(widget):
    shortcuts = widget.panel.review._shortcuts
    assert all(shortcut.enabled for shortcut in shortcuts)
    widget.exit()
    assert not any(shortcut.enabled for shortcut in shortcuts)
    widget.enter()


def test_an_empty_pseudo_label_cannot_be_accepted(openProject):
    """No training would start with it."""
    import SimpleITK as sitk

    panel, ui = openProject, openProject.review.ui
    pretendPseudoLabels(panel)
    path = panel.services.store.labelPath(panel.services.store.case("third"))
    sitk.WriteImage(0 * sitk.ReadImage(str(path)), str(path))
    ui.nextButton.click()
    assert "is empty: reject it" in ui.whyLabel.text
    assert not ui.acceptButton.enabled and ui.rejectButton.enabled
