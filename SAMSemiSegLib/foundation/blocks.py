"""What the encoders share: a block run with or without gradient checkpointing, SAM's decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from SAMSemiSegLib.foundation.segment_anything_import import import_segment_anything

PROMPT_CHANNELS = 256


def run_block(block: nn.Module, x: Tensor, checkpointing: bool) -> Tensor:
    """``block(x)``; its activations are computed again in the backward pass if asked."""
    if checkpointing and torch.is_grad_enabled():
        result: Tensor = checkpoint(block, x, use_reentrant=False)
        return result
    result = block(x)
    return result


def prompt_encoder(embedding_side: int, image_side: int) -> nn.Module:
    """SAM's prompt encoder for square images of ``image_side`` pixels."""
    modeling = import_segment_anything()
    encoder: nn.Module = modeling.PromptEncoder(
        embed_dim=PROMPT_CHANNELS,
        image_embedding_size=(embedding_side, embedding_side),
        input_image_size=(image_side, image_side),
        mask_in_chans=16,
    )
    return encoder


def mask_decoder(depth: int = 2, mlp_channels: int = 2048) -> nn.Module:
    """SAM's mask decoder: a two-way transformer, four mask tokens, an estimate of the IoU."""
    modeling = import_segment_anything()
    decoder: nn.Module = modeling.MaskDecoder(
        num_multimask_outputs=3,
        transformer=modeling.TwoWayTransformer(
            depth=depth, embedding_dim=PROMPT_CHANNELS, mlp_dim=mlp_channels, num_heads=8
        ),
        transformer_dim=PROMPT_CHANNELS,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )
    return decoder


def to_unit_range(canvas: Tensor) -> Tensor:
    """Each canvas of (B, 1, H, W) scaled to 0..1, as MedSAM's models were trained.

    Values beyond five standard deviations are clipped first: a single bright voxel must not press
    everything else together.
    """
    canvas = canvas.clamp(-5.0, 5.0)
    low = canvas.amin((1, 2, 3), keepdim=True)
    high = canvas.amax((1, 2, 3), keepdim=True)
    return (canvas - low) / (high - low).clamp_min(1e-6)
