"""FixMatch: what is sure in a weakly augmented view is the label of a strongly augmented one.

Source: Sohn et al., FixMatch, NeurIPS 2020, for dense labels as in UniMatch (Yang et al., CVPR
2023): L_u = mean(1[max p >= 0.95]·CE(student(strong(x)), argmax p)) with p the student's own answer
in evaluation mode to the crop as it comes, λ = 1 once the warm start is over. The mean is over all
voxels of the volume, so that the term grows with confidence. Strong means gray values only
(contrast, brightness, gamma, noise, blur) and boxes cut out: geometry is already in the crop.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from SAMSemiSegLib.retraining.batch_norm import evaluating_by_batch
from SAMSemiSegLib.retraining.consistency import mean_where
from SAMSemiSegLib.retraining.ramp import supervised_step
from SAMSemiSegLib.retraining.ssl.method import (
    METHODS,
    LabeledBatch,
    StepResult,
    UnlabeledBatch,
)
from SAMSemiSegLib.retraining.teacher import TeacherMethod, TeacherOptions
from SAMSemiSegLib.run.settings import Fraction, NotNegative
from SAMSemiSegLib.training.devices import forget_frozen_casts
from SAMSemiSegLib.training.progress import Progress


@METHODS.register("fixmatch")
class FixMatch(TeacherMethod):
    """Weak-to-strong consistency; the moving average is kept, but teaches nobody."""

    class Options(TeacherOptions):
        """Settings of the method's own."""

        consistency_weight: NotNegative = 1.0
        ramp: Fraction = 0.0
        threshold: Fraction = 0.95
        """Probability from which on a voxel has a label."""
        boxes: Annotated[int, Field(ge=0)] = 2
        """Boxes of a quarter of the crop's sides that are cut out."""

    title = "FixMatch"
    source = "Sohn et al., NeurIPS 2020; Yang et al., CVPR 2023"

    options: Options

    def step(
        self, labeled: LabeledBatch, unlabeled: UnlabeledBatch | None, progress: Progress
    ) -> StepResult:
        weight = self.weight(progress)
        if unlabeled is None or weight == 0:
            return supervised_step(self.student, labeled)
        with torch.no_grad(), evaluating_by_batch(self.student):  # no dropout in the label
            weak = self.student(unlabeled.image).float().softmax(1)
        forget_frozen_casts()
        strong = strongly_augmented(unlabeled.image, self.options.boxes)
        losses = supervised_step(self.student, labeled).losses
        loss, share = confident_cross_entropy(
            self.student(strong), weak, self.options.threshold, unlabeled.valid
        )
        losses["consistency"] = weight * loss
        return StepResult(
            losses, None, {"consistency_weight": weight, "confident_share": float(share)}
        )


def confident_cross_entropy(
    logits: Tensor, weak: Tensor, threshold: float, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy where the weak view is sure, as a mean over all valid voxels; and the sure
    share of these.

    Args:
        logits: (B, K, ...) of the strong view.
        weak: (B, K, ...) probabilities of the weak one.
        threshold: from which on a voxel is sure.
        valid: (B, ...) bool.
    """
    confidence, labels = weak.max(1)
    sure = (confidence >= threshold).float()
    per_voxel = F.cross_entropy(logits.float(), labels, reduction="none")
    return mean_where(per_voxel * sure, valid), mean_where(sure, valid)


def strongly_augmented(image: Tensor, boxes: int) -> Tensor:
    """Other gray values and missing boxes, for each crop on its own: (B, 1, X, Y, Z)."""
    return torch.stack([_strong(crop, boxes) for crop in image])


def _strong(crop: Tensor, boxes: int) -> Tensor:
    draw = torch.rand(6).tolist()
    low, high = crop.amin(), crop.amax()
    span = (high - low).clamp_min(1e-6)
    x = ((crop - low) / span) ** (0.5 + 1.5 * draw[0])  # gamma
    x = x * span + low
    x = x * (0.6 + 0.8 * draw[1]) + (draw[2] - 0.5)  # contrast, brightness
    if draw[3] < 0.5:
        x = F.avg_pool3d(x.unsqueeze(0), 3, stride=1, padding=1, count_include_pad=False)[0]
    if draw[4] < 0.5:
        x = x + 0.3 * draw[5] * torch.randn_like(x)
    for _ in range(boxes):
        box = [slice(None)]
        for side in crop.shape[1:]:
            length = max(1, side // 4)
            start = int(torch.randint(side - length + 1, (1,)))
            box.append(slice(start, start + length))
        x[tuple(box)] = x.mean()
    return x
