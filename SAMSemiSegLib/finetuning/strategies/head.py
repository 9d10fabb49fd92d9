"""Leave the foundation model as it is and train a small 3D head on its embeddings."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from SAMSemiSegLib.finetuning.adapters.freeze import freeze
from SAMSemiSegLib.finetuning.canvases import CanvasOptions, CanvasStrategy, with_budget
from SAMSemiSegLib.finetuning.replay import Entry, ReplayOptions, ReplayStrategy
from SAMSemiSegLib.finetuning.strategy import STRATEGIES, Sample
from SAMSemiSegLib.finetuning.volume_head import VolumeHead
from SAMSemiSegLib.foundation.model import FoundationModel
from SAMSemiSegLib.run.settings import Fraction, Positive, StitchingSettings
from SAMSemiSegLib.stitching.layout import Layout, Slab
from SAMSemiSegLib.stitching.slabs import average_slabs
from SAMSemiSegLib.stitching.stitch import stitch
from SAMSemiSegLib.training.losses import segmentation_loss
from SAMSemiSegLib.training.progress import Progress
from SAMSemiSegLib.volumes.volume import shape_of


@STRATEGIES.register("head")
class HeadStrategy(ReplayStrategy, CanvasStrategy):
    """Useful within a minute or two on two processor cores, where SAM's own decoder has hardly
    begun: the encoder stays frozen, so that an augmented canvas is encoded once and serves many
    steps, and a few thousand weights read the embedding as a volume (see docs/methods.md)."""

    title = "3D head on frozen embeddings (stitched)"
    source = (
        "own; a convolutional head on SAM's embeddings: Hu, Xu and Shi, arXiv 2306.13731; "
        "stitching: SFR, arXiv 2403.11229"
    )

    advice = "lower stitching.max_pixels or preprocessing.scale."

    class Options(ReplayOptions, CanvasOptions):
        """Settings of the strategy's own."""

        width: Annotated[int, Field(gt=0, multiple_of=4)] = 16
        """Channels of the 3D layers."""
        features: Annotated[int, Field(gt=0, multiple_of=4)] = 32
        """Channels that the embedding is reduced to."""
        dropout: Fraction = 0.5
        """Share of these that a training step leaves out."""
        coordinates: bool = True
        """The place in the volume is an input: right where all scans show the same region, as
        crops around an organ do."""
        replay: Positive = 6

    options: Options

    def __init__(
        self,
        foundation: FoundationModel,
        channels: int,
        stitching: StitchingSettings,
        options: Options,
    ) -> None:
        super().__init__(foundation, channels, stitching, options)
        freeze(foundation)
        self.encoder = foundation
        self.head = VolumeHead(
            channels, options.width, options.features, options.dropout, options.coordinates
        )

    @property
    def foundation(self) -> FoundationModel:
        """The model that encodes the canvases."""
        return self.encoder

    def sample_loss(self, sample: Sample, progress: Progress) -> Tensor:
        """½(CE + Dice) of this volume, or of one seen before."""
        seen = self.seen(sample, progress)
        begin, end = seen["part"].tolist()
        logits = self.head(
            seen["embedding"].float(),
            seen["image"].float(),
            _layout_of(seen["layout"]),
            (begin, end),
        )
        target = seen["labels"][None]
        return segmentation_loss(logits, target, include_background=self.options.include_background)

    def encoded(self, sample: Sample) -> Entry:
        """Embedding, gray values and labels of one of its canvases."""
        drawn = self.draw_slab(sample)
        canvas = stitch(drawn.image, drawn.slab.layout, drawn.fill)[None, None]
        depth = sample.image.shape[self.stitching.axis]
        return {
            "embedding": self.encode(canvas, drawn.factor).half(),
            "image": drawn.image.half(),
            "labels": drawn.labels.contiguous(),
            "layout": _numbers_of(drawn.slab.layout),
            "part": torch.tensor([drawn.slab.start / depth, drawn.slab.stop / depth]),
        }

    def volume_maps(self, image: Tensor, settings: StitchingSettings, offset: int) -> Tensor:
        """Softmax (K, X, Y, Z) of a volume (X, Y, Z) seen along ``settings.axis``."""
        shape = shape_of(image)
        factor = self.upscale_factor(shape, settings)
        fill, depth = float(image.min()), shape[settings.axis]

        def predict_slab(part: Tensor, slab: Slab) -> Tensor:
            embedding = self.encode(stitch(part, slab.layout, fill)[None, None], factor)
            place = (slab.start / depth, slab.stop / depth)
            logits: Tensor = self.head(embedding, part, slab.layout, place)
            return logits[0].float().softmax(0)

        slabs = self.slabs_of(shape, with_budget(settings, factor), factor, offset)
        return average_slabs(image, slabs, settings.axis, predict_slab)


def _numbers_of(layout: Layout) -> Tensor:
    """A layout as a tensor, which a checkpoint can hold."""
    numbers: list[int] = []
    for field in fields(layout):
        value = getattr(layout, field.name)
        numbers += value if isinstance(value, tuple) else [value]
    return torch.tensor(numbers)


def _layout_of(numbers: Tensor) -> Layout:
    slices, height, width, *rest = (int(number) for number in numbers.tolist())
    return Layout(slices, (height, width), *rest)
