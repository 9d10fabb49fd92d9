"""What methods with a teacher share: the teacher is the moving average of the student.

Source: Tarvainen and Valpola, Mean teachers are better role models (NeurIPS 2017).

Labeled and unlabeled crops go through the networks one batch after the other, so that batch norm
normalizes each by itself. The published code joins them. With one labeled volume that failed
(hippocampus, 150 steps, one seed: Dice 0.16 joined, 0.58 apart, 0.58 supervised) although the
supervised loss was lower: as it seems, the network tells the ever same labeled volume by how it
differs from the rest of the batch, and fits that. With instance norm there was no such difference.

Batch norm of the teacher: in training it normalizes by the batch in hand, as in the published code.
That code leaves its running statistics to chance; here they do not move in its forward passes and
are averaged like the weights, so that the teacher can be evaluated and kept as the final model.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from SAMSemiSegLib.retraining.ramp import (
    RampOptions,
    ramped_weight,
    supervised_step,
)
from SAMSemiSegLib.retraining.ssl.method import (
    LabeledBatch,
    SSLMethod,
    StepResult,
    UnlabeledBatch,
)
from SAMSemiSegLib.run.settings import Fraction, NotNegative
from SAMSemiSegLib.training.losses import segmentation_loss
from SAMSemiSegLib.training.progress import Progress


def make_teacher(student: nn.Module) -> nn.Module:
    """A copy of the student that no gradient reaches."""
    teacher = copy.deepcopy(student).requires_grad_(False)
    for module in teacher.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 0.0  # running statistics are averaged, not tracked
    return teacher


def ema_alpha(step: int, decay: float) -> float:
    """α = min(1 - 1/(step+1), decay): a plain mean over the first steps, then exponential.

    Args:
        step: steps done since the average began; below 0 the teacher is the student.
        decay: the final α.
    """
    return 0.0 if step < 0 else min(1.0 - 1.0 / (step + 1), decay)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, alpha: float) -> None:
    """teacher = α·teacher + (1-α)·student, for weights and floating-point buffers; counters are
    copied."""
    theirs = student.state_dict()
    for name, own in teacher.state_dict().items():
        if own.is_floating_point():
            own.lerp_(theirs[name], 1.0 - alpha)
        else:
            own.copy_(theirs[name])


def noisy(image: Tensor, deviation: float, limit: float) -> Tensor:
    """The image plus clamp(N(0, deviation²), -limit, limit)."""
    return image + (torch.randn_like(image) * deviation).clamp(-limit, limit)


class TeacherOptions(RampOptions):
    """Settings of all methods with a teacher."""

    ema_decay: Fraction = 0.99
    warm_start: Fraction | None = None
    """Share of the whole run that is supervised only; the teacher is a copy of the student until
    then, and the ramp begins there. By default 0.2, and 0 where the student begins from a trained
    network."""


class TeacherMethod(SSLMethod):
    """A student and its moving average."""

    class Options(TeacherOptions):
        """Settings of the method's own."""

    options: TeacherOptions

    def __init__(
        self, build_net: Callable[[], nn.Module], channels: int, options: TeacherOptions
    ) -> None:
        super().__init__(build_net, channels, options)
        self.student = build_net()
        self.teacher = make_teacher(self.student)

    def weight(self, progress: Progress) -> float:
        """Of the unlabeled term at this step; 0 during the warm start."""
        if self.steps_since_warm_start(progress) < 0:
            return 0.0
        begin = self._warm_start()
        return ramped_weight(self.options, (progress.fraction - begin) / max(1.0 - begin, 1e-9))

    def steps_since_warm_start(self, progress: Progress) -> int:
        """Negative during the warm start."""
        return progress.step - math.ceil(self._warm_start() * progress.total)

    def _warm_start(self) -> float:
        share = self.options.warm_start
        if share is None:
            return 0.0 if self.warm else 0.2
        return share

    def after_step(self, progress: Progress) -> None:
        alpha = ema_alpha(self.steps_since_warm_start(progress), self.options.ema_decay)
        update_teacher(self.teacher, self.student, alpha)

    def final_net(self) -> nn.Module:
        return self.student

    def ema_net(self) -> nn.Module | None:
        return cast(nn.Module, self.teacher)


class NoisyTeacherOptions(TeacherOptions):
    """The teacher sees a noisy image."""

    noise: NotNegative = 0.1
    """Standard deviation of the noise on the teacher's input, in z-scored gray values."""
    noise_limit: NotNegative = 0.2


class NoisyTeacherMethod(TeacherMethod):
    """The student agrees with a teacher that sees the image with noise; subclasses say where and
    how much the two have to agree."""

    class Options(NoisyTeacherOptions):
        """Settings of the method's own."""

    options: NoisyTeacherOptions

    def step(
        self, labeled: LabeledBatch, unlabeled: UnlabeledBatch | None, progress: Progress
    ) -> StepResult:
        weight = self.weight(progress)
        if unlabeled is None or weight == 0:
            return supervised_step(self.student, labeled)
        known, logits = self.student(labeled.image), self.student(unlabeled.image)
        consistency, values = self.consistency(labeled, unlabeled, (known, logits), progress)
        return StepResult(
            {
                "supervised": segmentation_loss(known, labeled.labels),
                "consistency": weight * consistency,
            },
            logits,
            {"consistency_weight": weight, **values},
        )

    @abstractmethod
    def consistency(
        self,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch,
        logits: tuple[Tensor, Tensor],
        progress: Progress,
    ) -> tuple[Tensor, dict[str, float]]:
        """The unlabeled term, not yet weighted, and figures to log.

        Args:
            labeled: the step's labeled crops.
            unlabeled: its unlabeled crops.
            logits: (B, K, X, Y, Z) of the student on the labeled and on the unlabeled ones.
            progress: where the run stands.
        """

    def disturbed(self, images: Tensor) -> Tensor:
        """The images as the teacher sees them."""
        return noisy(images, self.options.noise, self.options.noise_limit)

    @torch.no_grad()
    def ask_teacher(self, images: Tensor) -> Tensor:
        """The teacher's probabilities (B, K, ...) for a noisy version of the images."""
        probabilities: Tensor = self.teacher(self.disturbed(images)).float().softmax(1)
        return probabilities
