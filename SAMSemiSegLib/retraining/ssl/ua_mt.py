"""UA-MT: the student follows the teacher only where the teacher is sure.

Source: Yu et al., Uncertainty-aware self-ensembling model, MICCAI 2019. With p̄ the mean of T = 8
noisy teacher passes, u = -Σ p̄ ln p̄ and the mask u < H: L_c = Σ mask·(s - t)² / (K·Σ mask), on
unlabeled crops. H = (0.75 + 0.25·exp(-5(1-t)²))·ln K; the paper has K = 2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from SAMSemiSegLib.retraining.consistency import entropy, mean_square_where
from SAMSemiSegLib.retraining.ssl.method import METHODS, Needs
from SAMSemiSegLib.retraining.teacher import NoisyTeacherMethod, NoisyTeacherOptions
from SAMSemiSegLib.run.settings import Fraction, Positive
from SAMSemiSegLib.training.progress import Progress, sigmoid_ramp


@METHODS.register("ua_mt")
class UncertaintyAwareMeanTeacher(NoisyTeacherMethod):
    """Mean squared difference on the certain voxels of unlabeled crops."""

    class Options(NoisyTeacherOptions):
        """Settings of the method's own."""

        passes: Positive = 8
        """T, teacher passes with dropout and noise that the uncertainty comes from."""
        threshold: Fraction = 0.75
        """Of the largest possible entropy; rises to 1 over the run."""

    title = "UA-MT"
    source = "Yu et al., MICCAI 2019"
    needs = Needs(dropout=True)

    options: Options

    def consistency(
        self, images: Tensor, logits: Tensor, labeled: int, progress: Progress
    ) -> tuple[Tensor, dict[str, float]]:
        unlabeled = images[labeled:]
        teacher = self.ask_teacher(unlabeled)
        mean = torch.zeros_like(teacher)
        for _ in range(self.options.passes):
            mean += self.ask_teacher(unlabeled) / self.options.passes
        certain = entropy(mean) < certainty_threshold(
            self.options.threshold, progress.fraction, self.channels
        )
        loss = mean_square_where(logits[labeled:].float().softmax(1), teacher, certain)
        return loss, {"certain_share": float(certain.float().mean())}


def certainty_threshold(start: float, fraction: float, channels: int) -> float:
    """H: from ``start`` (a little above, as the ramp begins at exp(-5)) to 1 times ln K."""
    return (start + (1 - start) * sigmoid_ramp(fraction, 1.0)) * math.log(channels)
