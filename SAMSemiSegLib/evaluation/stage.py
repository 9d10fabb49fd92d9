"""Scores of the cases that no stage has trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.evaluation.metrics import compare_labels
from SAMSemiSegLib.evaluation.scores import Scores
from SAMSemiSegLib.preprocessing.preprocessor import Preprocessor
from SAMSemiSegLib.preprocessing.stage import PreparedCase
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.run.events import Kind
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.memory import WHOLE_VOLUMES, memory_sentence
from SAMSemiSegLib.volumes.components import keep_largest
from SAMSemiSegLib.volumes.reading import read_labels

Predict = Callable[[PreparedCase], np.ndarray]
"""Probabilities (K, X, Y, Z) of a case on its preprocessed grid."""


def evaluate(
    row: str,
    predict: Predict,
    cases: Sequence[PreparedCase],
    project: Project,
    preprocessor: Preprocessor,
    context: Context,
    largest_component: Sequence[int] = (),
) -> Scores:
    """Predict each case and compare with its reference on the source volume's grid.

    Args:
        row: name of the row in the table ("re-trained").
        predict: the model.
        cases: those with a reference are scored.
        project: knows the references.
        preprocessor: leads back to the source grid.
        context: collaborators; the cases are shared out over the processes.
        largest_component: channels of which only the largest component is kept.
    """
    from accelerate.utils import gather_object

    scored = [case for case in cases if project.case(case.id).reference]
    mine = set(context.share([case.id for case in scored]))
    context.events.stage(f"evaluation:{row}", len(scored))
    scores = Scores()
    told: list[tuple[Kind, str]] = []
    for number, case in enumerate(scored, 1):
        context.cancellation.check()
        if case.id in mine:
            try:
                with memory_sentence(WHOLE_VOLUMES):
                    _score(row, predict, case, project, preprocessor, scores, largest_component)
            except InputError as error:
                reason = project.without_paths(str(error))
                told.append(("warning", f"The case '{case.id}' is not scored: {reason}"))
        context.events.progress(number, len(scored))
    context.tell(told)
    if context.accelerator.num_processes > 1:
        scores = Scores(gather_object(scores.rows))
    context.events.done()
    return scores


def _score(
    row: str,
    predict: Predict,
    case: PreparedCase,
    project: Project,
    preprocessor: Preprocessor,
    scores: Scores,
    largest_component: Sequence[int],
) -> None:
    reference_path = project.case(case.id).reference
    assert reference_path is not None
    values, names = project.label_set.values, project.label_set.names
    reference, _ = read_labels(project.path(reference_path), values, case.source, names)
    found = preprocessor.back(predict(case), case.source)
    prediction = keep_largest(found, largest_component)
    spacing = case.source.spacing
    scores.add(row, case.id, compare_labels(prediction, reference.array, names, spacing))
