"""Prediction of a volume by a strategy that was trained on crops: overlapping windows.

The published fine-tuning stitches crops (112x112x80 fills a grid of 9 x 9 cells); with whole
volumes, which is the default here, there is one window.
"""

from __future__ import annotations

import torch
from torch import Tensor

from SAMSemiSegLib.finetuning.strategy import FinetuningStrategy, Prediction
from SAMSemiSegLib.run.settings import PseudoLabelSettings

OVERLAP = 0.5


def predict_volume(
    strategy: FinetuningStrategy, image: Tensor, settings: PseudoLabelSettings
) -> Prediction:
    """The strategy's prediction of a preprocessed volume (X, Y, Z), averaged over windows of
    ``strategy.window`` where it has one and the volume is larger."""
    window = strategy.window
    if window is None or all(n <= w for n, w in zip(image.shape, window, strict=True)):
        return strategy.predict(image, settings)
    from SAMSemiSegLib.training.sliding_window import SlidingWindowInferer

    trusted = False

    def predict(crop: Tensor) -> Tensor:
        nonlocal trusted
        found = strategy.predict(crop[0, 0], settings)
        agreement = found.agreement
        trusted = agreement is not None
        if agreement is None:
            agreement = torch.ones_like(found.probabilities[0])
        return torch.cat([found.probabilities, agreement[None]])[None]

    inferer = SlidingWindowInferer(
        # As in training, a shorter axis is taken whole, and never padded.
        roi_size=[min(n, w) for n, w in zip(image.shape, window, strict=True)],
        sw_batch_size=1,
        overlap=OVERLAP,
        mode="gaussian",
        cval=float(image.min()),
        sw_device=image.device,
        device="cpu",
    )
    result = inferer(image[None, None], predict)
    assert isinstance(result, Tensor)
    return Prediction(result[0, :-1], result[0, -1] if trusted else None)
