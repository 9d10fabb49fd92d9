"""From a fine-tuned model's prediction to the pseudo-label that is stored."""

from __future__ import annotations

from collections.abc import Sequence

from SAMSemiSegLib.finetuning.strategy import Prediction
from SAMSemiSegLib.pseudolabels.clean import clean
from SAMSemiSegLib.pseudolabels.confidence import volume_score, voxel_confidence
from SAMSemiSegLib.pseudolabels.pseudo_label import PseudoLabel
from SAMSemiSegLib.run.settings import PseudoLabelSettings


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
