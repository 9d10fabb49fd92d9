"""Measures of agreement and doubt that several methods share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def entropy(probabilities: Tensor) -> Tensor:
    """-Σ_c p_c·ln p_c for each voxel: (B, K, ...) to (B, ...), between 0 and ln K."""
    return -(probabilities * torch.log(probabilities + 1e-6)).sum(1)


def mean_square_where(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean over the voxels of the mask and all classes of (student - teacher)²; 0 for no voxel.

    Args:
        student: (B, K, ...) probabilities.
        teacher: (B, K, ...) probabilities.
        mask: (B, ...) bool.
    """
    where = mask.unsqueeze(1).to(student.dtype)
    squares = (student - teacher).square() * where
    return squares.sum() / (student.shape[1] * where.sum()).clamp_min(1e-6)


@contextmanager
def frozen_statistics(net: nn.Module) -> Iterator[None]:
    """Within this, forward passes leave the running statistics of batch norm as they are."""
    layers = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
