"""CPAC-SAM: cross prompting with a prototype-guided region and an adaptive grid of points."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor

from SAMSemiSegLib.finetuning.cross_prompting.prompts import Points
from SAMSemiSegLib.finetuning.cross_prompting.sampling import grid_points, random_point, thin_out
from SAMSemiSegLib.finetuning.cross_prompting.strategy import (
    CrossPrompting,
    CrossPromptingOptions,
    Seen,
)
from SAMSemiSegLib.finetuning.prototypes import (
    Prototypes,
    class_similarity,
    one_hot_regions,
)
from SAMSemiSegLib.finetuning.strategy import STRATEGIES
from SAMSemiSegLib.run.settings import Positive


@STRATEGIES.register("cpac")
class CPACStrategy(CrossPrompting):
    """Points on a coarse and a fine grid, where the prompting decoder and the prototypes of the
    labeled volumes name the same class."""

    title = "CPAC-SAM: cross prompting with adaptive grids"
    source = "CPAC-SAM, Medical Image Analysis 110:103973, 2026; stitched view: our own"

    class Options(CrossPromptingOptions):
        """Settings of the strategy's own."""

        densities: Annotated[tuple[Positive, ...], Field(min_length=2, max_length=2)] = (8, 16)
        """s of the two sets: a class has about s² points, whatever its size."""

    def point_sets(
        self, seen: Seen, coarse: Tensor, prototypes: Prototypes | None
    ) -> list[list[Points]]:
        """Reliable regions are the truth in labeled volumes, else coarse class = prototype class.
        A class whose grid misses its region has one random point of it; in unlabeled volumes, where
        there is no such region, of the coarse class."""
        guess = one_hot_regions(coarse, self.channels)
        if prototypes is None:
            regions = guess = one_hot_regions(seen.target, self.channels)
        else:
            similarity = class_similarity(seen.embedding, prototypes, self.channels, seen.size)
            regions = guess & one_hot_regions(similarity.argmax(1), self.channels)
        canvases = [
            [self._class_points(*pair) for pair in zip(canvas, coarse_canvas, strict=True)]
            for canvas, coarse_canvas in zip(regions, guess, strict=True)
        ]
        return [
            [Points.of([grids[i] for grids in canvas]) for canvas in canvases] for i in range(2)
        ]

    def _class_points(self, region: Tensor, fallback: Tensor) -> list[Tensor]:
        """Points (N, 2) of one class in each of the two sets."""
        options = self.options
        assert isinstance(options, CPACStrategy.Options)
        grids = [grid_points(region, density) for density in options.densities]
        most = max(1, options.max_points // self.channels)
        share = min(1.0, most / max(1, *map(len, grids)))
        points = [thin_out(grid, math.ceil(share * len(grid))) for grid in grids]
        return [
            own if len(own) else random_point(region if region.any() else fallback)
            for own in points
        ]
