"""ONNX: one file for any runtime, with the model card in its metadata."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import torch
from torch import nn

from SAMSemiSegLib.atomic import replacing
from SAMSemiSegLib.export.model_card import ModelCard

OPSET = 17
CARD_KEY = "model_card"


def export_onnx(net: nn.Module, card: ModelCard, folder: Path) -> Path:
    """Write ``model.onnx``: ``image`` (B, 1, X, Y, Z) to ``logits`` (B, K, X, Y, Z).

    Batch and sides are free; the sides must be multiples of 16.

    Args:
        net: a plain V-Net.
        card: stored as JSON in the metadata entry ``model_card``.
        folder: to write into.
    """
    import onnx

    path = folder / "model.onnx"
    free = {0: "batch", 2: "x", 3: "y", 4: "z"}
    with replacing(path) as temporary:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The exporter by tracing: a second instead of a quarter of a minute, and free sides
            # need no proof that they divide by 16. The network has no branches to be missed.
            torch.onnx.export(
                copy.deepcopy(net).cpu().eval(),
                (torch.zeros(1, 1, 32, 32, 32),),
                str(temporary),
                dynamo=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes={"image": free, "logits": free},
            )
        model = onnx.load(str(temporary))
        entry = model.metadata_props.add()
        entry.key, entry.value = CARD_KEY, card.to_json()
        onnx.checker.check_model(model)
        onnx.save(model, str(temporary))
    return path
