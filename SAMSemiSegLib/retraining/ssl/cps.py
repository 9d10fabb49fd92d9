"""CPS: two networks teach each other by their hard labels.

Source: Chen et al., Cross pseudo supervision, CVPR 2021; in 3D as in SSL4MIS. Both networks learn
from the labeled crops; on unlabeled ones L = CE(f1, argmax f2) + CE(f2, argmax f1), λ = 0.1·ramp.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from SAMSemiSegLib.retraining.consistency import mean_where
from SAMSemiSegLib.retraining.ramp import RampOptions, ramped_weight
from SAMSemiSegLib.retraining.ssl.method import (
    METHODS,
    LabeledBatch,
    Needs,
    SSLMethod,
    StepResult,
    UnlabeledBatch,
)
from SAMSemiSegLib.training.losses import cross_entropy, segmentation_loss
from SAMSemiSegLib.training.progress import Progress


@METHODS.register("cps")
class CrossPseudoSupervision(SSLMethod):
    """Cross-entropy to the other network's class; the first network is the result."""

    class Options(RampOptions):
        """Settings of the method's own."""

    title = "CPS"
    source = "Chen et al., CVPR 2021"
    needs = Needs(networks=2)

    options: Options

    def __init__(self, build_net: Callable[[], nn.Module], channels: int, options: Options) -> None:
        super().__init__(build_net, channels, options)
        self.student = build_net()
        self.peer = build_net()  # its own random start

    def step(
        self, labeled: LabeledBatch, unlabeled: UnlabeledBatch | None, progress: Progress
    ) -> StepResult:
        weight = ramped_weight(self.options, progress.fraction)
        losses = {
            "supervised": segmentation_loss(self.student(labeled.image), labeled.labels),
            "supervised_peer": segmentation_loss(self.peer(labeled.image), labeled.labels),
        }
        if unlabeled is None or weight == 0:
            return StepResult(losses)
        first, second = self.student(unlabeled.image), self.peer(unlabeled.image)
        valid = unlabeled.valid
        losses["consistency"] = weight * cross_pseudo_loss(first, second, valid)
        agree = mean_where(first.argmax(1) == second.argmax(1), valid)
        values = {"consistency_weight": weight, "agreement": float(agree)}
        return StepResult(losses, first, values)

    def final_net(self) -> nn.Module:
        return self.student


def cross_pseudo_loss(first: Tensor, second: Tensor, valid: Tensor) -> Tensor:
    """CE(first, argmax second) + CE(second, argmax first); logits (B, K, ...), ``valid`` (B, ...)
    bool."""
    to_second = cross_entropy(first, second.detach().argmax(1), valid)
    return to_second + cross_entropy(second, first.detach().argmax(1), valid)
