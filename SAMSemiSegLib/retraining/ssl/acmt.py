"""ACMT: the student follows the teacher only where the student is in doubt.

Source: Xu et al., Ambiguity-selective consistency regularization, Medical Image Analysis 88:102880,
2023. L_c is the mean of (s - t)² over ambiguous voxels of unlabeled crops. The opposite of UA-MT:
what is certain already needs no consistency. Ambiguity is told by one of four indicators:

- entropy (the paper's best): H(s)/ln 2 >= threshold, 0.75 rising to 0.95 over the run as
  exp(-5(1-t)²), as in the released script; the paper has two classes, and with more of them a
  voxel between two is ambiguous all the same, though H/ln K says less the more there are;
- uncertainty: entropy of the mean of T = 8 student passes with dropout, threshold 0.75 to 0.9;
- prototype: the class of the nearest prototype (mean teacher feature of a class) is not the
  student's class;
- label_error: confident learning calls the student's label wrong by the teacher's probabilities.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from SAMSemiSegLib.retraining.batch_norm import frozen_statistics
from SAMSemiSegLib.retraining.consistency import entropy, mean_square_where, mean_where
from SAMSemiSegLib.retraining.ssl.method import METHODS, LabeledBatch, Needs, UnlabeledBatch
from SAMSemiSegLib.retraining.teacher import NoisyTeacherMethod, NoisyTeacherOptions
from SAMSemiSegLib.retraining.vnet import VNet
from SAMSemiSegLib.run.settings import Fraction, Positive
from SAMSemiSegLib.training.progress import Progress, sigmoid_ramp


@METHODS.register("acmt")
class AmbiguityConsensusMeanTeacher(NoisyTeacherMethod):
    """Mean squared difference on the ambiguous voxels of unlabeled crops."""

    class Options(NoisyTeacherOptions):
        """Settings of the method's own."""

        indicator: Literal["entropy", "uncertainty", "prototype", "label_error"] = "entropy"
        threshold: Fraction = 0.75
        """Of the entropy of two classes that are equally probable, at the beginning of the run."""
        final_threshold: Fraction | None = None
        """At its end; by default 0.95 for entropy and 0.9 for uncertainty."""
        passes: Positive = 8
        """Student passes of the indicator ``uncertainty``."""

    title = "ACMT"
    source = "Xu et al., Medical Image Analysis 88:102880, 2023"
    options: Options
    student: VNet
    teacher: VNet

    @classmethod
    def needs_of(cls, options: AmbiguityConsensusMeanTeacher.Options) -> Needs:  # type: ignore[override]
        return replace(cls.needs, dropout=options.indicator == "uncertainty")

    def consistency(
        self,
        labeled: LabeledBatch,
        unlabeled: UnlabeledBatch,
        logits: tuple[Tensor, Tensor],
        progress: Progress,
    ) -> tuple[Tensor, dict[str, float]]:
        image, valid = unlabeled.image, unlabeled.valid
        student = logits[1].float().softmax(1)
        with torch.no_grad():
            heads = self.teacher.forward_heads(self.disturbed(image))
            teacher = heads.logits.float().softmax(1)
            ambiguous = self._ambiguous(
                unlabeled, student.detach(), teacher, heads.embedding.float(), progress
            )
        loss = mean_square_where(student, teacher, ambiguous & valid)
        return loss, {"ambiguous_share": float(mean_where(ambiguous, valid))}

    def _ambiguous(
        self,
        unlabeled: UnlabeledBatch,
        student: Tensor,
        teacher: Tensor,
        embedding: Tensor,
        progress: Progress,
    ) -> Tensor:
        options = self.options
        if options.indicator == "prototype":
            nearest = nearest_prototype(embedding, teacher, unlabeled.valid)
            return nearest != student.argmax(1)
        if options.indicator == "label_error":
            return label_errors(teacher, student.argmax(1), unlabeled.valid)
        doubt = entropy(student)
        if options.indicator == "uncertainty":
            mean = torch.zeros_like(student)
            with frozen_statistics(self.student):
                for _ in range(options.passes):
                    probabilities = self.student(self.disturbed(unlabeled.image)).float().softmax(1)
                    mean += probabilities / options.passes
            doubt = entropy(mean)
        end = options.final_threshold
        if end is None:
            end = 0.95 if options.indicator == "entropy" else 0.9
        threshold = ambiguity_threshold(options.threshold, end, progress.fraction)
        return doubt / math.log(2) >= threshold


def ambiguity_threshold(start: float, end: float, fraction: float) -> float:
    """Share of ln 2 from which on a voxel's entropy is ambiguous."""
    return start + (end - start) * sigmoid_ramp(fraction, 1.0)


def nearest_prototype(embedding: Tensor, probabilities: Tensor, valid: Tensor) -> Tensor:
    """Class of the prototype with the largest cosine to each voxel's feature: (B, ...).

    A prototype is the mean feature of the valid voxels of a class, weighted by their probability;
    classes that nobody predicts have none.

    Args:
        embedding: (B, E, ...) features.
        probabilities: (B, K, ...).
        valid: (B, ...) bool.
    """
    features = embedding.flatten(2)
    weights = probabilities.flatten(2)
    hard = F.one_hot(weights.argmax(1), weights.shape[1]).transpose(1, 2)
    hard = hard * valid.flatten(1).unsqueeze(1)
    weights = weights * hard
    # The sum over a crop's voxels is more than half precision can hold.
    with torch.autocast(embedding.device.type, enabled=False):
        prototypes = torch.einsum("bkn,ben->ke", weights, features)  # cosines mind no scale
        cosines = torch.einsum(
            "ke,ben->bkn", F.normalize(prototypes, dim=1), F.normalize(features, dim=1)
        )
    absent = hard.sum((0, 2)) == 0
    cosines[:, absent] = -2
    return cosines.argmax(1).view(probabilities.shape[0], *probabilities.shape[2:])


def label_errors(probabilities: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """Voxels whose label confident learning calls wrong: (B, ...) bool.

    Source: Northcutt et al., Confident learning, JAIR 70, 2021. t_c is the mean probability of c
    over the valid voxels labeled c; a voxel surely belongs to the most probable class c with
    p_c >= t_c, and its label is wrong if that is another one.

    Args:
        probabilities: (B, K, ...).
        labels: (B, ...) channel indices.
        valid: (B, ...) bool.
    """
    one_hot = F.one_hot(labels, probabilities.shape[1]).movedim(-1, 1) * valid.unsqueeze(1)
    axes = (0, *range(2, probabilities.dim()))
    counts = one_hot.sum(axes)
    thresholds = (probabilities * one_hot).sum(axes) / counts.clamp_min(1)
    thresholds = torch.where(counts > 0, thresholds, torch.full_like(thresholds, 2.0))
    shape = (1, -1, *(1 for _ in axes[1:]))
    confident = probabilities >= thresholds.view(shape)
    best = torch.where(confident, probabilities, torch.full_like(probabilities, -1.0)).argmax(1)
    return confident.any(1) & (best != labels)
