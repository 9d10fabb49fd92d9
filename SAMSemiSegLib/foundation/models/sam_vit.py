"""The original SAM and MedSAM, with the network classes of ``segment-anything``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from SAMSemiSegLib.foundation.blocks import (
    PROMPT_CHANNELS,
    mask_decoder,
    prompt_encoder,
    run_block,
    to_unit_range,
)
from SAMSemiSegLib.foundation.model import (
    FOUNDATION,
    FoundationEntry,
    FoundationModel,
    WeightsFile,
)
from SAMSemiSegLib.foundation.segment_anything_import import import_segment_anything

PATCH = 16


class AnySizeViT(nn.Module):
    """SAM's image encoder for canvases of any size, rectangles too.

    Holds the parts of ``ImageEncoderViT`` under their own names, so that the published weights fit.
    The absolute position embedding is interpolated to the canvas' grid; the relative ones of the
    global blocks are interpolated by SAM's own attention.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.checkpointing = False
        self.patch_embed = encoder.patch_embed
        self.pos_embed = encoder.pos_embed
        self.blocks = encoder.blocks
        self.neck = encoder.neck

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W), sides multiples of 16, to (B, 256, H/16, W/16)."""
        assert isinstance(self.patch_embed, nn.Module) and isinstance(self.neck, nn.Module)
        assert isinstance(self.blocks, nn.ModuleList)
        x = self.patch_embed(x)
        x = x + self._positions(x.shape[1], x.shape[2])
        for block in self.blocks:
            x = run_block(block, x, self.checkpointing)
        result: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return result

    def _positions(self, height: int, width: int) -> Tensor:
        """Absolute position embedding (1, height, width, C)."""
        table = self.pos_embed
        assert isinstance(table, Tensor)
        if table.shape[1:3] == (height, width):
            return table
        channels_first = table.permute(0, 3, 1, 2)
        resized = F.interpolate(
            channels_first, (height, width), mode="bicubic", align_corners=False, antialias=True
        )
        return resized.permute(0, 2, 3, 1)


class SamViT(FoundationModel):
    """SAM with a plain ViT encoder.

    Args:
        channels, depth, heads: of the ViT.
        global_blocks: indices of the blocks that attend over the whole canvas.
        unit_range: scale each canvas to 0..1 (MedSAM); else gray values with zero mean and unit
            spread go in as they are, which is the range SAM was trained in.
        image_side: side of the pretraining's images, in pixels.
    """

    multiple = PATCH
    downscale = 4

    def __init__(
        self,
        channels: int,
        depth: int,
        heads: int,
        global_blocks: Sequence[int],
        unit_range: bool = False,
        image_side: int = 1024,
        decoder_depth: int = 2,
        decoder_mlp: int = 2048,
    ) -> None:
        super().__init__()
        modeling = import_segment_anything()
        self.unit_range = unit_range
        self.image_side = image_side
        self.image_encoder = AnySizeViT(
            modeling.ImageEncoderViT(
                img_size=image_side,
                patch_size=PATCH,
                embed_dim=channels,
                depth=depth,
                num_heads=heads,
                mlp_ratio=4,
                out_chans=PROMPT_CHANNELS,
                qkv_bias=True,
                norm_layer=partial(nn.LayerNorm, eps=1e-6),
                use_rel_pos=True,
                window_size=14,
                global_attn_indexes=tuple(global_blocks),
            )
        )
        self.prompt_encoder = prompt_encoder(image_side // PATCH, image_side)
        self.mask_decoder = mask_decoder(decoder_depth, decoder_mlp)

    def encode(self, canvas: Tensor) -> Tensor:
        """See the base class."""
        if self.unit_range:
            canvas = to_unit_range(canvas)
        embedding: Tensor = self.image_encoder(canvas.expand(-1, 3, -1, -1))
        return embedding

    def attention_blocks(self) -> list[nn.Module]:
        """All blocks of the ViT."""
        assert isinstance(self.image_encoder.blocks, nn.ModuleList)
        return list(self.image_encoder.blocks)


_SAM = "Kirillov et al., Segment Anything, ICCV 2023, arXiv 2304.02643"
_MEDSAM = (
    "Ma et al., Segment anything in medical images, Nature Communications 2024, "
    "doi 10.1038/s41467-024-44824-z"
)
_OFFICIAL = "https://dl.fbaipublicfiles.com/segment_anything/"
_VIT_B = partial(SamViT, 768, 12, 12, (2, 5, 8, 11))
_VIT_L = partial(SamViT, 1024, 24, 16, (5, 11, 17, 23))
_VIT_H = partial(SamViT, 1280, 32, 16, (7, 15, 23, 31))


def without_pixel_statistics(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the two of ``Sam`` itself, which are no weights."""
    return {k: v for k, v in tensors.items() if k not in ("pixel_mean", "pixel_std")}


def _register(
    name: str, title: str, source: str, weights: WeightsFile, build: Callable[[], FoundationModel]
) -> None:
    entry = FoundationEntry(name, title, source, weights, build, without_pixel_statistics)
    FOUNDATION.register(name)(entry)


# The digits in the official names are the first of the files' MD5.
_register(
    "sam_vit_b",
    "SAM ViT-B (91 M parameters)",
    _SAM,
    WeightsFile(
        url=_OFFICIAL + "sam_vit_b_01ec64.pth",
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        size=375_042_383,
        license="Apache-2.0",
        md5="01ec64d29a2fca3f0661936605ae66f8",
    ),
    _VIT_B,
)
_register(
    "sam_vit_l",
    "SAM ViT-L (308 M parameters)",
    _SAM,
    WeightsFile(
        url=_OFFICIAL + "sam_vit_l_0b3195.pth",
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        size=1_249_524_607,
        license="Apache-2.0",
        md5="0b3195507c641ddb6910d2bb5adee89c",
    ),
    _VIT_L,
)
_register(
    "sam_vit_h",
    "SAM ViT-H (636 M parameters)",
    _SAM,
    WeightsFile(
        url=_OFFICIAL + "sam_vit_h_4b8939.pth",
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        size=2_564_550_879,
        license="Apache-2.0",
        md5="4b8939a88964f0f4ff5f5b2642c598a6",
    ),
    _VIT_H,
)
_register(
    "medsam_vit_b",
    "MedSAM (ViT-B, 91 M parameters, trained on medical images)",
    _MEDSAM,
    WeightsFile(
        url="https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
        sha256=None,
        size=375_000_000,  # about
        license="as stated at zenodo.org/records/10689643 (code: Apache-2.0)",
        md5="3bb6db55bd0c9ca30b61248bca72f8d6",
    ),
    partial(_VIT_B, unit_range=True),
)
