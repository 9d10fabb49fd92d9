"""CPC-SAM: cross prompting with one point for each class."""

from __future__ import annotations

from torch import Tensor

from SAMSemiSegLib.finetuning.cross_prompting.prompts import Points
from SAMSemiSegLib.finetuning.cross_prompting.sampling import center_point, random_point
from SAMSemiSegLib.finetuning.cross_prompting.strategy import (
    CrossPrompting,
    CrossPromptingOptions,
    Seen,
)
from SAMSemiSegLib.finetuning.prototypes import Prototypes, one_hot_regions
from SAMSemiSegLib.finetuning.strategy import STRATEGIES
from SAMSemiSegLib.run.settings import NotNegative


@STRATEGIES.register("cpc")
class CPCStrategy(CrossPrompting):
    """Prompted once by the center of each class' largest component and once by a random point, both
    from the other decoder's coarse answer; no prototypes, no prompts before ``start``."""

    title = "CPC-SAM: cross prompting consistency"
    source = "Miao et al., CPC-SAM, MICCAI 2024; stitched view: our own"
    prompts_from_start = False

    class Options(CrossPromptingOptions):
        """Settings of the strategy's own."""

        consistency_weight: NotNegative = 0.05

    def point_sets(
        self, seen: Seen, coarse: Tensor, prototypes: Prototypes | None
    ) -> list[list[Points]]:
        """See the base class."""
        regions = one_hot_regions(coarse, self.channels)
        return [
            [Points.of([choose(region) for region in canvas]) for canvas in regions]
            for choose in (center_point, random_point)
        ]
