"""BCP: labeled and unlabeled crops are pasted into each other, both ways.

Source: Bai et al., Bidirectional copy-paste, CVPR 2023. A box M of 2/3 of the crop's sides at a
random place (M = 0 in the box): x_in = La·M + Ub·(1-M) puts unlabeled tissue into labeled, x_out =
Ua·M + Lb·(1-M) the other way. Labels are mixed the same; those of U are the teacher's, each class's
largest component. On either mix L = L(labeled region) + α·L(unlabeled region), α = 0.5, with
½(CE + Dice). Before that the network is trained on labeled crops pasted into each other, for 2,000
of 17,000 steps; the teacher begins as a copy of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from SAMSemiSegLib.retraining.ramp import supervised_step
from SAMSemiSegLib.retraining.ssl.method import (
    METHODS,
    LabeledBatch,
    Needs,
    StepResult,
    UnlabeledBatch,
)
from SAMSemiSegLib.retraining.teacher import TeacherMethod, TeacherOptions
from SAMSemiSegLib.run.settings import Fraction, NotNegative
from SAMSemiSegLib.training.losses import IGNORE, segmentation_loss
from SAMSemiSegLib.training.progress import Progress
from SAMSemiSegLib.volumes.components import keep_largest


@METHODS.register("bcp")
class BidirectionalCopyPaste(TeacherMethod):
    """½(CE + Dice) on crops that are partly labeled, partly pseudo-labeled by the teacher."""

    class Options(TeacherOptions):
        """Settings of the method's own."""

        consistency_weight: NotNegative = 0.5
        """α, weight of the unlabeled regions; 0 leaves supervised training, without pasting."""
        ramp: Fraction = 0.0
        warm_start: Fraction = 2 / 17
        """Share of the run that pastes labeled crops into each other only."""
        box: Fraction = 2 / 3
        """Of the crop's sides."""
        largest_component: bool = True
        """Keep the largest component of each class in the teacher's labels."""
        target: Literal["teacher", "pseudo_label"] = "teacher"
        """Where the unlabeled regions' labels come from; the stored pseudo-labels, if wanted, where
        a volume has one that takes part."""

    title = "BCP"
    source = "Bai et al., CVPR 2023"
    # Two mixes of either kind in a batch, as published: by one alone batch norm learns too little.
    needs = Needs(labeled_batch=4, unlabeled_batch=4, pairs=True)

    options: Options

    @classmethod
    def needs_of(cls, options: BidirectionalCopyPaste.Options) -> Needs:  # type: ignore[override]
        return replace(cls.needs, pseudo_labels=options.target == "pseudo_label")

    def step(
        self, labeled: LabeledBatch, unlabeled: UnlabeledBatch | None, progress: Progress
    ) -> StepResult:
        if unlabeled is None or self.options.consistency_weight == 0:
            return supervised_step(self.student, labeled)
        weight = self.weight(progress)
        mask = box_mask(labeled.labels.shape[1:], self.options.box).to(labeled.image.device)
        if weight == 0:
            return self._paste_labeled(labeled, mask)
        n = len(labeled.image) // 2
        la, lb = labeled.image[:n], labeled.image[n : 2 * n]
        ua, ub = unlabeled.image[:n], unlabeled.image[n : 2 * n]
        y, z = labeled.labels, self._targets(unlabeled)
        # One after the other, as in the paper: batch norm sees one kind of mix at a time.
        inward, outward = self.student(paste(la, ub, mask)), self.student(paste(ua, lb, mask))
        of_mask, of_box = mask.expand_as(y[:n]).float(), (~mask).expand_as(y[:n]).float()
        losses = {
            "supervised": segmentation_loss(inward, y[:n], of_mask)
            + segmentation_loss(outward, y[n : 2 * n], of_box),
            "consistency": weight
            * (
                segmentation_loss(inward, z[n : 2 * n], of_box)
                + segmentation_loss(outward, z[:n], of_mask)
            ),
        }
        return StepResult(losses, None, {"consistency_weight": weight})

    def _paste_labeled(self, labeled: LabeledBatch, mask: Tensor) -> StepResult:
        """The first part of the run: all labeled crops, each with a box of the next one."""
        image = paste(labeled.image, labeled.image.roll(-1, 0), mask)
        labels = paste(labeled.labels, labeled.labels.roll(-1, 0), mask)
        return StepResult({"supervised": segmentation_loss(self.student(image), labels)})

    def _targets(self, unlabeled: UnlabeledBatch) -> Tensor:
        stored, selected = unlabeled.pseudo_hard, unlabeled.selected
        if self.options.target == "teacher" or stored is None or selected is None:
            return self._asked(unlabeled)
        if selected.all():
            return stored
        theirs = self._asked(unlabeled)
        return torch.where(selected[:, None, None, None], stored.to(theirs), theirs)

    @torch.no_grad()
    def _asked(self, unlabeled: UnlabeledBatch) -> Tensor:
        """The teacher's labels, of either half by itself."""
        halves = unlabeled.image.chunk(2)
        labels = torch.cat([self.teacher(half).argmax(1) for half in halves])
        labels *= unlabeled.valid
        if self.options.largest_component:
            labels = largest_components(labels)
        return labels.masked_fill(~unlabeled.valid, IGNORE)


def box_mask(size: torch.Size, share: float) -> Tensor:
    """(X, Y, Z) bool, False in a box of ``share`` of the sides at a random place."""
    mask = torch.ones(size, dtype=torch.bool)
    box = []
    for side in size:
        length = int(side * share)
        start = int(torch.randint(side - length + 1, (1,)))
        box.append(slice(start, start + length))
    mask[tuple(box)] = False
    return mask


def paste(outside: Tensor, inside: Tensor, mask: Tensor) -> Tensor:
    """``outside`` where the mask is True, ``inside`` in its box."""
    return torch.where(mask, outside, inside)


def largest_components(labels: Tensor) -> Tensor:
    """Background but for each class's largest component (26-connected); (B, X, Y, Z)."""
    array = labels.cpu().numpy()
    touching = np.ones((3, 3, 3))
    kept = [keep_largest(crop, np.unique(crop[crop > 0]), touching) for crop in array]
    return torch.from_numpy(np.stack(kept)).to(labels.device)
