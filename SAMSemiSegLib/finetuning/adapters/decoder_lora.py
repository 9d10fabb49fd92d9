"""LoRA on all linear layers of a mask decoder, by peft."""

from __future__ import annotations

from torch import nn

from SAMSemiSegLib.foundation.semantic import SemanticDecoder

LINEARS = (
    r".*\.(q_proj|k_proj|v_proj|out_proj|lin1|lin2|mlp\.layers\.\d+)"
    r"|output_hypernetworks_mlps\.\d+\.layers\.\d+"
)
"""Attention, MLPs (``lin1`` and ``lin2`` in SAM, ``mlp.layers`` in SAM 2) and hypernetworks."""


def add_decoder_lora(decoder: SemanticDecoder, rank: int) -> None:
    """Freeze a decoder but for low-rank updates of its linear layers and for its class tokens.

    SAM has no classes: tokens, 256 numbers each, are the least by which K of them can differ.

    Args:
        decoder: changed in place; it answers as before.
        rank: of the updates, which are scaled by 1.
    """
    from peft import LoraConfig, inject_adapter_in_model

    decoder.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=LINEARS)
    inject_adapter_in_model(config, decoder)
    assert isinstance(decoder.mask_tokens, nn.Module)
    decoder.mask_tokens.requires_grad_(True)
