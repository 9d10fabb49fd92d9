"""LoRA on the queries, keys and values of an encoder, by peft.

Source: Hu et al., LoRA, ICLR 2022; on q and v at rank 4 as in SAMed, arXiv 2304.13785, and SFR,
arXiv 2403.11229 (147,456 parameters on ViT-B).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from SAMSemiSegLib.foundation.model import FoundationModel

Target = Literal["q", "k", "v"]
NAMES: tuple[Target, ...] = ("q", "k", "v")


class SplitQKV(nn.Module):
    """A fused qkv linear as three linears, so that each can have a LoRA of its own.

    Args:
        fused: the linear from C to 3C channels.
        heads: attention heads.
        heads_first: order of the fused rows, see ``FoundationModel.heads_first``.
    """

    def __init__(self, fused: nn.Linear, heads: int, heads_first: bool) -> None:
        super().__init__()
        self.heads = heads
        self.heads_first = heads_first
        rows = self._rows(fused.weight.detach())
        biases = None if fused.bias is None else self._rows(fused.bias.detach())
        for i, name in enumerate(NAMES):
            linear = nn.Linear(fused.in_features, fused.out_features // 3, fused.bias is not None)
            linear.weight.data = rows[i].clone()
            if biases is not None:
                linear.bias.data = biases[i].clone()
            setattr(self, name, linear)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., 3C), in the order of the fused linear."""
        parts = [getattr(self, name)(x) for name in NAMES]
        if not self.heads_first:
            return torch.cat(parts, -1)
        by_head = [part.unflatten(-1, (self.heads, -1)) for part in parts]
        return torch.stack(by_head, -2).flatten(-3)

    def _rows(self, fused: Tensor) -> Tensor:
        """The rows (3C, ...) of the fused weight or bias as (3, C, ...)."""
        if not self.heads_first:
            return fused.unflatten(0, (3, -1))
        return fused.unflatten(0, (self.heads, 3, -1)).movedim(1, 0).flatten(1, 2)


def add_lora(
    model: FoundationModel,
    rank: int = 4,
    alpha: float | None = None,
    targets: Sequence[Target] = ("q", "v"),
    dropout: float = 0.0,
) -> None:
    """Add trainable low-rank updates to the attention of ``model``, in place.

    Starts as the unchanged model. All other parameters of the encoder are frozen.

    Args:
        model: every fused qkv of its blocks is split into three linears.
        rank: of the update.
        alpha: the update is scaled by alpha / rank; None: alpha = rank, the scale of the papers.
        targets: which of q, k and v are updated.
        dropout: on the input of the update.
    """
    from peft import LoraConfig, inject_adapter_in_model

    for block in model.attention_blocks():
        attention = block.attn
        assert isinstance(attention, nn.Module) and isinstance(attention.qkv, nn.Linear)
        heads = attention.num_heads
        assert isinstance(heads, int)
        device = attention.qkv.weight.device
        attention.qkv = SplitQKV(attention.qkv, heads, model.heads_first).to(device)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,  # type: ignore[arg-type]
        target_modules=[f"qkv.{name}" for name in targets],
        lora_dropout=dropout,
    )
    inject_adapter_in_model(config, model.image_encoder)
