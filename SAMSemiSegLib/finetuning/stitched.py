"""What the stitched strategies share: one canvas a volume in, class logits out, ½(CE + Dice).

Source: SFR, arXiv 2403.11229; Li et al., IEEE TMI 44(10), 2025.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from SAMSemiSegLib.finetuning.adapters.freeze import freeze
from SAMSemiSegLib.finetuning.canvases import CanvasOptions, CanvasStrategy, with_budget
from SAMSemiSegLib.finetuning.strategy import Sample
from SAMSemiSegLib.foundation.model import FoundationModel
from SAMSemiSegLib.foundation.semantic import SemanticSAM, Tokens
from SAMSemiSegLib.run.settings import StitchingSettings
from SAMSemiSegLib.stitching.slabs import predict_in_slabs
from SAMSemiSegLib.stitching.stitch import stitch
from SAMSemiSegLib.training.losses import IGNORE, segmentation_loss
from SAMSemiSegLib.training.progress import Progress
from SAMSemiSegLib.volumes.volume import shape_of


class StitchedOptions(CanvasOptions):
    """Settings that all stitched strategies have."""

    tokens: Tokens = "new"
    """Start the classes from random mask tokens, or from SAM's own (``pretrained``): those answer
    every class with the same confident mask, and the first steps go into unlearning it (4
    hippocampus volumes, LiteMedSAM, loss after 50 steps: 0.48 new, 0.56 pretrained)."""


class StitchedStrategy(CanvasStrategy):
    """Base of the strategies with SAM's decoder; a subclass says what of the encoder is trained.

    The mask decoder and the embedding of "no mask prompt" are trained by all of them.
    """

    class Options(StitchedOptions):
        """Settings of the strategy's own."""

    options: StitchedOptions

    def __init__(
        self,
        foundation: FoundationModel,
        channels: int,
        stitching: StitchingSettings,
        options: StitchedOptions,
    ) -> None:
        super().__init__(foundation, channels, stitching, options)
        freeze(foundation)
        self.sam = SemanticSAM(foundation, channels, options.tokens)
        self.sam.decoder.requires_grad_(True)
        foundation.prompt_encoder.no_mask_embed.requires_grad_(True)  # type: ignore[union-attr]
        self.adapt_encoder(foundation)

    @property
    def foundation(self) -> FoundationModel:
        """The model that encodes the canvases."""
        return self.sam.foundation

    @abstractmethod
    def adapt_encoder(self, foundation: FoundationModel) -> None:
        """Make the (frozen) encoder trainable where this strategy wants it, in place."""

    def sample_loss(self, sample: Sample, progress: Progress) -> Tensor:
        """½(CE + Dice) of one labeled volume."""
        canvas, target, factor = self.draw_canvas(sample)
        return self.loss(self.canvas_logits(canvas, factor), target)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """½(CE + Dice) of logits (B, K, H, W) and labels (B, H, W)."""
        return segmentation_loss(logits, target, include_background=self.options.include_background)

    def draw_canvas(self, sample: Sample) -> tuple[Tensor, Tensor, int]:
        """Canvas (1, 1, H, W) and labels (1, H, W) of what :meth:`draw_slab` draws, and the factor
        by which the model sees it larger."""
        drawn = self.draw_slab(sample)
        canvas = stitch(drawn.image, drawn.slab.layout, drawn.fill)
        target = stitch(drawn.labels, drawn.slab.layout, IGNORE)
        return canvas[None, None], target[None], drawn.factor

    def canvas_logits(self, canvas: Tensor, factor: int) -> Tensor:
        """Logits (B, K, H, W) of canvases (B, 1, H, W) that the model sees ``factor`` times larger.

        The decoder's masks come at their own resolution; going straight to the canvas' one spares
        the enlarged logits.
        """
        return self.sam.decode(self.encode(canvas, factor), (canvas.shape[-2], canvas.shape[-1]))

    def canvas_maps(self, canvas: Tensor, factor: int) -> Tensor:
        """What is averaged over the views of a volume: maps (B, C, H, W) of canvases (B, 1, H, W),
        here the softmax."""
        return self.canvas_logits(canvas, factor).float().softmax(1)

    def volume_maps(self, image: Tensor, settings: StitchingSettings, offset: int) -> Tensor:
        """Maps (C, X, Y, Z) of a volume (X, Y, Z) seen along ``settings.axis``."""
        factor = self.upscale_factor(shape_of(image), settings)
        return predict_in_slabs(
            image,
            with_budget(settings, factor),
            self.side_multiple(factor),
            lambda canvas: self.canvas_maps(canvas, factor),
            self.options.slab_overlap,
            offset,
        )
