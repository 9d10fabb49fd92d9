"""Training on the labeled volumes alone: the lower bound every other method is compared with."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from SAMSemiSegLib.retraining.ramp import supervised_step
from SAMSemiSegLib.retraining.ssl.method import (
    METHODS,
    LabeledBatch,
    SSLMethod,
    StepResult,
    UnlabeledBatch,
)
from SAMSemiSegLib.training.progress import Progress


@METHODS.register("supervised")
class Supervised(SSLMethod):
    """½(CE + Dice) on labeled crops. With pseudo-labels switched on, this is plain training on
    the foundation model's answers."""

    title = "Supervised only"
    source = "Milletari et al., V-Net, 3DV 2016"
    uses_unlabeled = False

    def __init__(
        self, build_net: Callable[[], nn.Module], channels: int, options: SSLMethod.Options
    ) -> None:
        super().__init__(build_net, channels, options)
        self.student = build_net()

    def step(
        self, labeled: LabeledBatch, unlabeled: UnlabeledBatch | None, progress: Progress
    ) -> StepResult:
        return supervised_step(self.student, labeled)

    def final_net(self) -> nn.Module:
        return self.student
