"""What a semi-supervised method is: stage 3 as one small interface.

A method never sees where pseudo-labels come from. It returns its own loss terms and the student's
logits on the unlabeled crops; ``retraining/pseudo_label_term.py`` adds the pseudo-label term to
any method (weight 0 is the plain method, on everywhere is SFR, where unsure is SFR+).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from SAMSemiSegLib.registry import Registry
from SAMSemiSegLib.run.settings import Settings, Size3
from SAMSemiSegLib.training.losses import IGNORE
from SAMSemiSegLib.training.progress import Progress

METHODS: Registry[type[SSLMethod]] = Registry(
    "semi-supervised method", "SAMSemiSegLib.retraining.ssl"
)

Head = Literal["deep", "distance"]


@dataclass(frozen=True)
class Needs:
    """What a method asks of the network, the batch and the patch."""

    heads: frozenset[Head] = frozenset()
    networks: int = 1
    split_encoder: bool = False
    labeled_batch: int = 1
    unlabeled_batch: int = 1
    pairs: bool = False
    """Crops are taken two by two, labeled with unlabeled: both batches are even and of one size."""
    divisor: int = 16
    """Every side of the patch is a multiple of this."""
    norms: frozenset[str] = frozenset({"batch", "instance", "group"})
    pseudo_labels: bool = False
    """Stored pseudo-labels take part in the method's own terms."""
    dropout: bool = False
    """Several passes of one network must differ by more than the noise of their input."""


@dataclass(frozen=True)
class LabeledBatch:
    """Crops of labeled volumes: image (B, 1, X, Y, Z), labels (B, X, Y, Z) with 255 = ignore."""

    image: Tensor
    labels: Tensor

    @property
    def valid(self) -> Tensor:
        """(B, X, Y, Z) bool: where there is a label."""
        return self.labels != IGNORE


@dataclass(frozen=True)
class UnlabeledBatch:
    """Crops of unlabeled volumes and their pseudo-labels.

    Attributes:
        image: (B, 1, X, Y, Z).
        pseudo_hard: (B, X, Y, Z) channel indices with 255 = none, or None when there are none.
        pseudo_soft: (B, K, X, Y, Z) probabilities, or None.
        confidence: (B, X, Y, Z) in 0..1, or None.
        selected: (B,) bool; whether the pseudo-label term is on for the volume (SFR+).
        inside: (B, X, Y, Z) bool; False where the crop reaches beyond its volume. None: nowhere.
    """

    image: Tensor
    pseudo_hard: Tensor | None = None
    pseudo_soft: Tensor | None = None
    confidence: Tensor | None = None
    selected: Tensor | None = None
    inside: Tensor | None = None

    @property
    def valid(self) -> Tensor:
        """(B, X, Y, Z) bool: where there is something to agree on. What lies beyond a volume is
        made up by the augmentation, and no label ever says what it is."""
        if self.inside is not None:
            return self.inside
        return torch.ones_like(self.image[:, 0], dtype=torch.bool)


@dataclass
class StepResult:
    """What a step of a method gives.

    Attributes:
        losses: weighted, differentiable terms by name; ``supervised`` is always among them.
        unlabeled_logits: (B, K, X, Y, Z) of the student on ``unlabeled.image`` as it came (not
            mixed), or None: then the wrapper does one forward pass of ``final_net()`` itself.
    """

    losses: dict[str, Tensor]
    unlabeled_logits: Tensor | None = None
    values: dict[str, float] = field(default_factory=dict)
    """Figures to log that are no losses."""


class SSLMethod(nn.Module, ABC):
    """One semi-supervised method. Networks are sub-modules, so that ``state_dict`` holds all of
    its state; parameters of teachers have ``requires_grad`` off.

    Args:
        build_net: makes a freshly initialized V-Net with the heads the method needs.
        channels: K, number of classes with the background.
        options: the validated options of this method.
    """

    class Options(Settings):
        """Settings of the method's own."""

    title: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[Needs] = Needs()
    uses_unlabeled: ClassVar[bool] = True

    def __init__(self, build_net: Callable[[], nn.Module], channels: int, options: Options) -> None:
        super().__init__()
        self.channels = channels
        self.options = options
        self.warm = False
        """Whether the student began from a trained network."""

    @classmethod
    def needs_of(cls, options: Options) -> Needs:
        """What the method needs with these options; by default ``needs``."""
        return cls.needs

    def prepare(self, patch: Size3) -> None:
        """Called once after the networks are made, with the voxels of a crop along x, y, z: for
        parts that depend on it."""

    @abstractmethod
    def step(
        self, labeled: LabeledBatch, unlabeled: UnlabeledBatch | None, progress: Progress
    ) -> StepResult:
        """Loss terms of one training step; ``unlabeled`` is None where there are no such cases."""

    def after_step(self, progress: Progress) -> None:
        """Called after the optimizer's step: moving averages, statistics."""

    @abstractmethod
    def final_net(self) -> nn.Module:
        """The trained student: used for prediction and export."""

    def ema_net(self) -> nn.Module | None:
        """The moving average of the student, where the method keeps one."""
        return None

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Copy a trained network's weights into the student and its moving average. Heads that it
        lacks, and a second student, which is there to differ, keep their random start; so do
        running averages of batch norm, which a network that normalizes by window has none of."""
        self.warm = True
        for net in (self.final_net(), self.ema_net()):
            if net is not None:
                net.load_state_dict(weights, strict=False)
