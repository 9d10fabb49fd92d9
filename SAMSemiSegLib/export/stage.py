"""The last stage of a run: the V-Net in the formats asked for, with its card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from SAMSemiSegLib.evaluation.scores import Scores
from SAMSemiSegLib.export.bundle import export_bundle
from SAMSemiSegLib.export.model_card import DataCounts, ModelCard, write_card
from SAMSemiSegLib.export.onnx import export_onnx
from SAMSemiSegLib.export.torchscript import export_torchscript
from SAMSemiSegLib.preprocessing.plan import Plan
from SAMSemiSegLib.preprocessing.stage import PreparedCase
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.retraining.stage import RetrainedNet
from SAMSemiSegLib.run.settings import RunSettings
from SAMSemiSegLib.training.context import Context

EXPORTERS = {"torchscript": export_torchscript, "onnx": export_onnx, "bundle": export_bundle}


def export_model(
    trained: RetrainedNet,
    plan: Plan,
    project: Project,
    cases: Sequence[PreparedCase],
    settings: RunSettings,
    scores: Scores,
    folder: Path,
    context: Context,
) -> None:
    """Write the model in each format of ``settings.export`` into ``folder``.

    Args:
        trained: the final network.
        plan: preprocessing, which every format carries.
        project: names the labels.
        cases: counted for the card.
        settings: of the run.
        scores: of the evaluation cases.
        folder: to write into.
        context: collaborators.
    """
    counts = {part: sum(case.part == part for case in cases) for part in _PARTS}
    card = ModelCard.of_run(
        project.name,
        project.label_set,
        plan,
        trained.patch,
        trained.net.settings,
        settings,
        DataCounts(
            labeled=counts["labeled"],
            unlabeled=counts["unlabeled"],
            evaluated=len({score.case for score in scores.rows}),
        ),
        scores,
    )
    net = trained.net.cpu().eval()
    context.events.stage("export", len(settings.export))
    write_card(card, folder)
    for number, name in enumerate(settings.export, 1):
        context.cancellation.check()
        EXPORTERS[name](net, card, folder)
        context.events.progress(number, len(settings.export))
    context.events.done()


_PARTS = ("labeled", "unlabeled")
