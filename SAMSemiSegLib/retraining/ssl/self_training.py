"""Self-training: label the unlabeled volumes with the network so far, and train on all.

Source: Bai et al., Semi-supervised learning for network-based cardiac MR image segmentation, MICCAI
2017. Round 0 is supervised. At the start of each later round the labeler becomes a copy of the
student, and L = L_sup + w·½(CE + Dice)(student(U), argmax labeler(U)).

The rounds share one run. The labels of a round come from one frozen network, but are made for the
crop in hand (evaluation mode), so that nothing has to be stored between the rounds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from SAMSemiSegLib.retraining.batch_norm import evaluating_by_batch
from SAMSemiSegLib.retraining.ramp import supervised_step
from SAMSemiSegLib.retraining.ssl.method import (
    METHODS,
    LabeledBatch,
    SSLMethod,
    StepResult,
    UnlabeledBatch,
)
from SAMSemiSegLib.run.settings import NotNegative
from SAMSemiSegLib.training.losses import segmentation_loss
from SAMSemiSegLib.training.progress import Progress
from SAMSemiSegLib.training.randomness import draw_seed


@METHODS.register("self_training")
class SelfTraining(SSLMethod):
    """½(CE + Dice) to the answers of an earlier self."""

    class Options(SSLMethod.Options):
        """Settings of the method's own."""

        consistency_weight: NotNegative = 1.0
        """w, weight of the unlabeled crops."""
        rounds: Annotated[int, Field(ge=2)] = 3
        """Number of rounds, the supervised one included; all of the same length."""
        reset: bool = False
        """Begin each round with new weights, as in the original; the run should then be long. The
        optimizer's moments stay."""

    title = "Self-training"
    source = "Bai et al., MICCAI 2017"

    options: Options

    def __init__(self, build_net: Callable[[], nn.Module], channels: int, options: Options) -> None:
        super().__init__(build_net, channels, options)
        self.student = build_net()
        self.labeler = copy.deepcopy(self.student).requires_grad_(False)
        self._build_net = build_net
        self._seed = draw_seed()

    def step(
        self, labeled: LabeledBatch, unlabeled: UnlabeledBatch | None, progress: Progress
    ) -> StepResult:
        weight = self.options.consistency_weight
        if unlabeled is None or weight == 0 or self._round(progress.step, progress.total) == 0:
            return supervised_step(self.student, labeled)
        with torch.no_grad(), evaluating_by_batch(self.labeler):
            labels = self.labeler(unlabeled.image).argmax(1)
        known, logits = self.student(labeled.image), self.student(unlabeled.image)
        losses = {
            "supervised": segmentation_loss(known, labeled.labels),
            "consistency": weight * segmentation_loss(logits, labels, unlabeled.valid),
        }
        return StepResult(losses, logits)

    def after_step(self, progress: Progress) -> None:
        step, total = progress.step, progress.total
        if self._round(step + 1, total) == self._round(step, total):
            return
        self.labeler.load_state_dict(self.student.state_dict())
        if self.options.reset and step + 1 < total:
            # Within a step each of several processes draws other numbers; their networks must not
            # differ.
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(self._seed + self._round(step + 1, total))
                self.student.load_state_dict(self._build_net().state_dict())

    def _round(self, step: int, total: int) -> int:
        return step * self.options.rounds // total

    def final_net(self) -> nn.Module:
        return self.student
