"""SAM 2 and MedSAM-2 as models of single images, with the network classes of ``sam2``.

The image encoder (Hiera and its neck), prompt encoder and mask decoder are the package's own, and
``no_mem_embed`` is added to the embedding as the package's image predictor does. Left out are the
parts for video (memory attention and memory encoder), and the two high-resolution maps that SAM 2
adds inside its mask decoder: every strategy here works on one embedding of a canvas, which it
keeps, propagates or compares. The decoder then answers as the package's does where these maps are
zero, and learns the rest in fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import ModuleType

import torch
from torch import Tensor, nn

from SAMSemiSegLib.foundation.blocks import PROMPT_CHANNELS, run_block, to_unit_range
from SAMSemiSegLib.foundation.model import (
    FOUNDATION,
    FoundationEntry,
    FoundationModel,
    WeightsFile,
)
from SAMSemiSegLib.foundation.package_import import import_networks

STRIDE = 16
"""Canvas pixels per pixel of the embedding, along one side."""
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the colors in the pretraining (ImageNet's), for values in 0..1."""
INSTALL = (
    'pip install "samsemiseg[sam2]" (or, if the installed torch is to stay as it is, '
    "SAM2_BUILD_CUDA=0 pip install --no-deps --no-build-isolation sam2==1.1.0 and then "
    "pip install iopath hydra-core; torchvision is not needed)"
)


def import_sam2(submodule: str = "modeling.backbones.hieradet") -> ModuleType:
    """The module ``sam2.<submodule>``; without an argument the one that needs most.

    Raises:
        InputError: the package, or ``iopath``, is not installed.
    """
    return import_networks("sam2", submodule, INSTALL)


class HieraEncoder(nn.Module):
    """The package's ``Hiera`` trunk and ``FpnNeck``, for canvases of any size, rectangles too.

    Runs the trunk block by block, so that blocks can be computed again in the backward pass. The
    trunk spreads its table of positions over the canvas by itself.

    Args:
        trunk: a ``Hiera``.
        neck: an ``FpnNeck`` for the trunk's two coarsest maps.
    """

    def __init__(self, trunk: nn.Module, neck: nn.Module) -> None:
        super().__init__()
        self.checkpointing = False
        self.trunk = trunk
        self.neck = neck

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W), sides multiples of 32, to (B, 256, H/16, W/16)."""
        trunk = self.trunk
        assert isinstance(trunk.blocks, nn.ModuleList)
        x = trunk.patch_embed(x)  # type: ignore[operator]
        x = x + trunk._get_pos_embed(x.shape[1:3])  # type: ignore[operator]
        ends: list[int] = trunk.stage_ends  # type: ignore[assignment]
        maps = []
        for i, block in enumerate(trunk.blocks):
            x = run_block(block, x, self.checkpointing)
            if i in ends[-2:]:
                maps.append(x.permute(0, 3, 1, 2))
        fine: Tensor = self.neck(maps)[0][0]
        return fine


class SAM2(FoundationModel):
    """SAM 2.1 for single images; see the module's docstring for what is left out.

    Args:
        channels, heads: of the first stage; both double from stage to stage.
        stages: blocks of the four stages.
        global_blocks: indices of the blocks that attend over the whole canvas.
        table_side: side of the table of positions.
        windows: side of the attention windows of each stage.
        unit_range: scale each canvas to 0..1 and normalize it as a photograph (MedSAM-2); else
            gray values with zero mean and unit spread go in as they are, which is the range that
            normalized photographs have.
        image_side: side of the pretraining's images, in pixels.
    """

    multiple = 2 * STRIDE
    downscale = 4
    pads_boxes = True

    def __init__(
        self,
        channels: int,
        heads: int,
        stages: Sequence[int],
        global_blocks: Sequence[int],
        table_side: int = 7,
        windows: Sequence[int] = (8, 4, 14, 7),
        unit_range: bool = False,
        image_side: int = 1024,
        decoder_depth: int = 2,
        decoder_mlp: int = 2048,
    ) -> None:
        super().__init__()
        trunk = import_sam2("modeling.backbones.hieradet").Hiera(
            embed_dim=channels,
            num_heads=heads,
            stages=tuple(stages),
            global_att_blocks=tuple(global_blocks),
            window_pos_embed_bkg_spatial_size=(table_side, table_side),
            window_spec=tuple(windows),
        )
        # The neck's finer maps only feed what is left out, and its position encoding only the
        # memory attention; the two coarsest maps do not depend on the others.
        neck = import_sam2("modeling.backbones.image_encoder").FpnNeck(
            position_encoding=nn.Identity(),
            d_model=PROMPT_CHANNELS,
            backbone_channel_list=trunk.channel_list[:2],
            fpn_interp_model="nearest",
        )
        self.unit_range = unit_range
        self.image_side = image_side
        self.image_encoder = HieraEncoder(trunk, neck)
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, PROMPT_CHANNELS))
        nn.init.trunc_normal_(self.no_mem_embed, std=0.02)
        side = image_side // STRIDE
        self.prompt_encoder = import_sam2("modeling.sam.prompt_encoder").PromptEncoder(
            embed_dim=PROMPT_CHANNELS,
            image_embedding_size=(side, side),
            input_image_size=(image_side, image_side),
            mask_in_chans=16,
        )
        transformer = import_sam2("modeling.sam.transformer").TwoWayTransformer(
            depth=decoder_depth, embedding_dim=PROMPT_CHANNELS, mlp_dim=decoder_mlp, num_heads=8
        )
        self.mask_decoder = import_sam2("modeling.sam.mask_decoder").MaskDecoder(
            transformer_dim=PROMPT_CHANNELS,
            transformer=transformer,
            iou_prediction_use_sigmoid=True,
            pred_obj_scores=True,
            pred_obj_scores_mlp=True,
            use_multimask_token_for_obj_ptr=True,
        )

    def encode(self, canvas: Tensor) -> Tensor:
        """See the base class; sides are multiples of 32."""
        image = canvas.expand(-1, 3, -1, -1)
        if self.unit_range:
            mean, spread = canvas.new_tensor(MEAN), canvas.new_tensor(SPREAD)
            image = (to_unit_range(canvas) - mean.view(-1, 1, 1)) / spread.view(-1, 1, 1)
        embedding: Tensor = self.image_encoder(image)
        return embedding + self.no_mem_embed.view(1, -1, 1, 1)

    def attention_blocks(self) -> list[nn.Module]:
        """All blocks of the trunk; the first of a stage widens its channels and halves the map."""
        trunk = self.image_encoder.trunk
        assert isinstance(trunk, nn.Module) and isinstance(trunk.blocks, nn.ModuleList)
        return list(trunk.blocks)


_RENAMED = {"sam_mask_decoder.": "mask_decoder.", "sam_prompt_encoder.": "prompt_encoder."}
_LEFT_OUT = (
    "image_encoder.neck.convs.2.",
    "image_encoder.neck.convs.3.",
    "mask_decoder.conv_s0.",
    "mask_decoder.conv_s1.",
    # For video:
    "memory_attention.",
    "memory_encoder.",
    "maskmem_tpos_enc",
    "mask_downsample.",
    "no_mem_pos_enc",
    "no_obj_",
    "obj_ptr_",
)


def from_official(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a SAM 2.1 file under our names, without those of the parts left out."""
    converted = {}
    for name, tensor in tensors.items():
        for theirs, ours in _RENAMED.items():
            if name.startswith(theirs):
                name = ours + name[len(theirs) :]
        if not name.startswith(_LEFT_OUT):
            converted[name] = tensor
    return converted


