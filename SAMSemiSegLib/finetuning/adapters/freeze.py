"""Freezing a pretrained network, its normalization statistics included."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def freeze(module: nn.Module) -> None:
    """No parameter of ``module`` is trained any more."""
    module.requires_grad_(False)


def hold_frozen_norms(module: nn.Module) -> None:
    """Put batch norms whose parameters are frozen into eval mode.

    Called after ``train()``: a frozen encoder whose running statistics follow the few stitched
    canvases predicts differently in training and in use, and overfits the labeled volumes.
    """
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and layer.weight is not None:
            layer.train(layer.training and layer.weight.requires_grad)


def count_trainable(module: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
