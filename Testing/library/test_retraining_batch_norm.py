"""Batch norm that normalizes by the batch in hand where a network labels in training."""

import pytest
import torch
from torch import nn

from SAMSemiSegLib.retraining.batch_norm import evaluating_by_batch
from SAMSemiSegLib.retraining.vnet import VNet
from SAMSemiSegLib.run.settings import NetSettings


def test_the_batch_in_hand_counts_and_nothing_is_remembered() -> None:
    net = nn.Sequential(nn.BatchNorm3d(1), nn.Dropout(0.9))
    net[1].eval()
    net[0].running_mean += 5
    image = torch.randn(2, 1, 8, 8, 8)
    with evaluating_by_batch(net):
        found = net(image)
    assert torch.allclose(found, (image - image.mean()) / image.std(correction=0), atol=1e-4)
    assert net[0].running_mean == 5 and net[0].running_var == 1 and net[0].momentum == 0.1
    assert net.training and net[0].training and not net[1].training


def test_an_error_leaves_the_modes_as_they_were() -> None:
    net = VNet(2, NetSettings(width=2))
    before = {name: module.training for name, module in net.named_modules()}
    with pytest.raises(ValueError, match="stop"), evaluating_by_batch(net):
        assert not net.encoder.dropout.training
        raise ValueError("stop")
    assert {name: module.training for name, module in net.named_modules()} == before
    assert all(m.momentum == 0.1 for m in net.modules() if isinstance(m, nn.BatchNorm3d))
