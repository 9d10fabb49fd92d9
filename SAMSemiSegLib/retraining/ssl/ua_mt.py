"""UA-MT: the student follows the teacher only where the teacher is sure.

Source: Yu et al., Uncertainty-aware self-ensembling model, MICCAI 2019. With p̄ the mean of T = 8
noisy teacher passes, u = -Σ p̄ ln p̄ and the mask u < H: L_c = Σ mask·(s - t)² / (K·Σ mask), on
unlabeled crops. H = (0.75 + 0.25·exp(-5(1-t)²))·ln 2: the paper has two classes, and with more of
them a voxel between two is uncertain all the same, which ln K in place of ln 2 would never find.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from SAMSemiSegLib.retraining.consistency import entropy, mean_square_where, mean_where
from SAMSemiSegLib.retraining.ssl.method import METHODS, LabeledBatch, Needs, UnlabeledBatch
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
        """Of the entropy of two classes that are equally probable; rises to 1 over the run."""

    title = "UA-MT"
    source = "Yu et al., MICCAI 2019"
    needs = Needs(dropout=True)

    options: Options

    def consistency(
        self,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch,
        logits: tuple[Tensor, Tensor],
        progress: Progress,
    ) -> tuple[Tensor, dict[str, float]]:
        image, valid = unlabeled.image, unlabeled.valid
        teacher = self.ask_teacher(image)
        mean = torch.zeros_like(teacher)
        for _ in range(self.options.passes):
            mean += self.ask_teacher(image) / self.options.passes
        certain = entropy(mean) < certainty_threshold(self.options.threshold, progress.fraction)
        loss = mean_square_where(logits[1].float().softmax(1), teacher, certain & valid)
        return loss, {"certain_share": float(mean_where(certain, valid))}


def certainty_threshold(start: float, fraction: float) -> float:
    """H: from ``start`` (a little above, as the ramp begins at exp(-5)) to 1 times ln 2."""
    return (start + (1 - start) * sigmoid_ramp(fraction, 1.0)) * math.log(2)
