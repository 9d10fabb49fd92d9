"""The weight of a method's unlabeled term over the run, and what is left when it is 0."""

from __future__ import annotations

from torch import nn

from SAMSemiSegLib.retraining.ssl.method import LabeledBatch, SSLMethod, StepResult
from SAMSemiSegLib.run.settings import Fraction, NotNegative
from SAMSemiSegLib.training.losses import segmentation_loss
from SAMSemiSegLib.training.progress import sigmoid_ramp


class RampOptions(SSLMethod.Options):
    """Settings of all methods that weigh an unlabeled term; shares are of the run, or of what a
    teacher's warm start leaves of it."""

    consistency_weight: NotNegative = 0.1
    """λ0, weight of the unlabeled term when its ramp is over; 0 leaves supervised training."""
    ramp: Fraction = 1.0
    """Share of the run over which the weight rises, λ0·exp(-5(1-t)²)."""


def ramped_weight(options: RampOptions, fraction: float) -> float:
    """λ at this share of the run."""
    if options.consistency_weight == 0:
        return 0.0
    return options.consistency_weight * sigmoid_ramp(fraction, options.ramp)


def supervised_step(net: nn.Module, labeled: LabeledBatch) -> StepResult:
    """The step of any method whose other terms have no weight (yet), or without unlabeled crops."""
    return StepResult({"supervised": segmentation_loss(net(labeled.image), labeled.labels)})
