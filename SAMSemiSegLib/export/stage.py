"""The last stage of a run: the trained network in every format the settings name."""

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

_EXPORTS = {"torchscript": export_torchscript, "onnx": export_onnx, "bundle": export_bundle}


def export_model(
    trained: RetrainedNet,
    plan: Plan,
    project: Project,
    cases: Sequence[PreparedCase],
    settings: RunSettings,
    scores: Scores,
    folder: Path,
    context: Context,
) -> ModelCard:
    """Write the model card, and ``model.ts``, ``model.onnx``, ``bundle`` as the settings say.

    Args:
        trained: the network and its window.
        plan: the preprocessing that travels along.
        project: names the model and its labels.
        cases: are counted; nothing else of them is kept.
        settings: of the run.
        scores: their means enter the card.
        folder: to write into.
        context: collaborators.

    Returns:
        The card.
    """
    parts = [case.part for case in cases]
    card = ModelCard.of_run(
        project.name,
        project.label_set,
        plan,
        trained.patch,
        settings,
        DataCounts(
            labeled=parts.count("labeled"),
            unlabeled=parts.count("unlabeled"),
            evaluated=len({row.case for row in scores.rows}),
        ),
        scores,
    )
    context.events.stage("export", len(settings.export))
    write_card(card, folder)
    for number, name in enumerate(settings.export, 1):
        context.cancellation.check()
        _EXPORTS[name](trained.net, card, folder)
        context.events.progress(number, len(settings.export))
    context.events.done()
    return card
