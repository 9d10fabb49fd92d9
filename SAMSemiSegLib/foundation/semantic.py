"""A SAM that names classes: one mask token for each, no prompts.

Source: Zhang and Liu, SAMed, arXiv 2304.13785; as used by SFR, arXiv 2403.11229.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from SAMSemiSegLib.foundation.model import FoundationModel

Tokens = Literal["pretrained", "new"]

TOKEN_NOISE = 0.1
"""Spread of the noise on copied tokens, as a share of the tokens' own spread: classes that start
from the same token must be able to part."""


class SemanticDecoder(nn.Module):
    """SAM's mask decoder with K mask tokens and K hypernetworks.

    Args:
        decoder: SAM's mask decoder; it is copied, not changed.
        channels: K, classes with the background.
        tokens: ``pretrained`` starts from SAM's four tokens and hypernetworks, used in turn;
            ``new`` starts from random ones.
    """

    def __init__(self, decoder: nn.Module, channels: int, tokens: Tokens) -> None:
        super().__init__()
        decoder = copy.deepcopy(decoder)
        self.transformer = decoder.transformer
        self.output_upscaling = decoder.output_upscaling
        # SAM's IoU token, and SAM 2's on whether there is an object, attend to the others; they
        # stay although their estimates are not used.
        self.iou_token = decoder.iou_token
        self.obj_score_token = getattr(decoder, "obj_score_token", None)
        pretrained, networks = decoder.mask_tokens, decoder.output_hypernetworks_mlps
        assert isinstance(pretrained, nn.Embedding) and isinstance(networks, nn.ModuleList)
        self.mask_tokens = nn.Embedding(channels, pretrained.embedding_dim)
        self.output_hypernetworks_mlps = nn.ModuleList(
            copy.deepcopy(networks[k % len(networks)]) for k in range(channels)
        )
        if tokens == "pretrained":
            with torch.no_grad():
                table = pretrained.weight[torch.arange(channels) % len(pretrained.weight)]
                noise = TOKEN_NOISE * table.std() * torch.randn_like(table)
                self.mask_tokens.weight.copy_(table + noise)
        else:
            for network in self.output_hypernetworks_mlps:
                for layer in network.modules():
                    if isinstance(layer, nn.Linear):
                        layer.reset_parameters()

    def forward(
        self,
        embedding: Tensor,
        positions: Tensor,
        no_mask: Tensor,
        prompts: Tensor | None = None,
    ) -> Tensor:
        """Low-resolution logits (B, K, 4h, 4w).

        SAM's own ``forward`` answers many prompts of one image; here each image of the batch has
        one prompt of its own, or none.

        Args:
            embedding: (B, 256, h, w) of the canvases.
            positions: (1, 256, h, w) encoding of places.
            no_mask: (256,) embedding of "there is no mask prompt".
            prompts: (B, N, 256) embedded points, or None.
        """
        assert isinstance(self.iou_token, nn.Embedding)
        assert isinstance(self.transformer, nn.Module)
        assert isinstance(self.output_upscaling, nn.Module)
        batch, channels, height, width = embedding.shape
        before = [self.iou_token.weight]
        if self.obj_score_token is not None:
            before.insert(0, self.obj_score_token.weight)
        tokens = torch.cat([*before, self.mask_tokens.weight])
        tokens = tokens.unsqueeze(0).expand(batch, -1, -1)
        if prompts is not None:
            tokens = torch.cat([tokens, prompts.to(tokens.dtype)], 1)
        source = embedding + no_mask.view(1, -1, 1, 1)
        answers, source = self.transformer(source, positions.expand(batch, -1, -1, -1), tokens)
        source = source.transpose(1, 2).reshape(batch, channels, height, width)
        upscaled = self.output_upscaling(source)
        weights = torch.stack(
            [
                net(answers[:, len(before) + k])
                for k, net in enumerate(self.output_hypernetworks_mlps)
            ],
            1,
        )
        return torch.einsum("bkc,bchw->bkhw", weights, upscaled)


class SemanticSAM(nn.Module):
    """Class logits for a canvas, at the canvas' resolution.

    Args:
        foundation: encoder and prompt encoder are used as they are, the mask decoder is copied
            into ``decoder``.
        channels: K, classes with the background.
        tokens: see :class:`SemanticDecoder`.
    """

    def __init__(self, foundation: FoundationModel, channels: int, tokens: Tokens = "new") -> None:
        super().__init__()
        self.decoder = SemanticDecoder(foundation.mask_decoder, channels, tokens)
        self.foundation = foundation

    def forward(self, canvas: Tensor) -> Tensor:
        """(B, 1, H, W) gray values, sides multiples of ``foundation.multiple``, to logits
        (B, K, H, W)."""
        return self.decode(self.foundation.encode(canvas), (canvas.shape[-2], canvas.shape[-1]))

    def decode(self, embedding: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits (B, K, *size) from an image embedding (B, 256, h, w)."""
        logits: Tensor = self.decoder(embedding, *self.foundation.context_of(embedding))
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        return logits
