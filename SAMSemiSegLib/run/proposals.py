"""What comes back to the clinician: the trained V-Net's segmentation of each unlabeled volume,
with its uncertainty, offered for review."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from SAMSemiSegLib.atomic import write_text
from SAMSemiSegLib.preprocessing.preprocessor import Preprocessor
from SAMSemiSegLib.preprocessing.stage import PreparedCase
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.project.review import offer
from SAMSemiSegLib.pseudolabels.confidence import volume_score, voxel_confidence
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.memory import WHOLE_VOLUMES, memory_sentence
from SAMSemiSegLib.volumes.components import keep_largest
from SAMSemiSegLib.volumes.volume import Volume
from SAMSemiSegLib.volumes.writing import write_image, write_labels


def write_proposals(
    project: Project,
    cases: Sequence[PreparedCase],
    predict: Callable[[PreparedCase], np.ndarray[Any, Any]],
    preprocessor: Preprocessor,
    folder: Path,
    context: Context,
    largest_component: Sequence[int] = (),
) -> None:
    """Write ``ID.seg.nrrd`` and ``ID_uncertainty.nrrd`` (percent) on each source volume's grid,
    and offer them in the project.

    Labels that a person drew, corrected or accepted meanwhile are kept: the project is read again
    before anything is offered.

    Args:
        project: of the run.
        cases: unlabeled cases.
        predict: probabilities (K, X, Y, Z) of a case on its preprocessed grid.
        preprocessor: leads back to the source grid.
        folder: of the proposals.
        context: collaborators.
        largest_component: channels of which only the largest component is kept.
    """
    labels = project.label_set
    mine = set(context.share([case.id for case in cases]))
    context.events.stage("proposals", len(cases))
    for number, case in enumerate(cases, 1):
        context.cancellation.check()
        path = folder / f"{case.id}.seg.nrrd"
        if case.id in mine and not path.exists():
            with memory_sentence(WHOLE_VOLUMES):
                probabilities = predict(case)
                confidence = voxel_confidence(probabilities)
                score = volume_score(probabilities.argmax(0), confidence)
                uncertainty = np.rint(100 * (1 - preprocessor.back_map(confidence, case.source)))
                found = preprocessor.back(probabilities, case.source)
                channels = Volume(keep_largest(found, largest_component), case.source)
            percent = Volume(uncertainty.clip(0, 100).astype(np.uint8), case.source)
            source = project.path(project.case(case.id).image)
            write_image(folder / f"{case.id}_uncertainty.nrrd", percent, source)
            write_text(folder / f"{case.id}.score", f"{score:.6f}")
            write_labels(
                path,
                channels,
                labels.names,
                labels.values,
                labels.colors,
                labels.terminologies,
                source=source,
                predicted=True,
            )
        context.events.progress(number, len(cases))
    context.wait()
    offered = folder / "offered"
    if context.main and cases and not offered.exists():
        current = Project.load(project.folder)
        with current.saved():
            known = {case.id for case in current.cases}
            for case in cases:
                score = float((folder / f"{case.id}.score").read_text(encoding="utf-8"))
                if case.id in known:
                    offer(current, case.id, folder / f"{case.id}.seg.nrrd", score, save=False)
        offered.touch()  # a run that is resumed must not take back what was decided since
    context.events.done()
