"""How good the pseudo-labels of the unlabeled cases are, by labels that no stage has read."""

from __future__ import annotations

from pathlib import Path

from SAMSemiSegLib.evaluation.metrics import compare_labels
from SAMSemiSegLib.evaluation.scores import Scores, SummaryRow
from SAMSemiSegLib.preprocessing.plan import Plan
from SAMSemiSegLib.preprocessing.preprocessor import Preprocessor
from SAMSemiSegLib.preprocessing.stage import PreparedCase
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.pseudolabels.pseudo_label import PseudoLabel
from SAMSemiSegLib.volumes.reading import read_labels

ROW = "pseudo-labels of unlabeled cases"


def score_pseudo_labels(project: Project, run: Path, labels: Path) -> list[SummaryRow]:
    """Mean scores of a finished run's pseudo-labels, on the source volumes' own grid.

    Args:
        project: knows the label set.
        run: folder of the run, its preprocessed cases included.
        labels: folder with a label of each case, named as the case.

    Returns:
        One row, and one for each round of SFR+, which has written anew those of unsure volumes
        only; none where the run has made no pseudo-labels.
    """
    rows = {ROW: run}
    rows |= {f"{ROW} ({x.name.replace('-', ' ')})": x for x in sorted(run.glob("round-*"))}
    files = [(row, x) for row in rows for x in sorted((rows[row] / "pseudolabels").glob("*.npz"))]
    if not files:
        return []
    plan = Plan.model_validate_json((run / "preprocessed" / "plan.json").read_text("utf-8"))
    preprocessor = Preprocessor(plan)
    values, names = project.label_set.values, project.label_set.names
    scores = Scores()
    for row, file in files:
        source = PreparedCase(file.stem, run / "preprocessed" / file.stem, "unlabeled").source
        truth, _ = read_labels(next(labels.glob(f"{file.stem}.*")), values, source, names)
        found = preprocessor.back(PseudoLabel.load(file).probabilities, source)
        scores.add(row, file.stem, compare_labels(found, truth.array, names, source.spacing))
    return [scores.overall(row) for row in scores.row_names]
