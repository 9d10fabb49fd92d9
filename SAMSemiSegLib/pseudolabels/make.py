"""From a fine-tuned model's prediction to the pseudo-label that is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from SAMSemiSegLib.finetuning.strategy import FinetuningStrategy, Prediction
from SAMSemiSegLib.finetuning.windows import predict_volume
from SAMSemiSegLib.pseudolabels.clean import clean
from SAMSemiSegLib.pseudolabels.confidence import volume_score, voxel_confidence
from SAMSemiSegLib.pseudolabels.pseudo_label import PseudoLabel
from SAMSemiSegLib.run.settings import PseudoLabelSettings


def predict_with_guide(
    strategy: FinetuningStrategy, image: Tensor, settings: PseudoLabelSettings
) -> Prediction:
    """The foundation model's prediction of an image (X, Y, Z); the strategy's ``guide``, if it has
    one, has ``settings.vnet_share`` in its probabilities."""
    prediction = predict_volume(strategy, image, settings)
    if strategy.guide is None or settings.vnet_share == 0:
        return prediction
    theirs = strategy.guide(image).to(prediction.probabilities)
    mixed = prediction.probabilities.lerp(theirs, settings.vnet_share)
    return replace(prediction, probabilities=mixed)


def make_pseudo_label(
    prediction: Prediction, settings: PseudoLabelSettings, label_names: Sequence[str]
) -> PseudoLabel:
    """Confidence, cleaning and score of one volume.

    Args:
        prediction: probabilities (K, X, Y, Z), and the strategy's agreement where it has one.
        settings: which labels are cleaned.
        label_names: names of the channels 1..C.

    Raises:
        InputError: the settings name a label that is not there.
    """
    probabilities = prediction.probabilities.detach().float().cpu().numpy()
    agreement = prediction.agreement
    confidence = voxel_confidence(
        probabilities, None if agreement is None else agreement.detach().float().cpu().numpy()
    )
    probabilities, confidence = clean(
        probabilities, confidence, label_names, settings.largest_component, settings.fill_holes
    )
    return PseudoLabel.of(
        probabilities, confidence, volume_score(probabilities.argmax(axis=0), confidence)
    )