def _register(name: str, title: str, source: str, weights: WeightsFile, build: partial) -> None:
    entry = FoundationEntry(name, title, source, weights, build, from_official, import_sam2)
    FOUNDATION.register(name)(entry)


_SAM2 = "Ravi et al., SAM 2: Segment Anything in Images and Videos, arXiv 2408.00714"
_OFFICIAL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_"
_HIERA_T = partial(SAM2, 96, 1, (1, 2, 7, 2), (5, 7, 9))

_register(
    "sam2_hiera_t",
    "SAM 2.1 Hiera tiny (31 M parameters, needs the package sam2)",
    _SAM2,
    WeightsFile(
        url=_OFFICIAL + "tiny.pt",
        sha256="7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
        size=156_008_466,
        license="Apache-2.0",
    ),
    _HIERA_T,
)
_register(
    "sam2_hiera_s",
    "SAM 2.1 Hiera small (38 M parameters, needs the package sam2)",
    _SAM2,
    WeightsFile(
        url=_OFFICIAL + "small.pt",
        sha256="6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
        size=184_416_285,
        license="Apache-2.0",
    ),
    partial(SAM2, 96, 1, (1, 2, 11, 2), (7, 10, 13)),
)
_register(
    "sam2_hiera_b",
    "SAM 2.1 Hiera base plus (73 M parameters, needs the package sam2)",
    _SAM2,
    WeightsFile(
        url=_OFFICIAL + "base_plus.pt",
        sha256="a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        size=323_606_802,
        license="Apache-2.0",
    ),
    partial(SAM2, 112, 2, (2, 3, 16, 3), (12, 16, 20), 14),
)
_register(
    "sam2_hiera_l",
    "SAM 2.1 Hiera large (217 M parameters, needs the package sam2)",
    _SAM2,
    WeightsFile(
        url=_OFFICIAL + "large.pt",
        sha256="2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        size=898_083_611,
        license="Apache-2.0",
    ),
    partial(SAM2, 144, 2, (2, 6, 36, 4), (23, 33, 43), windows=(8, 4, 16, 8)),
)
_register(
    "medsam2",
    "MedSAM-2 (SAM 2.1 Hiera tiny, 31 M parameters, trained on medical images, needs the package "
    "sam2 and foundation.weights)",
    "Ma et al., MedSAM2: Segment Anything in 3D Medical Images and Videos, arXiv 2504.03600",
    WeightsFile(
        url=None,
        sha256=None,
        size=156_000_000,  # about
        license="as stated at huggingface.co/wanglab/MedSAM2 (code: Apache-2.0)",
    ),
    partial(_HIERA_T, unit_range=True, image_side=512),
)
