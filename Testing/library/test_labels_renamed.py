"""Labels are renamed at any time: what files mean stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from SAMSemiSegLib.preprocessing.stage import prepare
from SAMSemiSegLib.project.label_set import LabelSet
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.project.review import accept, offer
from SAMSemiSegLib.run.cancellation import Cancellation
from SAMSemiSegLib.run.cases import as_started, write_cases
from SAMSemiSegLib.run.events import Events
from SAMSemiSegLib.run.folder import RunFolder
from SAMSemiSegLib.run.settings import PreprocessingSettings
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.devices import make_accelerator
from SAMSemiSegLib.volumes.reading import read_image_geometry, read_labels
from SAMSemiSegLib.volumes.writing import write_labels


def prepared_labels(project: Project, folder: Path) -> dict[str, np.ndarray]:
    """Channel indices by case id, as a run has them that was stopped and goes on."""
    run = RunFolder(folder)
    write_cases(project, run)
    context = Context(make_accelerator("cpu"), Events(None, ()), Cancellation(folder / "cancel"))
    project = as_started(project, run)
    _, cases = prepare(project, PreprocessingSettings(), folder / "preprocessed", context)
    return {case.id: np.array(case.labels) for case in cases if case.labels is not None}


@pytest.mark.parametrize("renamed", ["tail=1,head=2", "body=1,head=2", "tail=1,end=2", "a=1,b=2"])
def test_an_accepted_pseudo_label_means_what_a_drawn_label_map_does(
    tmp_path: Path, phantom_project: Callable[..., Project], renamed: str
) -> None:
    project = phantom_project(tmp_path, 2, 1)
    drawn, waiting = project.labeled[0], project.unlabeled[0]
    names, values, colors = (getattr(project.label_set, x) for x in ("names", "values", "colors"))
    assert drawn.label is not None and drawn.label.endswith(".nii.gz")
    grid = read_image_geometry(project.path(drawn.image))
    labels, _ = read_labels(project.path(drawn.label), values, grid, names)
    # The same scan once more, with the same label as a run offers it.
    project.replace(waiting.model_copy(update={"image": drawn.image}))
    proposal = project.folder / "proposal.seg.nrrd"
    write_labels(proposal, labels, names, values, colors, predicted=True)
    offer(project, waiting.id, proposal, 0.9)
    accept(project, waiting.id)
    project.label_set = LabelSet.parse(renamed)
    found = prepared_labels(project, tmp_path / "run")
    assert found.keys() == {drawn.id, waiting.id} and set(np.unique(found[drawn.id])) == {0, 1, 2}
    np.testing.assert_array_equal(found[waiting.id], found[drawn.id])
