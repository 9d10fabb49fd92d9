"""URPC: the decoder's stages agree with their mean, less so where they differ much.

Source: Luo et al., Efficient semi-supervised gross target volume segmentation via uncertainty
rectified pyramid consistency, MICCAI 2021. With p_i the probabilities of the four stages, enlarged,
p̄ their mean and v_i = KL(p_i || p̄) for each voxel:
L_u = mean_i [ mean((p_i - p̄)²·e^{-v_i}) / mean(e^{-v_i}) + mean(v_i) ] on unlabeled crops;
L_sup is the mean over the four stages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from SAMSemiSegLib.retraining.consistency import mean_where
from SAMSemiSegLib.retraining.ramp import RampOptions, ramped_weight, supervised_step
from SAMSemiSegLib.retraining.ssl.method import (
    METHODS,
    LabeledBatch,
    Needs,
    SSLMethod,
    StepResult,
    UnlabeledBatch,
)
from SAMSemiSegLib.retraining.vnet import VNet
from SAMSemiSegLib.training.losses import segmentation_loss
from SAMSemiSegLib.training.progress import Progress


@METHODS.register("urpc")
class UncertaintyRectifiedPyramidConsistency(SSLMethod):
    """Pyramid consistency with uncertainty rectification; one network, no teacher."""

    class Options(RampOptions):
        """Settings of the method's own."""

    title = "URPC"
    source = "Luo et al., MICCAI 2021"
    needs = Needs(heads=frozenset({"deep"}))

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
        output = self.student.forward_heads(unlabeled.image)
        stages = [logits.float().softmax(1) for logits in (output.logits, *output.deep)]
        terms = [segmentation_loss(x, labeled.labels) for x in (known.logits, *known.deep)]
        losses = {
            "supervised": torch.stack(terms).mean(),
            "consistency": weight * pyramid_consistency(stages, unlabeled.valid),
        }
        return StepResult(losses, output.logits, {"consistency_weight": weight})

    def final_net(self) -> nn.Module:
        return self.student


def pyramid_consistency(stages: Sequence[Tensor], valid: Tensor) -> Tensor:
    """L_u of the module's docstring for probabilities (B, K, ...) of each stage, over the voxels of
    ``valid`` (B, ...)."""
    mean = torch.stack(list(stages)).mean(0)
    terms = []
    for p in stages:
        variance = (p * (p.clamp_min(1e-8).log() - mean.clamp_min(1e-8).log())).sum(1)
        squares = (p - mean).square().mean(1)
        trust = torch.exp(-variance)
        rectified = mean_where(squares * trust, valid) / (mean_where(trust, valid) + 1e-8)
        terms.append(rectified + mean_where(variance, valid))
    return torch.stack(terms).mean()
