"""What a fine-tuning strategy is: stage 2 as one small interface.

A strategy is an ``nn.Module`` around a foundation model. The training loop asks it for loss terms,
the pseudo-label stage for probabilities of whole volumes; how it sees a volume (one stitched
canvas, slices, a sequence) is its own affair.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from SAMSemiSegLib.foundation.model import FoundationModel
from SAMSemiSegLib.registry import Registry
from SAMSemiSegLib.run.settings import PseudoLabelSettings, Settings, StitchingSettings
from SAMSemiSegLib.training.progress import Progress

STRATEGIES: Registry[type[FinetuningStrategy]] = Registry(
    "fine-tuning strategy", "SAMSemiSegLib.finetuning.strategies"
)


@dataclass(frozen=True)
class Sample:
    """One preprocessed volume, already augmented when it comes to training.

    Attributes:
        id: the case's id.
        image: (X, Y, Z) float.
        labels: (X, Y, Z) channel indices with 255 = ignore, or None for an unlabeled volume.
    """

    id: str
    image: Tensor
    labels: Tensor | None = None


@dataclass(frozen=True)
class Prediction:
    """What the adapted model says of one volume.

    Attributes:
        probabilities: (K, X, Y, Z) softmax probabilities.
        agreement: (X, Y, Z) in 0..1, a strategy's own measure of trust (two decoders that agree,
            prototypes), or None; multiplied into the confidence.
    """

    probabilities: Tensor
    agreement: Tensor | None = None


class FinetuningStrategy(nn.Module, ABC):
    """One way to adapt a foundation model to few labeled volumes.

    Args:
        foundation: the pretrained model; the strategy freezes and extends it as it needs.
        channels: K, number of classes with the background.
        stitching: how volumes become canvases.
        options: the validated options of this strategy.
    """

    class Options(Settings):
        """Settings of the strategy's own."""

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    uses_unlabeled: ClassVar[bool] = False

    def __init__(
        self,
        foundation: FoundationModel,
        channels: int,
        stitching: StitchingSettings,
        options: Options,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.stitching = stitching
        self.options = options

    @abstractmethod
    def step(
        self, labeled: Sequence[Sample], unlabeled: Sequence[Sample], progress: Progress
    ) -> dict[str, Tensor]:
        """Loss terms by name, already weighted; the loop minimizes their sum."""

    def after_step(self, progress: Progress) -> None:
        """Called after the optimizer's step, for moving averages and the like."""

    @abstractmethod
    def predict(self, image: Tensor, settings: PseudoLabelSettings) -> Prediction:
        """Probabilities of one whole preprocessed volume of shape (X, Y, Z), on its own grid."""
