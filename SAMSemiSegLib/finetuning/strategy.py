"""What a fine-tuning strategy is: stage 2 as one small interface.

A strategy is an ``nn.Module`` around a foundation model. The training loop asks it for loss terms,
the pseudo-label stage for probabilities of whole volumes; how it sees a volume (one stitched
canvas, slices, a sequence) is its own affair.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.finetuning.adapters.freeze import hold_frozen_norms
from SAMSemiSegLib.foundation.model import FoundationModel
from SAMSemiSegLib.registry import Registry
from SAMSemiSegLib.run.settings import PseudoLabelSettings, Settings, StitchingSettings
from SAMSemiSegLib.training.losses import IGNORE
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
        variant: number of its augmentation, where the strategy has a fixed number of them: the
            same id and variant is the same volume, voxel by voxel.
        seed: of what a strategy draws for this variant.
        outside: (X, Y, Z) bool of an unlabeled volume, where augmentation has moved in what was not
            there; None: nowhere.
    """

    id: str
    image: Tensor
    labels: Tensor | None = None
    variant: int | None = None
    outside: Tensor | None = None
    seed: int = 0

    @property
    def nothing(self) -> Tensor:
        """(X, Y, Z) labels of an unlabeled volume: 0, and 255 outside of it."""
        empty = torch.zeros_like(self.image, dtype=torch.uint8)
        return empty if self.outside is None else empty.masked_fill(self.outside, IGNORE)


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

    Attributes:
        mirror_axes: axes along which the anatomy may be mirrored (the augmentation's
            ``flip_axes``); whoever builds the strategy sets them.
        typical_shape: voxels along x, y, z of the volumes that are learned from; set by the
            fine-tuning stage.
        window: voxels along x, y, z of the crops it is trained on; None: whole volumes.
        variants: number of augmentations over the training of all labeled volumes together, and
            of the unlabeled, at least one of each; None: a new one in every step.
        guide: from a volume (X, Y, Z) to the probabilities (K, X, Y, Z) of the V-Net trained so
            far, for strategies that are ``guided`` and for ``pseudolabels.vnet_share``; whoever
            builds the strategy sets it.
        whole: channels that are in one piece in every labeled volume; set likewise.
    """

    mirror_axes: tuple[int, ...] = ()
    typical_shape: tuple[int, int, int] | None = None
    window: tuple[int, int, int] | None = None
    variants: int | None = None
    guide: Callable[[Tensor], Tensor] | None = None
    whole: Sequence[int] = ()

    class Options(Settings):
        """Settings of the strategy's own."""

    title: ClassVar[str]
    source: ClassVar[str]
    uses_unlabeled: ClassVar[bool] = False
    guided: ClassVar[bool] = False
    advice: ClassVar[str] = (
        "lower stitching.max_pixels or preprocessing.scale, or set "
        "finetuning.gradient_checkpointing=true."
    )
    """What to do where memory does not suffice."""

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

    @property
    def period(self) -> int:
        """Every so many steps one is costlier than the others (see ``Task``)."""
        return 1

    @abstractmethod
    def step(
        self, labeled: Sequence[Sample], unlabeled: Sequence[Sample], progress: Progress
    ) -> dict[str, Tensor]:
        """Loss terms by name, already weighted; the loop minimizes their sum."""

    def train(self, mode: bool = True) -> FinetuningStrategy:
        """As ``nn.Module.train``; batch norms with frozen parameters keep their statistics."""
        super().train(mode)
        hold_frozen_norms(self)
        return self

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """``state_dict`` without what came from the foundation model's file and is not trained.

        One that keeps a second foundation model overrides this.
        """
        skipped = self._pretrained_names()
        return {k: v for k, v in self.state_dict().items() if k not in skipped}

    def load_trainable_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load what :meth:`trainable_state_dict` gave.

        Raises:
            InputError: the entries are those of another strategy, option or foundation model.
        """
        expected = self.trainable_state_dict()
        wrong = [k for k, v in expected.items() if k not in state or state[k].shape != v.shape]
        wrong += [k for k in state if k not in expected]
        if wrong:
            raise InputError(
                f"The fine-tuned weights do not fit the settings ({len(wrong)} tensors differ, the "
                f"first is '{wrong[0]}'); use the finetuning and foundation settings of the run "
                "that made them, or start a new run."
            )
        self.load_state_dict(state, strict=False)

    def _pretrained_names(self) -> set[str]:
        """Names in ``state_dict`` of the foundation models' frozen parameters and statistics."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        names: set[str] = set()
        for prefix, module in self.named_modules():
            if isinstance(module, FoundationModel):
                names.update(f"{prefix}.{name}" for name in module.state_dict())
        return names - trained

    def use_scratch(self, folder: Path | None) -> None:
        """Training may keep files in this folder that can be made again; None: it goes away now."""

    def take_each_sample(self) -> None:
        """From now on a step learns from the samples that it is given, never from remembered ones:
        for SFR+ online, where each is new."""

    @abstractmethod
    def predict(self, image: Tensor, settings: PseudoLabelSettings) -> Prediction:
        """Probabilities of one whole preprocessed volume of shape (X, Y, Z), on its own grid."""
