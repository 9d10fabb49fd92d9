"""Bottleneck adapters after the attention and the MLP of each block.

Source: Houlsby et al., Parameter-Efficient Transfer Learning for NLP, ICML 2019.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from SAMSemiSegLib.foundation.model import FoundationModel


class Bottleneck(nn.Module):
    """x + up(gelu(down(x))); starts as the identity."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Linear(channels, hidden)
        self.up = nn.Linear(hidden, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same shape."""
        result: Tensor = x + self.up(F.gelu(self.down(x)))
        return result


class Adapted(nn.Module):
    """A frozen part of a block, followed by an adapter. Other attributes are the part's."""

    def __init__(self, part: nn.Module, channels: int, hidden: int) -> None:
        super().__init__()
        self.part = part
        self.adapter = Bottleneck(channels, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Channels last, as the part."""
        result: Tensor = self.adapter(self.part(x))
        return result

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("part"), name)


def add_adapters(model: FoundationModel, hidden: int) -> None:
    """Freeze the encoder of ``model`` and add adapters of ``hidden`` channels, in place."""
    model.image_encoder.requires_grad_(False)
    for block in model.attention_blocks():
        attention, mlp = block.attn, block.mlp
        assert isinstance(attention, nn.Module) and isinstance(mlp, nn.Module)
        assert isinstance(attention.proj, nn.Linear)
        channels, device = attention.proj.out_features, attention.proj.weight.device
        block.attn = Adapted(attention, channels, hidden).to(device)
        block.mlp = Adapted(mlp, channels, hidden).to(device)
