"""CPAC-SAM: cross prompting with a prototype-guided region and an adaptive grid of points."""

from __future__ import annotations

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

    name = "cpac"
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
        A class whose grid misses its region has one random point of it, or of the coarse class."""
        options = self.options
        assert isinstance(options, CPACStrategy.Options)
        guess = one_hot_regions(coarse, self.channels)
        if prototypes is None:
            regions = one_hot_regions(seen.target, self.channels)
        else:
            similarity = class_similarity(seen.embedding, prototypes, self.channels, seen.size)
            regions = guess & one_hot_regions(similarity.argmax(1), self.channels)
        most = max(1, options.max_points // self.channels)

        def class_points(region: Tensor, fallback: Tensor, density: int) -> Tensor:
            points = thin_out(grid_points(region, density), most)
            if len(points) == 0:
                points = random_point(region)
            return points if len(points) else random_point(fallback)

        return [
            [
                Points.of(
                    [
                        class_points(region, fallback, density)
                        for region, fallback in zip(canvas, coarse_canvas, strict=True)
                    ]
                )
                for canvas, coarse_canvas in zip(regions, guess, strict=True)
            ]
            for density in options.densities
        ]
