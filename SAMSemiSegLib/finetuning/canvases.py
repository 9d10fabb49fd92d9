"""How a strategy sees volumes as canvases: cut into slabs, enlarged, encoded, averaged over views.

Source: SFR, arXiv 2403.11229; Li et al., IEEE TMI 44(10), 2025.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.finetuning.slices import slice_layout
from SAMSemiSegLib.finetuning.strategy import FinetuningStrategy, Prediction, Sample
from SAMSemiSegLib.foundation.model import FoundationModel
from SAMSemiSegLib.run.settings import Positive, PseudoLabelSettings, StitchingSettings
from SAMSemiSegLib.stitching.layout import Layout, Slab, plan_slabs
from SAMSemiSegLib.training.progress import Progress
from SAMSemiSegLib.volumes.volume import shape_of

MAX_UPSCALE = 4


class CanvasOptions(FinetuningStrategy.Options):
    """Settings that all strategies on canvases have."""

    upscale: Positive | Literal["auto"] = "auto"
    """Whole factor by which the canvas is enlarged before the model sees it. Small volumes gain:
    a structure of a few pixels is lost between the model's patches. A step costs the square of
    it. ``auto``: 1 for models whose masks have the canvas' resolution (LiteMedSAM), else as large
    as ``stitching.max_pixels`` allows, up to 4."""
    include_background: bool = False
    """Average the background's Dice into the loss too, as the authors' code does."""
    slab_overlap: int = Field(default=4, ge=0)
    """Slices that neighboring slabs of a large volume share."""


@dataclass(frozen=True)
class Draw:
    """A slab of a labeled volume, drawn for one step.

    Attributes:
        slab: where it lies, and its canvas.
        image: (X, Y, Z) gray values of the slab.
        labels: (X, Y, Z) channel indices.
        fill: gray value of what is blank on the canvas.
        factor: by which the model sees the canvas larger.
    """

    slab: Slab
    image: Tensor
    labels: Tensor
    fill: float
    factor: int


class CanvasStrategy(FinetuningStrategy):
    """Base of the strategies that encode canvases."""

    class Options(CanvasOptions):
        """Settings of the strategy's own."""

    options: CanvasOptions

    @property
    @abstractmethod
    def foundation(self) -> FoundationModel:
        """The model that encodes the canvases."""

    @property
    def single_slices(self) -> bool:
        """Whether each slice is seen on a canvas of its own; by default all are on one."""
        return False

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

    @abstractmethod
    def sample_loss(self, sample: Sample, progress: Progress) -> Tensor:
        """½(CE + Dice) of one labeled volume."""

    def draw_slab(self, sample: Sample) -> Draw:
        """A labeled volume at a random canvas offset; of a large one, one random slab.

        Draws from torch's global generator.
        """
        assert sample.labels is not None
        image, labels = sample.image, sample.labels
        shape = shape_of(image)
        factor = self.upscale_factor(shape, self.stitching)
        settings = with_budget(self.stitching, factor)
        offset = int(torch.randint(settings.start_offset + 1, ()).item())
        slabs = self.slabs_of(shape, settings, factor, offset)
        slab = slabs[int(torch.randint(len(slabs), ()).item())]
        length = slab.stop - slab.start
        return Draw(
            slab,
            image.narrow(settings.axis, slab.start, length),
            labels.narrow(settings.axis, slab.start, length),
            float(image.min()),
            factor,
        )

    def encode(self, canvas: Tensor, factor: int) -> Tensor:
        """Embedding (B, 256, h, w) of canvases (B, 1, H, W) enlarged ``factor`` times."""
        if factor > 1:
            canvas = F.interpolate(canvas, scale_factor=float(factor), mode="bicubic")
        return self.foundation.encode(canvas)

    @torch.no_grad()
    def predict(self, image: Tensor, settings: PseudoLabelSettings) -> Prediction:
        """Softmax averaged over axes, canvas offsets and, if asked, mirrored volumes."""
        axes = settings.axes or (self.stitching.axis,)
        mirrored: list[tuple[int, ...]] = [()]
        if settings.flips:
            mirrored += [(axis,) for axis in self.mirror_axes]
        total: Tensor | None = None
        count = 0
        shape = shape_of(image)
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

    @abstractmethod
    def volume_maps(self, image: Tensor, settings: StitchingSettings, offset: int) -> Tensor:
        """What is averaged over the views of a volume: maps (C, X, Y, Z) of a volume (X, Y, Z)
        seen along ``settings.axis``, such as the softmax."""

    def prediction_of(self, maps: Tensor) -> Prediction:
        """The prediction from averaged maps (C, X, Y, Z)."""
        return Prediction(maps)

    def offsets(
        self, shape: tuple[int, int, int], settings: StitchingSettings, count: int
    ) -> list[int]:
        """Up to ``count`` different numbers of leading blank cells, as training has seen them."""
        if self.single_slices:
            return [0]
        factor = self.upscale_factor(shape, settings)
        count = min(count, settings.start_offset + 1)
        wanted = [round(i * settings.start_offset / max(count - 1, 1)) for i in range(count)]
        budget = with_budget(settings, factor)
        slabs = [self.slabs_of(shape, budget, factor, offset) for offset in wanted]
        return sorted({slab[0].layout.offset for slab in slabs})

    def slabs_of(
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
        """The factor for a volume of this shape (see ``Options.upscale``).

        That of the typical volume, where there is one: all volumes are seen at the scale of those
        that were learned from. A larger volume has more canvases; only where not even one of its
        slices would fit is the factor lower.
        """
        if self.options.upscale != "auto":
            return self.options.upscale
        most = min(self.foundation.downscale, MAX_UPSCALE)
        typical = self.typical_shape or shape
        seen = math.prod(typical) // (typical[settings.axis] if self.single_slices else 1)
        pixels = max(seen, math.prod(shape) // shape[settings.axis])
        factor = 1
        while factor < most and pixels * (factor + 1) ** 2 * 1.2 <= settings.max_pixels:
            factor += 1  # 1.2: what margins, blank cells and rounding add to a canvas
        return factor

    def slice_canvas(
        self, shape: tuple[int, int, int], settings: StitchingSettings
    ) -> tuple[Layout, int]:
        """Layout of one slice alone, and the factor by which the model sees it larger."""
        factor = self.upscale_factor(shape, settings)
        budget = with_budget(settings, factor)
        return slice_layout(shape, budget, self.side_multiple(factor)), factor

    def side_multiple(self, factor: int) -> int:
        """Multiple of the canvas' sides before it is enlarged."""
        multiple = self.foundation.multiple
        while factor % 2 == 0 and multiple % 2 == 0:
            factor, multiple = factor // 2, multiple // 2
        return multiple


def with_budget(settings: StitchingSettings, factor: int) -> StitchingSettings:
    """The pixel budget is that of the enlarged canvas."""
    budget = max(1, settings.max_pixels // factor**2)
    return settings.model_copy(update={"max_pixels": budget})
