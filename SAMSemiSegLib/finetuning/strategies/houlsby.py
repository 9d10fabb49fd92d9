"""Stitched Houlsby adapters."""

from __future__ import annotations

from SAMSemiSegLib.finetuning.adapters.houlsby import add_adapters
from SAMSemiSegLib.finetuning.stitched import StitchedOptions, StitchedStrategy
from SAMSemiSegLib.finetuning.strategy import STRATEGIES
from SAMSemiSegLib.foundation.model import FoundationModel
from SAMSemiSegLib.run.settings import Positive


@STRATEGIES.register("houlsby")
class HoulsbyStrategy(StitchedStrategy):
    """Bottleneck adapters in every block of the encoder, and the mask decoder."""

    title = "Stitched Houlsby adapters"
    source = (
        "Houlsby et al., Parameter-Efficient Transfer Learning for NLP, ICML 2019; "
        "stitching: SFR, arXiv 2403.11229"
    )

    class Options(StitchedOptions):
        """Settings of the adapters."""

        hidden: Positive = 16
        """Channels of the bottlenecks."""

    def adapt_encoder(self, foundation: FoundationModel) -> None:
        """Adds the adapters."""
        assert isinstance(self.options, HoulsbyStrategy.Options)
        add_adapters(foundation, self.options.hidden)
