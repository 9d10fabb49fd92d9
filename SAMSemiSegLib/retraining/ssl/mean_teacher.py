"""Mean Teacher: the student agrees with the moving average of itself under noise.

Source: Tarvainen and Valpola, NeurIPS 2017, as used for 3D segmentation by UA-MT's and SFR's
re-training: L = L_sup + λ(t)·mean((softmax f(x) - softmax f'(x + ε))²) over labeled and unlabeled
crops, ε = clamp(N(0, 0.1²), ±0.2), λ(t) = 0.1·exp(-5(1-t)²).
"""

from __future__ import annotations

import torch
from torch import Tensor

from SAMSemiSegLib.retraining.consistency import mean_square_where
from SAMSemiSegLib.retraining.ssl.method import METHODS, LabeledBatch, UnlabeledBatch
from SAMSemiSegLib.retraining.teacher import NoisyTeacherMethod
from SAMSemiSegLib.training.progress import Progress


@METHODS.register("mean_teacher")
class MeanTeacher(NoisyTeacherMethod):
    """Mean squared difference of the two probabilities, on all crops."""

    title = "Mean Teacher"
    source = "Tarvainen and Valpola, NeurIPS 2017"

    def consistency(
        self,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch,
        logits: tuple[Tensor, Tensor],
        progress: Progress,
    ) -> tuple[Tensor, dict[str, float]]:
        teacher = torch.cat([self.ask_teacher(batch.image) for batch in (labeled, unlabeled)])
        student = torch.cat(logits).float().softmax(1)
        valid = torch.cat([labeled.valid, unlabeled.valid])
        return mean_square_where(student, teacher, valid), {}
