"""The first stage of a run: every case once, onto the common grid and intensities, on disk."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from SAMSemiSegLib.atomic import replacing, write_json, write_text
from SAMSemiSegLib.digest import file_digest
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.preprocessing.plan import Plan, make_plan
from SAMSemiSegLib.preprocessing.preprocessor import Preprocessor
from SAMSemiSegLib.project.case import Case
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.run.events import Kind
from SAMSemiSegLib.run.settings import PreprocessingSettings
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.volumes.reading import read_image, read_labels
from SAMSemiSegLib.volumes.volume import Geometry, Volume

Part = Literal["labeled", "unlabeled", "evaluation"]

FINGERPRINT_CASES = 60
"""The plan is made from at most so many cases, spread evenly; more change no median."""


@dataclass(frozen=True)
class PreparedCase:
    """A preprocessed case on disk. Arrays are memory-mapped, so that holding a thousand costs
    nothing.

    Attributes:
        id: of the case.
        folder: holds ``image.npy``, for labeled cases ``labels.npy``, and ``geometry.json``.
        part: what the case is used for.
    """

    id: str
    folder: Path
    part: Part

    @property
    def image(self) -> np.ndarray[Any, Any]:
        """(X, Y, Z) float32."""
        array: np.ndarray[Any, Any] = np.load(self.folder / "image.npy", mmap_mode="r")
        return array

    @property
    def labels(self) -> np.ndarray[Any, Any] | None:
        """(X, Y, Z) uint8 channel indices of a labeled case; None for all others."""
        if self.part != "labeled":
            return None
        array: np.ndarray[Any, Any] = np.load(self.folder / "labels.npy", mmap_mode="r")
        return array

    @property
    def source(self) -> Geometry:
        """The grid of the source volume, to which results return."""
        kept = json.loads((self.folder / "geometry.json").read_text(encoding="utf-8"))
        return Geometry(**{name: tuple(values) for name, values in kept.items()})


def require_labels(project: Project) -> None:
    """Refuse a project that nothing can be learned from.

    Raises:
        InputError: no training case has a label.
    """
    if not project.labeled:
        raise InputError(
            "No case of the project has a label; label at least one (samsemiseg project add "
            "FOLDER IMAGE --label FILE), then train."
        )


def prepare(
    project: Project, settings: PreprocessingSettings, folder: Path, context: Context
) -> tuple[Plan, list[PreparedCase]]:
    """Plan the preprocessing from the cases, and preprocess each of them once.

    An unlabeled or evaluation case that cannot be read is left out with a warning; a labeled one
    ends the run, because its label was made for it.

    Args:
        project: labeled, unlabeled and evaluation cases are taken.
        settings: what is set by hand.
        folder: ``plan.json`` and a folder for each case are kept here.
        context: collaborators.

    Raises:
        InputError: no case is labeled, or a labeled case cannot be used.
    """
    parts: list[tuple[Case, Part]] = [
        *((case, "labeled") for case in project.labeled),
        *((case, "unlabeled") for case in project.unlabeled),
        *((case, "evaluation") for case in project.evaluation),
    ]
    require_labels(project)
    if not project.unlabeled:
        context.events.message("There is no unlabeled case: the V-Net is trained supervised.")
    plan_path = folder / "plan.json"
    if context.main and not plan_path.exists():
        training = [case for case, part in parts if part != "evaluation"]
        plan = make_plan(_volumes(project, training, context), settings)
        write_text(plan_path, plan.model_dump_json(indent=2) + "\n")
    context.wait()
    plan = Plan.model_validate_json(plan_path.read_text(encoding="utf-8"))
    preprocessor = Preprocessor(plan)
    context.events.stage("preprocessing", len(parts))
    mine = set(context.share([case.id for case, _ in parts]))
    told: list[tuple[Kind, str]] = []
    for number, (case, part) in enumerate(parts, 1):
        context.cancellation.check()
        if case.id in mine:
            try:
                told += _prepare_case(project, case, part, preprocessor, folder / case.id)
            except InputError as error:
                if part == "labeled":
                    raise
                reason = project.without_paths(str(error))
                told.append(("warning", f"The case '{case.id}' is left out: {reason}"))
        context.events.progress(number, len(parts))
    context.wait()
    context.tell(told)
    context.events.done()
    prepared = [PreparedCase(case.id, folder / case.id, part) for case, part in parts]
    return plan, [case for case in prepared if (case.folder / "geometry.json").exists()]


def _volumes(project: Project, cases: list[Case], context: Context) -> Iterator[Volume]:
    """The volumes of the cases one by one; unlabeled ones that cannot be read are passed over."""
    step = max(1, math.ceil(len(cases) / FINGERPRINT_CASES))
    for case in itertools.islice(cases, 0, None, step):
        context.cancellation.check()
        try:
            yield read_image(project.path(case.image))
        except InputError:
            if case.trainable:
                raise
            # Said, with the reason, when the case itself is prepared.
            continue


def _prepare_case(
    project: Project,
    case: Case,
    part: Part,
    preprocessor: Preprocessor,
    folder: Path,
) -> list[tuple[Kind, str]]:
    """Returns what is to be told."""
    told: list[tuple[Kind, str]] = []
    done, digest = folder / "geometry.json", folder / "label.sha256"
    if done.exists():
        if part == "labeled" and digest.exists() and _has_changed(project, case, digest):
            sentence = (
                f"The label of the case '{case.id}' has changed since the run began, which goes on "
                "with the former one; a new run trains on the new one."
            )
            told.append(("warning", sentence))
        return told
    volume = read_image(project.path(case.image))
    if part == "labeled":
        assert case.label is not None
        values = project.label_set.values
        labels, note = read_labels(
            project.path(case.label),
            values,
            volume.geometry,
            project.label_set.names,
            own=case.origin == "pseudo",
        )
        if note:
            # The case's id says which; a file's name may be a patient's.
            name = Path(case.label).name
            note = note.replace(f"The label '{name}'", "The label")
            note = note.replace(f"'{name}'", "the label")
            told.append(("message", f"{case.id}: {note}"))
        _save(folder / "labels.npy", preprocessor.labels(labels))
        write_text(digest, file_digest(project.path(case.label)))
    _save(folder / "image.npy", preprocessor.image(volume))
    geometry = volume.geometry
    # Written last: its presence says that the case is ready.
    write_json(done, {name: list(value) for name, value in vars(geometry).items()})
    return told


def _has_changed(project: Project, case: Case, digest: Path) -> bool:
    """Whether the label is another than the one that was preprocessed."""
    assert case.label is not None
    label = project.path(case.label)
    kept = digest.read_text(encoding="utf-8")
    try:
        return label.is_file() and file_digest(label) != kept
    except OSError:  # what was preprocessed needs its file no more
        return False


def _save(path: Path, array: np.ndarray[Any, Any]) -> None:
    with replacing(path) as temporary:
        np.save(temporary, array)
