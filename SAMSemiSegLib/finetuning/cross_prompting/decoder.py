"""A mask decoder that takes point prompts and answers at the full resolution of its input.

Source: CPC-SAM and CPAC-SAM extend SAM's two transposed convolutions to four, so that the logits
of a ViT with patches of 16 come as large as the image.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from SAMSemiSegLib.foundation.model import FoundationModel
from SAMSemiSegLib.foundation.semantic import SemanticDecoder, Tokens

TOKENS_AS_KEYS = ("self_attn", "cross_attn_image_to_token")
"""SAM's attention layers that look at tokens; the others look at the image."""


class FusedAttention(nn.Module):
    """SAM's attention between tokens and image with its own weights and the same result, without
    the table of all pairs in memory: hundreds of prompts on a canvas would make it gigabytes.

    Attributes:
        present: (B, N) bool, which of the last N keys count, for the passes to come; None: all. The
            decoder's own tokens come before them.
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.q_proj, self.k_proj = attention.q_proj, attention.k_proj
        self.v_proj, self.out_proj = attention.v_proj, attention.out_proj
        self.num_heads: int = attention.num_heads  # type: ignore[assignment]
        self.present: Tensor | None = None

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, N, C) queries on (B, M, C) keys and values, to (B, N, C)."""
        query, key, value = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # type: ignore[operator]
            for layer, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        mask = None
        if self.present is not None:
            own = k.shape[1] - self.present.shape[1]
            mask = F.pad(self.present, (own, 0), value=True)[:, None, None]
        found = F.scaled_dot_product_attention(query, key, value, mask)
        result: Tensor = self.out_proj(found.transpose(1, 2).flatten(2))  # type: ignore[operator]
        return result


def fuse_attention(module: nn.Module) -> None:
    """Replace SAM's attention layers below ``module``, in place; names of weights stay."""
    for name, child in module.named_children():
        if hasattr(child, "q_proj") and hasattr(child, "out_proj"):
            setattr(module, name, FusedAttention(child))
        else:
            fuse_attention(child)


class PromptedDecoder(SemanticDecoder):
    """One more doubling for each factor 2 that SAM's masks are smaller than the canvas.

    Each halves the channels; the last layers of the hypernetworks fit them and start anew.

    Args:
        foundation: its mask decoder is copied, not changed.
        channels: K, classes with the background.
        tokens: see :class:`SemanticDecoder`.
    """

    def __init__(self, foundation: FoundationModel, channels: int, tokens: Tokens) -> None:
        super().__init__(foundation.mask_decoder, channels, tokens)
        assert isinstance(self.transformer, nn.Module)
        fuse_attention(self.transformer)
        doublings = foundation.downscale.bit_length() - 1
        if doublings == 0:
            return
        stages = []
        width: int = self.output_hypernetworks_mlps[0].layers[-1].out_features  # type: ignore
        for _ in range(doublings):
            stages += [_doubling(width), nn.GELU()]
            width //= 2
        assert isinstance(self.output_upscaling, nn.Module)
        self.output_upscaling = nn.Sequential(self.output_upscaling, *stages)
        for network in self.output_hypernetworks_mlps:
            layers = network.layers
            assert isinstance(layers, nn.ModuleList)
            layers[-1] = nn.Linear(layers[-1].in_features, width)  # type: ignore[arg-type]

    def forward(
        self,
        embedding: Tensor,
        positions: Tensor,
        no_mask: Tensor,
        prompts: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """As the base class' at full resolution; ``present`` (B, N) says which prompts there are,
        so that a canvas' answer does not depend on how many others have."""
        if present is not None and bool(present.all()):
            present = None
        assert isinstance(self.transformer, nn.Module)
        for name, attention in self.transformer.named_modules():
            if name.rpartition(".")[2] in TOKENS_AS_KEYS:
                attention.present = present  # type: ignore[assignment]
        return super().forward(embedding, positions, no_mask, prompts)


def _doubling(width: int) -> nn.Module:
    """Twice the size, half the channels; the spread of the values stays, where PyTorch's own start
    would leave next to nothing of it after two such layers."""
    layer = nn.ConvTranspose2d(width, width // 2, 2, stride=2)
    nn.init.normal_(layer.weight, std=(2 / width) ** 0.5)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (B, K, h, w) at ``size``: means where they shrink by a whole factor, else bilinear."""
    height, width = logits.shape[-2:]
    if (height, width) == size:
        return logits
    factor = height // size[0]
    if factor > 1 and (size[0] * factor, size[1] * factor) == (height, width):
        return F.avg_pool2d(logits, factor)
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)
