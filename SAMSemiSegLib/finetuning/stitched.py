"""What the stitched strategies share: one canvas a volume in, class logits out, ½(CE + Dice).

Source: SFR, arXiv 2403.11229; Li et al., IEEE TMI 44(10), 2025.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.finetuning.adapters.freeze import freeze
from SAMSemiSegLib.finetuning.strategy import FinetuningStrategy, Prediction, Sample
from SAMSemiSegLib.foundation.model import FoundationModel
from SAMSemiSegLib.foundation.semantic import SemanticSAM, Tokens
from SAMSemiSegLib.run.settings import (
    Positive,
    PseudoLabelSettings,
    StitchingSettings,
)
from SAMSemiSegLib.stitching.layout import Slab, plan_slabs
from SAMSemiSegLib.stitching.slabs import predict_in_slabs
from SAMSemiSegLib.stitching.stitch import stitch
from SAMSemiSegLib.training.losses import IGNORE, segmentation_loss
from SAMSemiSegLib.training.progress import Progress

MAX_UPSCALE = 4


class StitchedOptions(FinetuningStrategy.Options):
    """Settings that all stitched strategies have."""

    tokens: Tokens = "new"
    """Start the classes from random mask tokens, or from SAM's own (``pretrained``): those answer
    every class with the same confident mask, and the first steps go into unlearning it (4
    hippocampus volumes, LiteMedSAM, loss after 50 steps: 0.48 new, 0.56 pretrained)."""
    upscale: Positive | Literal["auto"] = "auto"
    """Whole factor by which the canvas is enlarged before the model sees it. Small volumes gain:
    a structure of a few pixels is lost between the model's patches. A step costs the square of
    it. ``auto``: 1 for models whose masks have the canvas' resolution (LiteMedSAM), else as large
    as ``stitching.max_pixels`` allows, up to 4."""
    include_background: bool = False
    """Average the background's Dice into the loss too, as the authors' code does."""
    slab_overlap: int = Field(default=4, ge=0)
    """Slices that neighboring slabs of a large volume share."""


class StitchedStrategy(FinetuningStrategy):
    """Base of the strategies; a subclass says what of the encoder is trained.

    The mask decoder and the embedding of "no mask prompt" are trained by all of them.
    """

    class Options(StitchedOptions):
        """Settings of the strategy's own."""

    options: StitchedOptions

    @property
    def single_slices(self) -> bool:
        """Whether each slice is seen on a canvas of its own; by default all are on one."""
        return False

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

    @abstractmethod
    def adapt_encoder(self, foundation: FoundationModel) -> None:
        """Make the (frozen) encoder trainable where this strategy wants it, in place."""

    def step(
        self, labeled: Sequence[Sample], unlabeled: Sequence[Sample], progress: Progress
    ) -> dict[str, Tensor]:
        """One canvas for each labeled volume, or one random slab of it where it is too large.

        Draws the canvas' offset and the slab from torch's global generator.
        """
        total: Tensor | None = None
        for sample in labeled:
            loss = self.sample_loss(sample, progress)
            total = loss if total is None else total + loss
        if total is None:
            raise ValueError("a step needs at least one labeled volume")
        return {"supervised": total / len(labeled)}

    def sample_loss(self, sample: Sample, progress: Progress) -> Tensor:
        """½(CE + Dice) of one labeled volume."""
        canvas, target, factor = self.draw_canvas(sample)
        size = (canvas.shape[-2], canvas.shape[-1])
        return self.loss(self.sam.decode(self.encode(canvas, factor), size), target)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """½(CE + Dice) of logits (B, K, H, W) and labels (B, H, W)."""
        return segmentation_loss(logits, target, include_background=self.options.include_background)

    def draw_canvas(self, sample: Sample) -> tuple[Tensor, Tensor, int]:
        """Canvas (1, 1, H, W) and labels (1, H, W) of a labeled volume at a random offset, and the
        factor by which the model sees it larger; of a large volume, one random slab."""
        assert sample.labels is not None
        image, labels = sample.image, sample.labels
        shape = (image.shape[0], image.shape[1], image.shape[2])
        factor = self.upscale_factor(shape, self.stitching)
        settings = _with_budget(self.stitching, factor)
        offset = int(torch.randint(settings.start_offset + 1, ()).item())
        slabs = self._slabs(shape, settings, factor, offset)
        slab = slabs[int(torch.randint(len(slabs), ()).item())]
        start, length = slab.start, slab.stop - slab.start
        image = image.narrow(settings.axis, start, length)
        labels = labels.narrow(settings.axis, start, length)
        canvas = stitch(image, slab.layout, float(sample.image.min()))
        target = stitch(labels, slab.layout, IGNORE)
        return canvas[None, None], target[None], factor

    def canvas_logits(self, canvas: Tensor, factor: int) -> Tensor:
        """Logits (B, K, H, W) of canvases (B, 1, H, W) that the model sees ``factor`` times larger.

        The decoder's masks come at their own resolution; going straight to the canvas' one spares
        the enlarged logits.
        """
        return self.sam.decode(self.encode(canvas, factor), (canvas.shape[-2], canvas.shape[-1]))

    def encode(self, canvas: Tensor, factor: int) -> Tensor:
        """Embedding (B, 256, h, w) of canvases (B, 1, H, W) enlarged ``factor`` times."""
        if factor > 1:
            canvas = F.interpolate(canvas, scale_factor=float(factor), mode="bicubic")
        return self.sam.foundation.encode(canvas)

    @torch.no_grad()
    def predict(self, image: Tensor, settings: PseudoLabelSettings) -> Prediction:
        """Softmax averaged over axes, canvas offsets and, if asked, mirrored volumes."""
        axes = settings.axes or (self.stitching.axis,)
        mirrored: list[tuple[int, ...]] = [()]
        if settings.flips:
            mirrored += [(axis,) for axis in self.mirror_axes]
        total: Tensor | None = None
        count = 0
        shape = (image.shape[0], image.shape[1], image.shape[2])
        for axis in axes:
            stitching = self.stitching.model_copy(update={"axis": axis})
            for offset in self.offsets(shape, stitching, settings.offsets):
                for flips in mirrored:
                    part = self.volume_maps(image.flip(flips), stitching, offset)
                    part = part.flip([1 + dimension for dimension in flips])
                    total = part if total is None else total.add_(part)
                    count += 1
        assert total is not None
        return self.prediction_of(total.div_(count))

    def canvas_maps(self, canvas: Tensor, factor: int) -> Tensor:
        """What is averaged over the views of a volume: maps (B, C, H, W) of canvases (B, 1, H, W),
        here the softmax."""
        return self.canvas_logits(canvas, factor).float().softmax(1)

    def prediction_of(self, maps: Tensor) -> Prediction:
        """The prediction from averaged maps (C, X, Y, Z)."""
        return Prediction(maps)

    def volume_maps(self, image: Tensor, settings: StitchingSettings, offset: int) -> Tensor:
        """Maps (C, X, Y, Z) of a volume (X, Y, Z) seen along ``settings.axis``."""
        factor = self.upscale_factor((image.shape[0], image.shape[1], image.shape[2]), settings)
        return predict_in_slabs(
            image,
            _with_budget(settings, factor),
            self.side_multiple(factor),
            lambda canvas: self.canvas_maps(canvas, factor),
            self.options.slab_overlap,
            offset,
        )

    def offsets(
        self, shape: tuple[int, int, int], settings: StitchingSettings, count: int
    ) -> list[int]:
        """Up to ``count`` different numbers of leading blank cells, as training has seen them."""
        if self.single_slices:
            return [0]
        factor = self.upscale_factor(shape, settings)
        count = min(count, settings.start_offset + 1)
        wanted = [round(i * settings.start_offset / max(count - 1, 1)) for i in range(count)]
        budget = _with_budget(settings, factor)
        slabs = [self._slabs(shape, budget, factor, offset) for offset in wanted]
        return sorted({slab[0].layout.offset for slab in slabs})

    def _slabs(
        self, shape: tuple[int, int, int], settings: StitchingSettings, factor: int, offset: int
    ) -> list[Slab]:
        """The volume's canvases; ``offset`` is lowered where it would cost a further canvas."""

        def plan(blank: int) -> list[Slab]:
            multiple, overlap = self.side_multiple(factor), self.options.slab_overlap
            return plan_slabs(shape, settings, multiple, overlap, blank)

        slabs = plan(0)
        while offset > 0:
            try:
                shifted = plan(offset)
            except InputError:  # not even one slice beside the blank cells
                shifted = []
            if len(shifted) == len(slabs):
                return shifted
            offset //= 2
        return slabs

    def upscale_factor(self, shape: tuple[int, int, int], settings: StitchingSettings) -> int:
        """The factor for a volume of this shape (see ``Options.upscale``)."""
        if self.options.upscale != "auto":
            return self.options.upscale
        most = min(self.sam.foundation.downscale, MAX_UPSCALE)
        pixels = shape[0] * shape[1] * shape[2]
        if self.single_slices:
            pixels //= shape[settings.axis]
        factor = 1
        while factor < most and pixels * (factor + 1) ** 2 * 1.2 <= settings.max_pixels:
            factor += 1  # 1.2: what margins, blank cells and rounding add to a canvas
        return factor

    def side_multiple(self, factor: int) -> int:
        """Multiple of the canvas' sides before it is enlarged."""
        multiple = self.sam.foundation.multiple
        while factor % 2 == 0 and multiple % 2 == 0:
            factor, multiple = factor // 2, multiple // 2
        return multiple


def _with_budget(settings: StitchingSettings, factor: int) -> StitchingSettings:
    """The pixel budget is that of the enlarged canvas."""
    budget = max(1, settings.max_pixels // factor**2)
    return settings.model_copy(update={"max_pixels": budget})
