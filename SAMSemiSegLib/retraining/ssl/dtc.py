"""DTC: segmentation and signed distance, two tasks of one network, agree.

Source: Luo et al., Semi-supervised medical image segmentation through dual-task consistency, AAAI
2021. L_sup = ½(CE + Dice) + 0.3·MSE(distance head, signed distance); on labeled and unlabeled crops
L_c = mean((sigmoid(-1500·distance) - p)²), λ = ramp. The paper segments one structure; here p
and the distance are taken for each foreground class.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from SAMSemiSegLib.retraining.consistency import mean_square_where
from SAMSemiSegLib.retraining.ramp import RampOptions, ramped_weight, supervised_step
from SAMSemiSegLib.retraining.signed_distance import signed_distance
from SAMSemiSegLib.retraining.ssl.method import (
    METHODS,
    LabeledBatch,
    Needs,
    SSLMethod,
    StepResult,
    UnlabeledBatch,
)
from SAMSemiSegLib.retraining.vnet import VNet
from SAMSemiSegLib.run.settings import NotNegative
from SAMSemiSegLib.training.losses import segmentation_loss
from SAMSemiSegLib.training.progress import Progress


@METHODS.register("dtc")
class DualTaskConsistency(SSLMethod):
    """Consistency between the class probabilities and the distance head."""

    class Options(RampOptions):
        """Settings of the method's own."""

        consistency_weight: NotNegative = 1.0
        """λ0, as in the paper; ten times that of the other methods."""
        distance_weight: NotNegative = 0.3
        """β, weight of the distance's regression on labeled crops."""
        steepness: NotNegative = 1500.0
        """k, of the smooth step from distance to segmentation."""

    title = "DTC"
    source = "Luo et al., AAAI 2021"
    needs = Needs(heads=frozenset({"distance"}))

    options: Options
    student: VNet

    def __init__(self, build_net: Callable[[], nn.Module], channels: int, options: Options) -> None:
        super().__init__(build_net, channels, options)
        self.student = build_net()  # type: ignore[assignment]

    def step(
        self, labeled: LabeledBatch, unlabeled: UnlabeledBatch | None, progress: Progress
    ) -> StepResult:
        weight = ramped_weight(self.options, progress.fraction)
        if unlabeled is None or weight == 0:
            return supervised_step(self.student, labeled)
        known = self.student.forward_heads(labeled.image)
        other = self.student.forward_heads(unlabeled.image)
        assert known.distance is not None and other.distance is not None
        distance = torch.cat([known.distance, other.distance]).float()
        logits = torch.cat([known.logits, other.logits])
        valid = torch.cat([labeled.valid, unlabeled.valid])
        target = signed_distance(labeled.labels, self.channels)
        regression = mean_square_where(known.distance.float(), target, labeled.valid)
        losses = {
            "supervised": segmentation_loss(known.logits, labeled.labels),
            "distance": self.options.distance_weight * regression,
            "consistency": weight * dual_task_loss(logits, distance, self.options.steepness, valid),
        }
        return StepResult(losses, other.logits, {"consistency_weight": weight})

    def final_net(self) -> nn.Module:
        return self.student


def dual_task_loss(logits: Tensor, distance: Tensor, steepness: float, valid: Tensor) -> Tensor:
    """mean((sigmoid(-k·distance) - p)²) over the foreground classes.

    Args:
        logits: (B, K, ...).
        distance: (B, K-1, ...), negative inside.
        steepness: k.
        valid: (B, ...) bool; the mean is over its voxels.
    """
    probabilities = logits.float().softmax(1)[:, 1:]
    return mean_square_where(torch.sigmoid(-steepness * distance), probabilities, valid)
