"""CCT: decoders that see disturbed features agree with the one that sees them clean.

Source: Ouali et al., Semi-supervised semantic segmentation with cross-consistency training, CVPR
2020; with the three disturbances of SSL4MIS, which has it in 2D only: noise x + x·U(-0.3, 0.3),
dropout of whole channels, and dropping what is most active. L_sup is the mean over the four
decoders; on unlabeled crops L_u = mean_i MSE(p_main, p_i), λ = 0.1·ramp. As in the paper no
gradient flows into p_main; SSL4MIS lets it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from SAMSemiSegLib.retraining.consistency import mean_square_where
from SAMSemiSegLib.retraining.ramp import RampOptions, ramped_weight, supervised_step
from SAMSemiSegLib.retraining.ssl.method import (
    METHODS,
    LabeledBatch,
    Needs,
    SSLMethod,
    StepResult,
    UnlabeledBatch,
)
from SAMSemiSegLib.retraining.vnet import VNet
from SAMSemiSegLib.run.settings import Fraction
from SAMSemiSegLib.training.losses import segmentation_loss
from SAMSemiSegLib.training.progress import Progress


@METHODS.register("cct")
class CrossConsistencyTraining(SSLMethod):
    """One encoder, a main decoder and three that see disturbed features in training."""

    class Options(RampOptions):
        """Settings of the method's own."""

        noise: Fraction = 0.3
        """Largest relative noise on the features."""
        dropout: Fraction = 0.3
        """Share of the channels that the second decoder does not see."""

    title = "CCT"
    source = "Ouali et al., CVPR 2020"
    needs = Needs(split_encoder=True)

    options: Options
    student: VNet

    def __init__(self, build_net: Callable[[], nn.Module], channels: int, options: Options) -> None:
        super().__init__(build_net, channels, options)
        self.student = build_net()  # type: ignore[assignment]
        self.auxiliary = nn.ModuleList(_AuxiliaryDecoder(build_net()) for _ in range(3))

    def step(
        self, labeled: LabeledBatch, unlabeled: UnlabeledBatch | None, progress: Progress
    ) -> StepResult:
        weight = ramped_weight(self.options, progress.fraction)
        if unlabeled is None or weight == 0:
            return supervised_step(self.student, labeled)
        known = self._decode(labeled.image)
        main, *others = self._decode(unlabeled.image)
        terms = [segmentation_loss(logits, labeled.labels) for logits in known]
        target = main.detach().float().softmax(1)
        agreement = [
            mean_square_where(o.float().softmax(1), target, unlabeled.valid) for o in others
        ]
        losses = {
            "supervised": torch.stack(terms).mean(),
            "consistency": weight * torch.stack(agreement).mean(),
        }
        return StepResult(losses, main, {"consistency_weight": weight})

    def _decode(self, images: Tensor) -> list[Tensor]:
        """Logits of the main decoder and of the three others."""
        features = self.student.encode(images)
        disturbances = (
            lambda x: feature_noise(x, self.options.noise),
            lambda x: F.dropout3d(x, self.options.dropout),
            drop_most_active,
        )
        others = [
            decoder([disturb(x) for x in features])
            for decoder, disturb in zip(self.auxiliary, disturbances, strict=True)
        ]
        return [self.student.decode(features).logits, *others]

    def final_net(self) -> nn.Module:
        return self.student

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """All four decoders begin alike: what they see tells them apart."""
        super().begin_from(weights)
        for decoder in self.auxiliary:
            decoder.load_state_dict(weights, strict=False)


class _AuxiliaryDecoder(nn.Module):
    """The decoder and the head of a network whose encoder is not wanted."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        assert isinstance(net, VNet)
        self.decoder, self.head = net.decoder, net.head

    def forward(self, features: list[Tensor]) -> Tensor:
        logits: Tensor = self.head(self.decoder(features)[0])
        return logits


def feature_noise(x: Tensor, limit: float) -> Tensor:
    """x + x·U(-limit, limit), the same noise for the whole batch."""
    noise = torch.empty_like(x[:1]).uniform_(-limit, limit)
    return x + x * noise


def drop_most_active(x: Tensor) -> Tensor:
    """Set to 0 where the mean over the channels is above U(0.7, 0.9) of its maximum."""
    attention = x.detach().mean(1, keepdim=True)
    largest = attention.amax((2, 3, 4), keepdim=True)
    threshold = largest * torch.empty(1, device=x.device).uniform_(0.7, 0.9)
    return x * (attention < threshold)
