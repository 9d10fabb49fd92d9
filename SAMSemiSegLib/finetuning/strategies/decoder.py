"""Train the mask decoder alone; the encoder stays as it is."""

from __future__ import annotations

from torch import Tensor

from SAMSemiSegLib.finetuning.replay import Entry, ReplayOptions, ReplayStrategy
from SAMSemiSegLib.finetuning.stitched import StitchedOptions, StitchedStrategy
from SAMSemiSegLib.finetuning.strategy import STRATEGIES, Sample
from SAMSemiSegLib.foundation.model import FoundationModel
from SAMSemiSegLib.training.progress import Progress


@STRATEGIES.register("decoder")
class DecoderStrategy(ReplayStrategy, StitchedStrategy):
    """The least memory and time a step: since the encoder never changes, an augmented canvas it
    has seen once serves many steps. On two processor cores such a step of LiteMedSAM takes a
    tenth of one that passes through the encoder."""

    title = "Decoder only (stitched)"
    source = "Kirillov et al., Segment Anything, ICCV 2023; stitching: SFR, arXiv 2403.11229"

    advice = "lower stitching.max_pixels or preprocessing.scale."

    class Options(ReplayOptions, StitchedOptions):
        """Settings of the strategy's own."""

    options: Options

    def adapt_encoder(self, foundation: FoundationModel) -> None:
        """Leaves it frozen."""

    def encoded(self, sample: Sample) -> Entry:
        """Embedding and labels of one of its canvases."""
        canvas, target, factor = self.draw_canvas(sample)
        return {"embedding": self.encode(canvas, factor).half(), "target": target}

    def sample_loss(self, sample: Sample, progress: Progress) -> Tensor:
        """The loss on this volume, or on a canvas seen before."""
        seen = self.seen(sample, progress)
        target = seen["target"]
        size = (target.shape[-2], target.shape[-1])
        return self.loss(self.sam.decode(seen["embedding"].float(), size), target)
