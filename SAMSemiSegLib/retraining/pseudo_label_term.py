"""The pseudo-label term, added to any semi-supervised method.

Source: SFR, IEEE TMI 44(10):3909-3923, 2025, eq. (6)-(8): total = the method's losses +
μ(t)·½(CE + Dice)(student(unlabeled), pseudo-label). With μ = 0 it is the plain method, on
everywhere SFR, on only where the student is unsure of the whole volume SFR+. The released code has
μ = 1; the paper's formula would put the term under the method's own ramp, hence the schedules.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from SAMSemiSegLib.retraining.ssl.method import (
    LabeledBatch,
    SSLMethod,
    StepResult,
    UnlabeledBatch,
)
from SAMSemiSegLib.run.settings import RetrainingSettings
from SAMSemiSegLib.training.losses import IGNORE, segmentation_loss
from SAMSemiSegLib.training.progress import Progress, sigmoid_ramp


def pseudo_label_weight(settings: RetrainingSettings, fraction: float) -> float:
    """μ at this share of the run, by the settings' schedule."""
    if settings.pseudo_label_mode == "off":
        return 0.0
    factor = 1.0
    if settings.pseudo_label_schedule == "ramp_up":
        factor = sigmoid_ramp(fraction, settings.pseudo_label_ramp)
    elif settings.pseudo_label_schedule == "ramp_down":
        factor = 1.0 - fraction
    return settings.pseudo_label_weight * factor


class PseudoLabelTerm(nn.Module):
    """A method with the pseudo-label term added to its losses.

    Args:
        method: any semi-supervised method.
        settings: mode, weight, schedule, target and confidence weights of the term.
    """

    def __init__(self, method: SSLMethod, settings: RetrainingSettings) -> None:
        super().__init__()
        self.method = method
        self.settings = settings

    def step(
        self, labeled: LabeledBatch, unlabeled: UnlabeledBatch | None, progress: Progress
    ) -> StepResult:
        """Loss terms of one training step."""
        result = self.method.step(labeled, unlabeled, progress)
        mu = pseudo_label_weight(self.settings, progress.fraction)
        if unlabeled is None or mu == 0:
            return result
        target = self._target(unlabeled)
        if target is None:
            return result
        logits = result.unlabeled_logits
        if logits is None:
            logits = self.method.final_net()(unlabeled.image)
        weight = self._voxel_weight(unlabeled)
        result.losses["pseudo_label"] = mu * segmentation_loss(logits, target, weight)
        result.values["pseudo_label_weight"] = mu
        result.values["pseudo_label_share"] = float((weight > 0).float().mean())
        return result

    def _target(self, unlabeled: UnlabeledBatch) -> Tensor | None:
        if self.settings.pseudo_label_target == "soft" and unlabeled.pseudo_soft is not None:
            return unlabeled.pseudo_soft
        return unlabeled.pseudo_hard

    def _voxel_weight(self, unlabeled: UnlabeledBatch) -> Tensor:
        """(B, X, Y, Z): confidence where there is a pseudo-label and the volume takes part."""
        weight = torch.ones_like(unlabeled.image[:, 0], dtype=torch.float32)
        if unlabeled.pseudo_hard is not None:
            weight = weight * (unlabeled.pseudo_hard != IGNORE)
        if self.settings.confidence_weights and unlabeled.confidence is not None:
            weight = weight * unlabeled.confidence
        if self.settings.pseudo_label_mode == "selected" and unlabeled.selected is not None:
            weight = weight * unlabeled.selected.view(-1, 1, 1, 1)
        return weight

    def after_step(self, progress: Progress) -> None:
        """To be called after the optimizer's step."""
        self.method.after_step(progress)

    def final_net(self) -> nn.Module:
        """The trained student."""
        return self.method.final_net()

    def ema_net(self) -> nn.Module | None:
        """The moving average of the student, where the method keeps one."""
        return self.method.ema_net()
