"""ICT: the answer to a mixed image is the mixed answer.

Source: Verma et al., Interpolation consistency training, IJCAI 2019; in 3D as in SSL4MIS. Two
unlabeled crops are mixed with m ~ Beta(0.2, 0.2) (of an odd number, the middle one twice); on them
L_u = mean((s(m·x0 + (1-m)·x1) - (m·t(x0) + (1-m)·t(x1)))²), λ = 0.1·ramp.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch.distributions import Beta

from SAMSemiSegLib.retraining.consistency import mean_square_where
from SAMSemiSegLib.retraining.ramp import supervised_step
from SAMSemiSegLib.retraining.ssl.method import (
    METHODS,
    LabeledBatch,
    Needs,
    StepResult,
    UnlabeledBatch,
)
from SAMSemiSegLib.retraining.teacher import TeacherMethod, TeacherOptions
from SAMSemiSegLib.training.progress import Progress


@METHODS.register("ict")
class InterpolationConsistencyTraining(TeacherMethod):
    """Mean squared difference on mixed unlabeled crops."""

    class Options(TeacherOptions):
        """Settings of the method's own."""

        alpha: Annotated[float, Field(gt=0)] = 0.2
        """Both parameters of the Beta distribution the mixing factor comes from."""

    title = "ICT"
    source = "Verma et al., IJCAI 2019"
    needs = Needs(unlabeled_batch=2)

    options: Options

    def step(
        self, labeled: LabeledBatch, unlabeled: UnlabeledBatch | None, progress: Progress
    ) -> StepResult:
        weight = self.weight(progress)
        if unlabeled is None or weight == 0:
            return supervised_step(self.student, labeled)
        half = (len(unlabeled.image) + 1) // 2
        x0, x1 = unlabeled.image[:half], unlabeled.image[-half:]
        valid = unlabeled.valid[:half] & unlabeled.valid[-half:]
        alpha = torch.full((half, 1, 1, 1, 1), self.options.alpha)
        m = Beta(alpha, alpha).sample().to(x0)
        with torch.no_grad():
            # Each by itself: batch norm must not tell one crop's answer by the other's looks.
            t0, t1 = (self.teacher(x).float().softmax(1) for x in (x0, x1))
        losses = supervised_step(self.student, labeled).losses
        answer = self.student(m * x0 + (1 - m) * x1).float().softmax(1)
        losses["consistency"] = weight * mean_square_where(answer, m * t0 + (1 - m) * t1, valid)
        return StepResult(losses, None, {"consistency_weight": weight})
