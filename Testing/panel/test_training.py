"""Section 3 with a library that behaves as it is told to."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6-Essentials is not installed")
pytest.importorskip("pydantic", reason="the library's packages are not installed")
import slicer
from actions import aScan, pump


def test_training_waits_for_a_label(panel):
    aScan("only")
    panel.project.ui.newProjectButton.click()
    panel.project.ui.addSceneButton.click()
    assert "Labels" in panel.train.ui.reasonLabel.text
    panel.labels.ui.addLabelButton.click()
    assert "Label at least one case" in panel.train.ui.reasonLabel.text
    assert not panel.train.ui.body.enabled


def test_training_is_followed_and_cancelled(fakeTraining):
    train = fakeTraining("obey")
    pump(lambda: len(train.progress.curves.get("loss", [])) > 5)
    assert train.ui.cancelButton.enabled and not train.ui.trainButton.enabled
    train.ui.cancelButton.click()
    pump(lambda: train.outcome is not None)
    assert "Continue" in train.ui.stageLabel.text
    assert train.ui.continueButton.enabled


def test_out_of_memory_offers_one_click_with_less(fakeTraining):
    import json

    train = fakeTraining("out_of_memory")
    pump(lambda: train.outcome is not None)
    assert "not enough memory" in train.ui.stageLabel.text
    assert train.ui.retryButton.visible
    train.ui.retryButton.click()
    pump(lambda: train.outcome is not None)
    store = train.services.store
    arguments = json.loads((store.runFolder("run-2") / "config.json").read_text())["arguments"]
    assert "retraining.labeled_batch=1" in arguments
    assert "finetuning.gradient_checkpointing=true" in arguments


def test_crash_shows_what_happened_and_leaves_the_log(fakeTraining):
    train = fakeTraining("crash")
    pump(lambda: train.outcome is not None)
    assert "no such tensor" in train.ui.stageLabel.text
    assert "Traceback" in train.ui.logBox.plainText
    train.ui.copyLogButton.click()
    assert "Traceback" in slicer.app.clipboard().text()


def test_success_tells_how_good_the_network_is_and_where_to_go(fakeTraining):
    train = fakeTraining("succeed")
    pump(lambda: train.outcome is not None)
    said = train.ui.stageLabel.text
    assert said == "Finished. Dice 0.73 on the 'Score only' cases. Its network is in 'Model'."


def test_panel_answers_within_100_ms_while_a_training_floods_it(fakeTraining):
    """The panel's own time between two turns of its event loop; see test_story.py."""
    from SAMSemiSegModule.pauses import Pauses

    train = fakeTraining("flood")
    pump(lambda: bool(train.progress.curves), seconds=20)
    pauses, deadline = Pauses(), time.monotonic() + 3
    while time.monotonic() < deadline:
        with pauses.measured("a flood"):
            slicer.app.processEvents()
        time.sleep(0.005)
    assert len(pauses.all) > 50
    assert pauses.longest.busy < 0.1, pauses.report()


def test_a_pause_holds_what_the_panel_waits_for_and_not_what_holds_it_up():
    from SAMSemiSegModule.pauses import Pauses

    pauses = Pauses()
    with pauses.measured("waiting"):
        time.sleep(0.15)
    with pauses.measured("computing"):
        began = time.thread_time()
        while time.thread_time() - began < 0.1:
            pass
    waiting, computing = pauses.all
    assert waiting.busy > 0.1 and computing.busy > 0.08
    assert waiting.busy <= waiting.wall and computing.busy <= computing.wall
    assert pauses.longest is waiting and "waiting: 1" in pauses.report()


def test_closing_slicer_stops_the_training(fakeTraining):
    train = fakeTraining("obey")
    pump(lambda: bool(train.progress.curves))
    began = time.monotonic()
    slicer.app.quit()
    assert time.monotonic() - began < 5
    assert not train.runner.isRunning()


def test_reconnect_after_slicer_was_closed(openProject, fakeTraining):
    train = fakeTraining("outlive")
    pump(lambda: train.progress.stage == "retraining")
    openProject.services.dialogs.goOnAfterSlicer = lambda: True
    slicer.app.quit()
    assert not train.runner.isRunning()
    openProject.enter()
    assert train.runner.isRunning()
    assert "still at work" in openProject.ui.messageLabel.text
    pump(lambda: train.outcome is not None)
    assert train.outcome.end.name == "SUCCEEDED"


def test_opening_the_project_follows_a_training_that_went_on(openProject, fakeTraining):
    train = fakeTraining("outlive")
    pump(lambda: train.progress.stage == "retraining")
    openProject.services.dialogs.goOnAfterSlicer = lambda: True
    slicer.app.quit()
    openProject.services.store.close()
    slicer.mrmlScene.Clear(0)
    openProject.project.ui.openProjectButton.click()
    assert train.runner.isRunning() and not train.ui.trainButton.enabled
    assert "still at work" in openProject.ui.messageLabel.text


