"""Mean Teacher: the student agrees with the moving average of itself under noise.

Source: Tarvainen and Valpola, NeurIPS 2017, as used for 3D segmentation by UA-MT's and SFR's
re-training: L = L_sup + λ(t)·mean((softmax f(x) - softmax f'(x + ε))²) over labeled and unlabeled
crops, ε = clamp(N(0, 0.1²), ±0.2), λ(t) = 0.1·exp(-5(1-t)²).
"""

from __future__ import annotations

import torch
from torch import Tensor

from SAMSemiSegLib.retraining.ssl.method import METHODS
from SAMSemiSegLib.retraining.teacher import NoisyTeacherMethod
from SAMSemiSegLib.training.progress import Progress


@METHODS.register("mean_teacher")
class MeanTeacher(NoisyTeacherMethod):
    """Mean squared difference of the two probabilities, on all crops."""

    title = "Mean Teacher"
    source = "Tarvainen and Valpola, NeurIPS 2017"

    def consistency(
        self, images: Tensor, logits: Tensor, labeled: int, progress: Progress
    ) -> tuple[Tensor, dict[str, float]]:
        teacher = [self.ask_teacher(part) for part in (images[:labeled], images[labeled:])]
        difference = logits.float().softmax(1) - torch.cat(teacher)
        return difference.square().mean(), {}
