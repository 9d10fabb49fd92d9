"""Whether the labeled volumes' features say the same of a voxel as the adapted model does.

CPAC-SAM finds reliable places by prototypes while it trains; this gives any strategy on canvases
the same measure after training, as a weight of its pseudo-labels. With one labeled volume there is
one prototype for each class (and canvas). Our own use; nothing more is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from SAMSemiSegLib.finetuning.canvases import CanvasStrategy, with_budget
from SAMSemiSegLib.finetuning.prototypes import Prototypes, class_prototypes, class_similarity
from SAMSemiSegLib.finetuning.slices import collect_slices, lay_out_slices
from SAMSemiSegLib.finetuning.strategy import Sample
from SAMSemiSegLib.stitching.slabs import predict_in_slabs
from SAMSemiSegLib.stitching.stitch import stitch
from SAMSemiSegLib.training.losses import IGNORE
from SAMSemiSegLib.volumes.volume import shape_of


@dataclass(frozen=True)
class Likeness:
    """Prototypes of the labeled volumes in the features of an adapted model.

    Attributes:
        strategy: the model, in evaluation mode.
        prototypes: of the labeled volumes.
    """

    strategy: CanvasStrategy
    prototypes: Prototypes

    @staticmethod
    @torch.no_grad()
    def of(strategy: CanvasStrategy, labeled: Sequence[Sample]) -> Likeness:
        """From labeled volumes as they are, without augmentation."""
        parts = [
            class_prototypes(strategy.encode(canvas, factor), target, strategy.channels)
            for sample in labeled
            for canvas, target, factor in _canvases(strategy, sample)
        ]
        return Likeness(strategy, Prototypes.join(parts))

    @torch.no_grad()
    def agreement(self, image: Tensor, probabilities: Tensor) -> Tensor:
        """(X, Y, Z): 1 where the most similar prototype has the predicted class, else 0.

        Args:
            image: (X, Y, Z) preprocessed gray values.
            probabilities: (K, X, Y, Z) of the model.
        """
        strategy, shape = self.strategy, shape_of(image)
        factor = strategy.upscale_factor(shape, strategy.stitching)

        def similarity(canvas: Tensor) -> Tensor:
            size = (canvas.shape[-2], canvas.shape[-1])
            embedding = strategy.encode(canvas, factor)
            return class_similarity(embedding, self.prototypes, strategy.channels, size)

        if strategy.single_slices:
            layout, _ = strategy.slice_canvas(shape, strategy.stitching)
            canvases = lay_out_slices(image, layout, float(image.min()))
            maps = torch.cat([similarity(canvas[None, None]).to(image) for canvas in canvases])
            similarities = collect_slices(maps, layout)
        else:
            similarities = predict_in_slabs(
                image,
                with_budget(strategy.stitching, factor),
                strategy.side_multiple(factor),
                similarity,
                strategy.options.slab_overlap,
            )
        return (similarities.argmax(0) == probabilities.to(image.device).argmax(0)).float()


def _canvases(strategy: CanvasStrategy, sample: Sample) -> Iterator[tuple[Tensor, Tensor, int]]:
    """All canvases (1, 1, H, W) of a labeled volume with labels (1, H, W) and enlargement."""
    assert sample.labels is not None
    shape, settings = shape_of(sample.image), strategy.stitching
    factor = strategy.upscale_factor(shape, settings)
    fill = float(sample.image.min())
    if strategy.single_slices:
        layout, _ = strategy.slice_canvas(shape, settings)
        images = lay_out_slices(sample.image, layout, fill)
        targets = lay_out_slices(sample.labels, layout, IGNORE)
        for image, target in zip(images, targets, strict=True):
            yield image[None, None], target[None], factor
        return
    for slab in strategy.slabs_of(shape, with_budget(settings, factor), factor, 0):
        start, length = slab.start, slab.stop - slab.start
        image = stitch(sample.image.narrow(settings.axis, start, length), slab.layout, fill)
        target = stitch(sample.labels.narrow(settings.axis, start, length), slab.layout, IGNORE)
        yield image[None, None], target[None], factor
