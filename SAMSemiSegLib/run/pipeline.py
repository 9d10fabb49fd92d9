"""The order of the stages: the whole main job, from a project to an exported V-Net."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from SAMSemiSegLib.evaluation.scores import Scores
from SAMSemiSegLib.evaluation.stage import Predict, evaluate
from SAMSemiSegLib.export.stage import export_model
from SAMSemiSegLib.finetuning.stage import build_strategy, finetune
from SAMSemiSegLib.finetuning.strategy import FinetuningStrategy
from SAMSemiSegLib.preprocessing.preprocessor import Preprocessor
from SAMSemiSegLib.preprocessing.stage import PreparedCase, prepare
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.pseudolabels.clean import channels_of
from SAMSemiSegLib.pseudolabels.plausible import fault, label_sizes
from SAMSemiSegLib.pseudolabels.pseudo_label import MappedPseudoLabel
from SAMSemiSegLib.pseudolabels.stage import (
    draw_cases,
    predict_pseudo_label,
    write_pseudo_labels,
)
from SAMSemiSegLib.retraining.inference import predict_probabilities
from SAMSemiSegLib.retraining.ssl.method import METHODS
from SAMSemiSegLib.retraining.stage import RetrainedNet, retrain
from SAMSemiSegLib.retraining.student import adapt_settings
from SAMSemiSegLib.run.folder import RunFolder
from SAMSemiSegLib.run.proposals import write_proposals
from SAMSemiSegLib.run.selection import ConfidentCase, choose_confident
from SAMSemiSegLib.run.settings import Budget, Norm, RunSettings
from SAMSemiSegLib.run.undrawn import undrawn_labels, undrawn_sentence
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.volumes.components import whole_channels
from SAMSemiSegLib.volumes.volume import Triple


@dataclass
class Pipeline:
    """The stages of one run, in order; each leaves its result in the run folder and is passed over
    when it is there already."""

    project: Project
    folder: RunFolder
    settings: RunSettings
    context: Context
    spacing: Triple = (1.0, 1.0, 1.0)
    """Of the preprocessed volumes."""
    whole: Sequence[int] = ()
    """Channels that are in one piece in every labeled volume."""

    def run(self) -> Scores:
        """All stages."""
        labels = self.project.label_set
        plan, cases = prepare(
            self.project, self.settings.preprocessing, self.folder / "preprocessed", self.context
        )
        preprocessor = Preprocessor(plan)
        self.spacing = plan.spacing
        unlabeled = [case for case in cases if case.part == "unlabeled"]
        evaluation = [case for case in cases if case.part == "evaluation"]
        scores = Scores()
        if undrawn := undrawn_labels(cases, labels.names):
            self.context.events.warning(undrawn_sentence(undrawn))
        self._settle_cleaning(cases)
        largest = channels_of(
            self.settings.retraining.largest_component, labels.names, "retraining.largest_component"
        )

        def score(row: str, predict: Predict, of_vnet: bool = True) -> None:
            kept = self.folder / "evaluation" / f"{row}.json"
            if kept.exists():
                found = Scores.from_json(kept)
            else:
                found = evaluate(
                    row, predict, evaluation, self.project, preprocessor, self.context,
                    largest if of_vnet else (),
                )  # fmt: skip
                if self.context.main:
                    found.to_json(kept)
            scores.rows.extend(found.rows)

        if self.settings.supervised_baseline:
            budget = self.settings.supervised_budget or self.settings.retraining.budget
            baseline = self._by_labels("supervised", cases, budget, "supervised")
            score("supervised only", partial(self._probabilities, baseline))
        warm: RetrainedNet | None = None
        if (first := self.settings.retraining.warm_start) is not None:
            # With the norm that the method will want: weights are not all that is handed on.
            own, _ = adapt_settings(self.settings.retraining, len(cases), len(unlabeled))
            warm = self._by_labels(
                first.method, cases, first, "warm-start", own.net.norm, unlabeled
            )
            score("warm start", partial(self._probabilities, warm))
        final = self._round("", cases, {}, warm, score)
        selection = self.settings.retraining.selection
        if self._selects and selection.alternation == "rounds" and unlabeled:
            for number in range(1, 1 + selection.rounds):
                folder = self.folder / f"round-{number}"
                chosen = choose_confident(
                    cases,
                    partial(self._probabilities, final),
                    selection,
                    labels.channels,
                    self.whole,
                    folder,
                    self.context,
                )
                if len(chosen) in (0, len(unlabeled)):
                    break
                if warm is not None:  # by now there is a better one
                    warm = final
                final = self._round(f"round {number}", cases, chosen, warm, score)
        if self.context.main and scores.rows:
            scores.to_json(self.folder / "evaluation" / "scores.json")
            scores.to_csv(self.folder / "evaluation" / "scores.csv")
            self.context.events.emit(
                "scores",
                values={row: scores.overall(row).figures["dice"].mean for row in scores.row_names},
            )
        write_proposals(
            self.project,
            unlabeled,
            partial(self._probabilities, final),
            preprocessor,
            self.folder / "proposals",
            self.context,
            largest,
        )
        if self.context.main:
            export_model(
                final, plan, self.project, cases, self.settings, scores, self.folder / "model",
                self.context,
            )  # fmt: skip
        self.context.wait()
        return scores

    def _round(
        self,
        title: str,
        cases: list[PreparedCase],
        confident: Mapping[str, ConfidentCase],
        warm: RetrainedNet | None,
        score: Callable[..., None],
    ) -> RetrainedNet:
        """Fine-tuning, pseudo-labels and re-training, once.

        Args:
            title: of the round, empty for the first.
            cases: all of the run.
            confident: unlabeled cases that fine-tune the foundation model too, with the V-Net's
                labels, and get no pseudo-label.
            warm: the V-Net that re-training begins from; None: random weights.
            score: adds a row to the table, ``of_vnet`` unless told otherwise.
        """
        labels = self.project.label_set
        base = self.folder / title.replace(" ", "-")
        stage = f":{title}" if title else ""
        row = f" ({title})" if title else ""
        unlabeled = [case for case in cases if case.part == "unlabeled"]
        pseudo_labels: dict[str, Path] = {}
        left_out: set[str] = set()
        foundation: FinetuningStrategy | None = None
        if self.settings.retraining.pseudo_label_mode != "off" and unlabeled:
            strategy = build_strategy(self.settings, labels.channels, self.context)
            if warm is not None:
                # A strategy and the share in its pseudo-labels ask the same of a volume.
                strategy.guide = lru_cache(1)(partial(self._segment, warm))
            strategy.whole = self.whole
            unsure = [case for case in unlabeled if case.id not in confident]
            finetune(
                strategy,
                [*(case for case in cases if case.part == "labeled"), *confident.values()],
                unsure,
                self.settings,
                base / "finetuning",
                self.context,
                self.spacing,
                f"finetuning{stage}",
            )
            folder = base / "pseudolabels"
            asked = draw_cases(unsure, self.settings.pseudolabels.most, self.settings.seed)
            if len(asked) < len(unsure):
                self.context.events.message(
                    f"{len(asked)} of {len(unsure)} unlabeled volumes get a pseudo-label "
                    "(pseudolabels.most); the V-Net segments all of them in the end."
                )
            write_pseudo_labels(
                strategy,
                asked,
                self.settings.pseudolabels,
                labels.names,
                labels.colors,
                folder,
                self.context,
                self.spacing,
                f"pseudolabels{stage}",
                [case for case in cases if case.part == "labeled"],
            )
            pseudo_labels = {case.id: folder / f"{case.id}.npz" for case in asked}
            if self.settings.pseudolabels.leave_out_implausible:
                pseudo_labels = self._plausible(pseudo_labels, cases)
            left_out = {case.id for case in asked} - set(pseudo_labels)
            if self.settings.pseudo_label_scores:
                pseudo = partial(self._pseudo_probabilities, strategy)
                score(f"pseudo-labels{row}", pseudo, of_vnet=False)
            if self._selects and self.settings.retraining.selection.alternation == "online":
                foundation = strategy
            else:  # room for the V-Net: re-training does not need the foundation model
                strategy.to("cpu")
        trained = retrain(
            cases,
            pseudo_labels,
            labels.channels,
            self.settings,
            base / "retraining",
            self.context,
            self.spacing,
            f"retraining{stage}",
            {case.id: case.id not in confident and case.id not in left_out for case in unlabeled},
            foundation,
            labels.names,
            None if warm is None else warm.net,
        )
        score(f"re-trained{row}", partial(self._probabilities, trained))
        return trained

    def _plausible(
        self, pseudo_labels: Mapping[str, Path], cases: Sequence[PreparedCase]
    ) -> dict[str, Path]:
        """Those that may be right; the rest is told."""
        labels = self.project.label_set
        known = [
            label_sizes(np.array(case.labels), labels.channels)
            for case in cases
            if case.part == "labeled"
        ]
        faults = {}
        for id, path in pseudo_labels.items():
            sizes = label_sizes(MappedPseudoLabel(path).hard, labels.channels)
            if reason := fault(sizes, known, labels.names):
                faults[id] = reason
        if faults:
            first, reason = next(iter(faults.items()))
            self.context.events.warning(
                f"{len(faults)} of {len(pseudo_labels)} pseudo-labels cannot be right and take no "
                f"part in re-training ({first}: {reason}). The foundation model may need more time "
                "(finetuning.budget)."
            )
        return {id: path for id, path in pseudo_labels.items() if id not in faults}

    def _settle_cleaning(self, cases: list[PreparedCase]) -> None:
        """Put the names of the labels that are in one piece in place of ``auto``."""
        labels = self.project.label_set
        labeled = (np.array(c.labels) for c in cases if c.part == "labeled")
        self.whole = whole_channels(labeled, labels.channels)
        self.settings = self.settings.model_copy(deep=True)
        for part in (self.settings.pseudolabels, self.settings.retraining):
            if part.largest_component == "auto":
                part.largest_component = [labels.names[channel - 1] for channel in self.whole]

    @property
    def _selects(self) -> bool:
        return self.settings.retraining.pseudo_label_mode == "selected"

    def _by_labels(
        self,
        method: str,
        cases: list[PreparedCase],
        budget: Budget,
        name: str,
        norm: Norm | None = None,
        donors: Sequence[PreparedCase] = (),
    ) -> RetrainedNet:
        """The V-Net by the labels that were drawn, without pseudo-labels, in the folder and stage
        ``name``; of ``donors`` it sees the style. Unlabeled cases are for methods that use them."""
        settings = copy.deepcopy(self.settings)
        settings.retraining.method = method
        settings.retraining.options = {}
        settings.retraining.pseudo_label_mode = "off"
        settings.retraining.budget = budget
        if norm is not None:
            settings.retraining.net.norm = norm
        parts = ("labeled", "unlabeled") if METHODS[method].uses_unlabeled else ("labeled",)
        return retrain(
            [case for case in cases if case.part in parts],
            {},
            self.project.label_set.channels,
            settings,
            self.folder / name,
            self.context,
            self.spacing,
            name,
            donors=donors,
        )

    def _probabilities(self, trained: RetrainedNet, case: PreparedCase) -> np.ndarray[Any, Any]:
        return self._segment(trained, torch.from_numpy(np.array(case.image))).numpy()

    def _segment(self, trained: RetrainedNet, image: torch.Tensor) -> torch.Tensor:
        return predict_probabilities(
            trained.net.to(self.context.device),
            image,
            trained.patch,
            self.settings.retraining.overlap,
            self.context.device,
            self.context.autocast_dtype,
            scales=self.settings.retraining.scales,
        )

    def _pseudo_probabilities(
        self,
        strategy: FinetuningStrategy,
        case: PreparedCase,
    ) -> np.ndarray[Any, Any]:
        names = self.project.label_set.names
        settings = self.settings.pseudolabels
        pseudo = predict_pseudo_label(strategy, case, settings, names, self.context)
        return pseudo.probabilities
