"""Measures of agreement and doubt that several methods share."""

from __future__ import annotations

import torch
from torch import Tensor


def entropy(probabilities: Tensor) -> Tensor:
    """-Σ_c p_c·ln p_c for each voxel: (B, K, ...) to (B, ...), between 0 and ln K."""
    return -(probabilities * torch.log(probabilities + 1e-6)).sum(1)


def mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the voxels of the mask; 0 for no voxel, as in a crop beside its volume.

    Args:
        values: (B, ...) finite.
        mask: (B, ...) bool.
    """
    return torch.where(mask, values.float(), 0.0).sum() / mask.sum().clamp_min(1)


def mean_square_where(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean over the voxels of the mask and all classes of (student - teacher)²; 0 for no voxel.

    Args:
        student: (B, K, ...) probabilities, or distances.
        teacher: (B, K, ...) the same.
        mask: (B, ...) bool.
    """
    where = mask.unsqueeze(1).to(student.dtype)
    squares = (student - teacher).square() * where
    return squares.sum() / (student.shape[1] * where.sum()).clamp_min(1e-6)
