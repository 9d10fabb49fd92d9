"""A clinician reviews and labels while a run is at work, or stopped: neither disturbs the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from SAMSemiSegLib.errors import Cancelled, InputError
from SAMSemiSegLib.evaluation.scores import Scores
from SAMSemiSegLib.export.predictor import Predictor
from SAMSemiSegLib.project import review
from SAMSemiSegLib.project.label_set import LabelSet
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.run.events import read_events
from SAMSemiSegLib.run.folder import RunFolder
from SAMSemiSegLib.run.presets import load_settings
from SAMSemiSegLib.run.start import start

pytestmark = pytest.mark.usefixtures("run_here")


@pytest.fixture
def project(seven_phantoms: Project) -> Project:
    return seven_phantoms


def test_what_is_decided_while_a_run_is_at_work_is_kept(project: Project, tmp_path: Path) -> None:
    drawn, waiting, other = (case.id for case in project.unlabeled)

    def draw(event: dict[str, Any]) -> None:
        if event["kind"] == "stage" and event["stage"] == "proposals":
            label = tmp_path / "scans" / "labels" / f"{drawn}.nii.gz"
            review.correct(Project.load(project.folder), drawn, label)

    folder = RunFolder(project.folder / "runs" / "a")
    start(project, folder, load_settings("tiny", ["export=[]"]), listener=draw)
    after = Project.load(project.folder)
    assert after.case(drawn).status == "corrected"
    assert [after.case(id).status for id in (waiting, other)] == ["pseudo", "pseudo"]


@pytest.fixture
def stopped(project: Project) -> RunFolder:
    """A run that was stopped once its cases were preprocessed."""

    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "stage" and event["stage"] == "finetuning":
            raise Cancelled

    folder = RunFolder(project.folder / "runs" / "a")
    with pytest.raises(Cancelled):
        start(project, folder, load_settings("tiny", ['export=["torchscript"]']), listener=stop)
    return folder


def test_a_run_that_is_stopped_is_no_error(stopped: RunFolder) -> None:
    log = (stopped / "log.txt").read_text(encoding="utf-8")
    assert "stopped; it can be resumed" in log and "unexpectedly" not in log


def go_on(folder: RunFolder) -> Scores | None:
    """In another process the project is read again."""
    project = Project.load(folder.path.parents[1])
    return start(project, folder, folder.settings(), resume=True)


def test_a_run_goes_on_with_the_cases_it_began_with(stopped: RunFolder, tmp_path: Path) -> None:
    """Reviewing and labeling are what the clinician does meanwhile."""
    project = Project.load(stopped.path.parents[1])
    scoring, relabeled = project.labeled
    drawn = project.unlabeled[0].id
    scored, trains_now = project.evaluation
    labels = tmp_path / "scans" / "labels"
    review.correct(project, drawn, labels / f"{drawn}.nii.gz")
    review.correct(project, relabeled.id, labels / f"{drawn}.nii.gz")
    project.replace(
        scoring.model_copy(
            update={"role": "evaluation", "reference": scoring.label, "label": None}
            | {"origin": "none", "status": "unlabeled"}
        )
    )
    project.replace(
        trains_now.model_copy(
            update={"role": "training", "label": trains_now.reference, "reference": None}
            | {"origin": "expert", "status": "labeled"}
        )
    )
    project.save()
    scores = go_on(stopped)
    assert scores is not None
    assert {row.case for row in scores.of("re-trained")} == {scored.id, trains_now.id}
    data = Predictor.load(stopped / "model", "cpu").card.data
    assert (data.labeled, data.unlabeled, data.evaluated) == (2, 3, 2)
    told = [e["message"] for e in read_events(stopped.events) if e["kind"] == "warning"]
    assert [relabeled.id in message for message in told if "former one" in message] == [True]
    after = Project.load(project.folder)
    assert after.case(drawn).status == "corrected"
    assert [after.case(c.id).role for c in (scoring, trains_now)] == ["evaluation", "training"]


def take_out(project: Project) -> None:
    del project.cases[-1]


def take_a_label_back(project: Project) -> None:
    case = project.labeled[0]
    project.replace(case.model_copy(update={"label": None, "status": "rejected"}))


def exchange_a_label(project: Project) -> None:
    project.label_set = LabelSet.parse("head=1,body=2")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (take_out, "'phantom_007' has been taken out .* since the run 'a' began"),
        (take_a_label_back, "label of the case 'phantom_001'.* has been taken back"),
        (exchange_a_label, "labels of the project have changed"),
    ],
)
def test_a_run_does_not_go_on_in_a_project_that_no_longer_suits_it(
    stopped: RunFolder, change: Callable[[Project], None], sentence: str
) -> None:
    project = Project.load(stopped.path.parents[1])
    change(project)
    project.save()
    with pytest.raises(InputError, match=sentence) as refused:
        go_on(stopped)
    assert "start a new run" in str(refused.value) and "\n" not in str(refused.value)


def test_a_run_of_before_its_cases_were_noted_goes_on(stopped: RunFolder) -> None:
    stopped.cases.unlink()
    assert go_on(stopped) is not None


def test_what_was_rejected_after_a_run_stays_so_when_it_is_resumed(project: Project) -> None:
    folder = RunFolder(project.folder / "runs" / "a")
    start(project, folder, load_settings("tiny", ["export=[]"]))
    rejected = project.unlabeled[0].id
    review.reject(Project.load(project.folder), rejected)
    go_on(folder)
    assert Project.load(project.folder).case(rejected).status == "rejected"


def test_a_run_keeps_the_foundation_model_that_it_chose_by_its_device(project: Project) -> None:
    """``auto`` would be another one where the run goes on on a GPU."""
    folder = RunFolder(project.folder / "runs" / "a")

    def stop(event: dict[str, Any]) -> None:
        raise Cancelled

    settings = load_settings("tiny", ["foundation.name=auto"], device="cpu")
    with pytest.raises(Cancelled):
        start(project, folder, settings, listener=stop)
    assert folder.settings().foundation.name == "lite_medsam" != settings.foundation.name