def test_a_stopped_run_can_be_continued_from_another_scene(openProject, fakeTraining):
    train = fakeTraining("obey")
    pump(lambda: bool(train.progress.curves))
    slicer.app.quit()
    openProject.services.store.close()
    slicer.mrmlScene.Clear(0)
    openProject.project.ui.openProjectButton.click()
    assert train.ui.continueButton.enabled and "'run-1'" in train.ui.continueButton.toolTip
    train.ui.continueButton.click()
    pump(lambda: bool(train.progress.curves))
    slicer.mrmlScene.Clear(0)
    train.ui.cancelButton.click()
    pump(lambda: train.outcome is not None)
    assert train.ui.continueButton.enabled
    (train._stoppedRun() / "manifest.json").touch()
    openProject.refresh()
    assert not train.ui.continueButton.enabled


def test_a_stopped_run_can_be_continued_after_a_later_one(openProject, fakeTraining):
    from SAMSemiSegLib.run.folder import RunFolder

    train, store = fakeTraining("obey"), openProject.services.store
    button = train.ui.continueButton
    pump(lambda: bool(train.progress.curves))
    train.ui.cancelButton.click()
    pump(lambda: train.outcome is not None)
    assert button.enabled and button.text == "Continue"
    fakeTraining("succeed")
    assert not button.enabled
    pump(lambda: train.outcome is not None)
    assert button.enabled and button.text == "Continue earlier run"
    assert "'run-1'" in button.toolTip and "in place of those of 'run-2'" in button.toolTip
    folder = RunFolder(store.runFolder("run-1"))
    folder.lock()  # the command goes on with it
    openProject.refresh()
    assert not button.enabled and button.text == "Continue"
    folder.unlock()
    openProject.refresh()
    assert openProject.model._run().name == "run-2"
    button.click()
    pump(lambda: train.outcome is not None)
    assert (folder.path / "manifest.json").exists() and not button.enabled
    assert openProject.model._run() == folder.path


def test_a_retry_starts_from_the_settings_of_the_run_that_ended(openProject, fakeTraining):
    import json

    from SAMSemiSegLib.run.presets import load_settings

    parameters, store = openProject.services.parameters, openProject.services.store
    train = fakeTraining("out_of_memory")
    pump(lambda: train.outcome is not None)
    settings = load_settings("balanced", ["retraining.net.width=12"], device="cuda", seed=7)
    config = store.runFolder("run-1") / "config.json"
    config.write_text(settings.model_dump_json())
    parameters.preset = "quick"  # as in a new scene
    train.ui.continueButton.click()
    pump(lambda: train.outcome is not None)
    train.ui.retryButton.click()
    pump(lambda: train.outcome is not None)
    config = store.runFolder("run-2") / "config.json"
    arguments = json.loads(config.read_text())["arguments"]
    pairs = dict(pairwise(arguments))
    assert (pairs["--preset"], pairs["--device"], pairs["--seed"]) == ("balanced", "cuda", "7")
    assert "retraining.net.width=12" in arguments and "retraining.labeled_batch=1" in arguments

    # Once more: a step further, on what the retry was started with.
    sets = [word for before, word in pairwise(arguments) if before == "--set"]
    config.write_text(load_settings("balanced", sets, device="cuda", seed=7).model_dump_json())
    train.ui.retryButton.click()
    pump(lambda: train.outcome is not None)
    arguments = json.loads((store.runFolder("run-3") / "config.json").read_text())["arguments"]
    assert "stitching.max_pixels=262144" in arguments and "retraining.labeled_batch=1" in arguments


def test_all_warnings_of_a_run_are_told_and_stay(openProject, fakeTraining):
    train = fakeTraining("obey")
    first, second = "The case 'a' is left out: damaged.", "The case 'b' is left out: empty."
    train.progress.warnings += [first, second, first]
    train.ui.cancelButton.click()
    pump(lambda: train.outcome is not None)
    openProject.exit()
    openProject.enter()
    assert openProject.ui.messageLabel.text == f"{first}\n{second}"


def test_further_settings_that_cannot_be_read_are_named(openProject):
    openProject.train.ui.extraSettingsEdit.text = "retraining.net.width"
    openProject.train.ui.trainButton.click()
    assert "'retraining.net.width' is not of the form key=value" in openProject.ui.messageLabel.text
    assert not openProject.services.trainer.isRunning()


def test_a_run_that_was_stopped_before_it_began_is_not_continued(openProject, fakeTraining):
    train = fakeTraining("obey")
    pump(lambda: bool(train.progress.curves))
    run = openProject.services.store.runFolder("run-1")
    (run / "config.json").unlink()
    train.ui.cancelButton.click()
    pump(lambda: train.outcome is not None)
    assert train.ui.stageLabel.text == "Stopped before the training began."
    assert not train.ui.continueButton.enabled


def test_a_run_of_another_project_ends_in_its_name(openProject, fakeTraining, tmp_path):
    train = fakeTraining("obey")
    pump(lambda: bool(train.progress.curves))
    openProject.services.dialogs.folder = tmp_path / "other"
    openProject.project.ui.newProjectButton.click()
    train.ui.cancelButton.click()
    pump(lambda: train.outcome is not None)
    assert "training of the project 'project' has ended" in openProject.ui.messageLabel.text
    assert not train.ui.progressBody.visible and not train.ui.retryButton.visible
