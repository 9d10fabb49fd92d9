"""The cases that a run was started with, and what for: it keeps to them when it goes on, whatever a
person has reviewed and labeled meanwhile."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from SAMSemiSegLib.atomic import write_json
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.case import Case
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.run.folder import RunFolder


class StartedWith(BaseModel):
    """``cases.json``: ids only, since a path may name a patient."""

    model_config = ConfigDict(extra="forbid")

    labels: list[tuple[str, int]]
    """Names and values, in the order of the network's channels."""
    labeled: list[str]
    unlabeled: list[str]
    evaluation: list[str]

    @classmethod
    def of(cls, project: Project) -> StartedWith:
        return cls(
            labels=[(label.name, label.value) for label in project.label_set.labels],
            labeled=[case.id for case in project.labeled],
            unlabeled=[case.id for case in project.unlabeled],
            evaluation=[case.id for case in project.evaluation],
        )


def write_cases(project: Project, folder: RunFolder) -> None:
    """Note what a run starts with."""
    write_json(folder.cases, StartedWith.of(project).model_dump())


def as_started(project: Project, folder: RunFolder) -> Project:
    """The project with the cases that the run was started with, each used for what it was then.

    It is for the run to read, never to be saved.

    Raises:
        InputError: the labels are others, or a case or the label that it trains by is gone.
    """
    if not folder.cases.exists():  # begun by a version that did not write it
        return project
    try:
        started = StartedWith.model_validate_json(folder.cases.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"'{folder.cases}' cannot be read; start a new run with another name."
        ) from error
    run = folder.path.name
    if StartedWith.of(project).labels != started.labels:
        raise InputError(
            f"The labels of the project have changed since the run '{run}' began; give them back "
            "their names, values and order, or start a new run."
        )
    known = {case.id: case for case in project.cases}
    for id in (*started.labeled, *started.unlabeled, *started.evaluation):
        if id not in known:
            raise InputError(
                f"The case '{id}' has been taken out of the project since the run '{run}' began; "
                "start a new run."
            )
    cases = [
        *(_labeled(known[id], run) for id in started.labeled),
        *(_unlabeled(known[id]) for id in started.unlabeled),
        *(_evaluation(known[id]) for id in started.evaluation),
    ]
    return project.model_copy(update={"cases": cases})


def _labeled(case: Case, run: str) -> Case:
    if case.trainable:
        return case
    # One that only scores by now is still scored by none of this run's networks: they know it.
    label = case.reference if case.role == "evaluation" else None
    if label is None:
        raise InputError(
            f"The label of the case '{case.id}', which the run '{run}' trains on, has been taken "
            "back since it began; give the case a label again, or start a new run."
        )
    update = {"role": "training", "label": label, "origin": "expert", "status": "labeled"}
    return case.model_copy(update=update)


def _unlabeled(case: Case) -> Case:
    update = {"role": "training", "label": None, "origin": "none", "status": "unlabeled"}
    return case.model_copy(update=update)


def _evaluation(case: Case) -> Case:
    reference = case.label if case.trainable else case.reference
    return _unlabeled(case).model_copy(update={"role": "evaluation", "reference": reference})
