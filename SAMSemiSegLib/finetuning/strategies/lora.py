"""Stitched LoRA, the fine-tuning stage of SFR."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from SAMSemiSegLib.finetuning.adapters.lora import Target, add_lora
from SAMSemiSegLib.finetuning.stitched import StitchedOptions, StitchedStrategy
from SAMSemiSegLib.finetuning.strategy import STRATEGIES
from SAMSemiSegLib.foundation.model import FoundationModel
from SAMSemiSegLib.run.settings import Positive


@STRATEGIES.register("lora")
class LoraStrategy(StitchedStrategy):
    """Low-rank updates of the encoder's attention, and the mask decoder."""

    title = "Stitched LoRA (SFR)"
    source = (
        "Li et al., Stitching, Fine-tuning, Re-training, IEEE TMI 44(10), 2025, arXiv 2403.11229; "
        "LoRA: Hu et al., ICLR 2022"
    )

    class Options(StitchedOptions):
        """Settings of LoRA."""

        rank: Positive = 4
        alpha: Annotated[float, Field(gt=0)] | None = None
        """The update is scaled by alpha / rank; None: by 1."""
        targets: Annotated[tuple[Target, ...], Field(min_length=1)] = ("q", "v")
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def adapt_encoder(self, foundation: FoundationModel) -> None:
        """Adds the updates."""
        options = self.options
        assert isinstance(options, LoraStrategy.Options)
        add_lora(foundation, options.rank, options.alpha, options.targets, options.dropout)
