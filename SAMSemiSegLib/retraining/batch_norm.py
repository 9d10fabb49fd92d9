"""Batch norm where a network in training labels crops for itself or is judged by them.

Running averages follow the training's crops, augmented and labeled ones among them; of a volume
that looks different they know nothing. In training every crop is normalized by its own batch, and
so it is here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def frozen_statistics(net: nn.Module) -> Iterator[None]:
    """Within this, forward passes leave the running statistics of batch norm as they are."""
    momenta = {m: m.momentum for m in net.modules() if isinstance(m, _BatchNorm)}
    for norm in momenta:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum


@contextmanager
def evaluating_by_batch(net: nn.Module) -> Iterator[None]:
    """Evaluation mode, in which batch norm normalizes by the batch in hand and does not remember
    it; afterwards every module is in the mode it was in."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    for module in modes:
        if isinstance(module, _BatchNorm):
            module.train()
    try:
        with frozen_statistics(net):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
