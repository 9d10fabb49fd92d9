"""TorchScript: one file for PyTorch in Python and C++, with the model card inside."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import torch
from torch import nn

from SAMSemiSegLib.atomic import replacing
from SAMSemiSegLib.export.model_card import FILE_NAME, ModelCard


def export_torchscript(net: nn.Module, card: ModelCard, folder: Path) -> Path:
    """Write ``model.ts``: image (B, 1, X, Y, Z) to logits (B, K, X, Y, Z), in evaluation mode.

    Args:
        net: a plain V-Net.
        card: stored as the archive's extra file ``model_card.json``.
        folder: to write into.
    """
    path = folder / "model.ts"
    with warnings.catch_warnings():
        # PyTorch points to torch.export, whose files C++ programs and MONAI do not read yet.
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(copy.deepcopy(net).cpu().eval())
        with replacing(path) as temporary:
            torch.jit.save(scripted, str(temporary), _extra_files={FILE_NAME: card.to_json()})
    return path
