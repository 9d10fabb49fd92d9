"""Train the mask decoder alone; the encoder stays as it is."""

from __future__ import annotations

from SAMSemiSegLib.finetuning.stitched import StitchedOptions, StitchedStrategy
from SAMSemiSegLib.finetuning.strategy import STRATEGIES
from SAMSemiSegLib.foundation.model import FoundationModel


@STRATEGIES.register("decoder")
class DecoderStrategy(StitchedStrategy):
    """No activation of the encoder is kept: the least memory and time a step."""

    name = "decoder"
    title = "Decoder only (stitched)"
    source = "Kirillov et al., Segment Anything, ICCV 2023; stitching: SFR, arXiv 2403.11229"

    class Options(StitchedOptions):
        """Nothing but the common settings."""

    def adapt_encoder(self, foundation: FoundationModel) -> None:
        """Leaves it frozen."""
