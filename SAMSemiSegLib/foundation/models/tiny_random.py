"""Small models with random, seeded weights, for tests: a forward pass takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable

import torch

from SAMSemiSegLib.foundation.model import FOUNDATION, FoundationEntry, FoundationModel
from SAMSemiSegLib.foundation.models.lite_medsam import LiteMedSAM
from SAMSemiSegLib.foundation.models.sam2 import SAM2, import_sam2
from SAMSemiSegLib.foundation.models.sam_vit import SamViT


def _seeded(build: Callable[[], FoundationModel]) -> FoundationModel:
    """The same weights in every process, and the caller's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20)
        return build()


def _sam() -> FoundationModel:
    return _seeded(lambda: SamViT(32, 2, 2, (1,), image_side=256, decoder_depth=1, decoder_mlp=64))


def _lite() -> FoundationModel:
    return _seeded(
        lambda: LiteMedSAM(
            (8, 16, 16, 32), (1, 1, 1, 1), (1, 2, 2, 2), decoder_depth=1, decoder_mlp=64
        )
    )


def _sam2() -> FoundationModel:
    return _seeded(
        lambda: SAM2(16, 1, (1, 1, 2, 1), (3,), image_side=256, decoder_depth=1, decoder_mlp=64)
    )


FOUNDATION.register("sam_vit_tiny_random")(
    FoundationEntry(
        "sam_vit_tiny_random", "SAM ViT, 2 layers, random weights (tests)", "none", None, _sam
    )
)
FOUNDATION.register("lite_tiny_random")(
    FoundationEntry(
        "lite_tiny_random", "TinyViT-SAM, 4 layers, random weights (tests)", "none", None, _lite
    )
)
FOUNDATION.register("sam2_tiny_random")(
    FoundationEntry(
        "sam2_tiny_random",
        "SAM 2 Hiera, 5 layers, random weights (tests)",
        "none",
        None,
        _sam2,
        requires=import_sam2,
    )
)
