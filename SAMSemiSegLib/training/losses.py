"""½(CE + Dice), the loss of both training stages, with ignored voxels left out of both terms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = 255


def cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over the voxels that are not ignored.

    Args:
        logits: (B, K, ...).
        labels: (B, ...) channel indices with 255 = ignore, or (B, K, ...) soft targets.
        weight: (B, ...) weight of each voxel, bool or float, or None. A weighted mean: all-equal
            weights change nothing, all-zero weights give 0.
    """
    soft = labels.dim() == logits.dim()
    if soft:
        per_voxel = -(labels * F.log_softmax(logits.float(), dim=1)).sum(1)
        valid = torch.ones_like(per_voxel)
    else:
        per_voxel = F.cross_entropy(
            logits.float(), labels.long(), ignore_index=IGNORE, reduction="none"
        )
        valid = (labels != IGNORE).float()
    if weight is not None:
        valid = valid * weight
    return (per_voxel * valid).sum() / valid.sum().clamp_min(1e-6)


def dice_loss(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    include_background: bool = False,
) -> Tensor:
    """1 - soft Dice, averaged over the classes; sums run over the batch (squared denominator).

    Args:
        logits: (B, K, ...).
        labels: (B, ...) channel indices with 255 = ignore, or (B, K, ...) soft targets.
        weight: (B, ...) weight of each voxel, bool or float, or None.
        include_background: also average the background's Dice, as SFR's code does.
    """
    probabilities = logits.float().softmax(1)
    if labels.dim() == logits.dim():
        target = labels.float()
        valid = torch.ones_like(target[:, :1])
    else:
        known = labels != IGNORE
        valid = known.float().unsqueeze(1)
        one_hot = F.one_hot(labels.long().masked_fill(~known, 0), logits.shape[1])
        target = one_hot.movedim(-1, 1).to(probabilities.dtype)
    if weight is not None:
        valid = valid * weight.unsqueeze(1)
    axes = (0, *range(2, logits.dim()))
    overlap = (valid * probabilities * target).sum(axes)
    mass = (valid * (probabilities.square() + target.square())).sum(axes)
    dice = (2 * overlap + 1e-5) / (mass + 1e-5)
    return 1 - (dice if include_background else dice[1:]).mean()


def segmentation_loss(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    include_background: bool = False,
) -> Tensor:
    """½(CE + Dice); arguments as in :func:`dice_loss`."""
    ce = cross_entropy(logits, labels, weight)
    return 0.5 * (ce + dice_loss(logits, labels, weight, include_background))
