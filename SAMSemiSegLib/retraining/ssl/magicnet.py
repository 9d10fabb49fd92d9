"""MagicNet: crops as magic cubes, taken apart and put together across and within images.

Source: Chen et al., MagicNet, CVPR 2023. Each crop is cut into cubes of 32.

- Across images: at each location the cubes of all crops, labeled and unlabeled, are shuffled; the
  decoder's features of the mixed crops are put back and classified again. Dice on the labeled.
- Within an image: each cube goes through the network alone; the bottleneck tells its location
  (weight 0.1), the features are put together. Dice on the labeled.
- Blending: the unlabeled target is argmax((1-Ω)·teacher logits + Ω·cube logits), where Ω of a voxel
  is the frequency of the teacher's class there, divided by the largest class's. Dice between the
  put-back unlabeled crops and it, λ = 0.1·ramp.

L_sup = mean(CE, Dice, put-back Dice, within-image Dice).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from SAMSemiSegLib.retraining.cubes import assemble, cut, draw_exchange, exchange, exchange_back
from SAMSemiSegLib.retraining.ramp import supervised_step
from SAMSemiSegLib.retraining.ssl.method import (
    METHODS,
    LabeledBatch,
    Needs,
    StepResult,
    UnlabeledBatch,
)
from SAMSemiSegLib.retraining.teacher import NoisyTeacherOptions, TeacherMethod, noisy
from SAMSemiSegLib.retraining.vnet import VNet
from SAMSemiSegLib.run.settings import Fraction, NotNegative, Size3
from SAMSemiSegLib.training.losses import cross_entropy, dice_loss
from SAMSemiSegLib.training.progress import Progress


@METHODS.register("magicnet")
class MagicNet(TeacherMethod):
    """Partition and recovery of cubes, for several organs at once."""

    class Options(NoisyTeacherOptions):
        """Settings of the method's own."""

        warm_start: Fraction = 0.0
        cube: Annotated[int, Field(gt=0, multiple_of=16)] = 32
        """Voxels of a cube's side; each side of the patch is a multiple of it."""
        location_weight: NotNegative = 0.1
        memory: Fraction = 0.95
        """Of the class frequencies, from step to step."""
        blending_start: Fraction = 0.02
        """Share of the run after which the cubes take part in the unlabeled target."""

    title = "MagicNet"
    source = "Chen et al., CVPR 2023"
    # Batch norm would normalize lone cubes and whole crops by one set of statistics.
    needs = Needs(
        split_encoder=True,
        labeled_batch=1,
        divisor=32,
        norms=frozenset({"instance", "group"}),
    )

    options: Options
    student: VNet
    teacher: VNet
    frequencies: Tensor

    def __init__(self, build_net: Callable[[], nn.Module], channels: int, options: Options) -> None:
        super().__init__(build_net, channels, options)
        for module in self.modules():
            if isinstance(module, nn.Dropout3d):
                module.p = 0.0  # the paper's network has none
        self.register_buffer("frequencies", torch.zeros(channels))

    @classmethod
    def needs_of(cls, options: MagicNet.Options) -> Needs:  # type: ignore[override]
        # Cubes of 16 have one voxel at the bottleneck, which instance norm cannot normalize.
        norms = frozenset({"group"}) if options.cube == 16 else cls.needs.norms
        return replace(cls.needs, divisor=options.cube, norms=norms)

    def prepare(self, patch: Size3) -> None:
        cube = self.options.cube
        features = 16 * self.student.settings.width * (cube // 16) ** 3
        self.locate = nn.Sequential(
            nn.Linear(features, 2 * features),
            nn.BatchNorm1d(2 * features),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(2 * features, math.prod(side // cube for side in patch)),
        )

    def step(
        self, labeled: LabeledBatch, unlabeled: UnlabeledBatch | None, progress: Progress
    ) -> StepResult:
        weight = self.weight(progress)
        if unlabeled is None or weight == 0:
            return supervised_step(self.student, labeled)
        n, labels = len(labeled.image), labeled.labels
        images = torch.cat([labeled.image, unlabeled.image])
        whole = self.student(images)
        across = self._across(images)
        within, location = self._within(images)
        supervised = torch.stack(
            [
                cross_entropy(whole[:n], labels),
                dice_loss(whole[:n], labels),
                dice_loss(across[:n], labels),
                dice_loss(within[:n], labels),
            ]
        ).mean()
        blend = progress.fraction >= self.options.blending_start
        target = self._target(unlabeled, within[n:].detach(), blend)
        losses = {
            "supervised": supervised,
            "location": self.options.location_weight * location,
            "consistency": weight * dice_loss(across[n:], target, unlabeled.valid),
        }
        return StepResult(losses, whole[n:], {"consistency_weight": weight})

    def _across(self, images: Tensor) -> Tensor:
        """Logits after mixing the cubes of all crops and putting their features back."""
        cubes, count = cut(images, self.options.cube)
        order = draw_exchange(len(cubes), cubes.shape[1], images.device)
        mixed = assemble(exchange(cubes, order), count)
        features, _ = cut(self.student.forward_heads(mixed).embedding, self.options.cube)
        return cast(Tensor, self.student.head(assemble(exchange_back(features, order), count)))

    def _within(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits from cubes that were seen alone, and the loss of guessing where they lie."""
        cubes, count = cut(images, self.options.cube)
        b, n = cubes.shape[:2]
        features = self.student.encode(cubes.flatten(0, 1))
        guesses = self.locate(features[-1].flatten(1))
        location = F.cross_entropy(guesses.float(), torch.arange(n, device=images.device).repeat(b))
        embedding = self.student.decode(features).embedding.unflatten(0, (b, n))
        return self.student.head(assemble(embedding, count)), location

    @torch.no_grad()
    def _target(self, unlabeled: UnlabeledBatch, cube_logits: Tensor, blend: bool) -> Tensor:
        """(B, X, Y, Z) labels of the unlabeled crops; also counts their classes."""
        seen = noisy(unlabeled.image, self.options.noise, self.options.noise_limit)
        logits = self.teacher(seen).float()
        counted = bool(self.frequencies.any())
        if blend and counted:
            logits = blended(logits, cube_logits.float(), self.frequencies)
        labels: Tensor = logits.argmax(1)
        counts = torch.bincount(labels[unlabeled.valid], minlength=self.channels).float()
        share = counts / counts.sum().clamp_min(1)
        self.frequencies.lerp_(share, 1 - self.options.memory if counted else 1.0)
        return labels


def blended(teacher: Tensor, cubes: Tensor, frequencies: Tensor) -> Tensor:
    """(1-Ω)·teacher + Ω·cubes with Ω = frequency of the teacher's class / the largest frequency.

    Args:
        teacher: (B, K, ...) logits.
        cubes: (B, K, ...) logits from cubes seen alone.
        frequencies: (K,) of the classes.
    """
    omega = (frequencies / frequencies.max())[teacher.argmax(1)].unsqueeze(1)
    return (1 - omega) * teacher + omega * cubes
