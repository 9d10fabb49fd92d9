"""The V-Net of the semi-supervised literature.

Source: Milletari et al., V-Net (3DV 2016), in the form that UA-MT (Yu et al., MICCAI 2019) handed
down to the papers compared with here: 3x3x3 convolutions, stages of 1, 2, 3, 3, 3 of them on the
way down and 3, 3, 2, 1 on the way up, strided 2x2x2 convolutions between, skips that are added.
Base width 16 gives about 9.45 million parameters.

There is one network; methods that need more than logits ask for heads by name and call
``forward_heads``.
"""

# No "from __future__ import annotations" here: TorchScript reads the annotations of forward().
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from SAMSemiSegLib.retraining.ssl.method import Head
from SAMSemiSegLib.run.settings import NetSettings, Norm


@dataclass(frozen=True)
class Output:
    """What the decoder gives.

    Attributes:
        logits: (B, K, X, Y, Z).
        embedding: (B, width, X, Y, Z), the features that the logits are a 1x1x1 convolution of.
        deep: (B, K, X, Y, Z) each, logits from the decoder's stages at 1/2, 1/4 and 1/8 of the
            resolution, enlarged; empty without the head ``deep``.
        distance: (B, C, X, Y, Z) in -1..1, signed distance of each foreground class (negative
            inside); None without the head ``distance``.
    """

    logits: Tensor
    embedding: Tensor
    deep: list[Tensor] = field(default_factory=list)
    distance: Tensor | None = None


def _norm(kind: str, channels: int) -> nn.Module:
    """Normalization layer. Groups of equal size, eight at most."""
    if kind == "batch":
        return nn.BatchNorm3d(channels)
    if kind == "instance":
        return nn.InstanceNorm3d(channels, affine=True)
    groups = next(g for g in (8, 4, 2, 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


class Convolution(nn.Conv3d):
    """3x3x3 convolution that keeps the size.

    On processors with bf16 matrix units, oneDNN 3.12 (torch 2.13) computes the weights' gradient in
    bf16 from memory it has not written when the input is two voxels deep along x: garbage, at times
    NaN. That is the bottleneck of every patch of 32. Padding by hand gives the same result by a
    sound path.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.size(2) == 2:
            padded = F.pad(x, [0, 0, 0, 0, 1, 1])
            return F.conv3d(padded, self.weight, self.bias, padding=[0, 1, 1])
        return F.conv3d(x, self.weight, self.bias, padding=1)


def _stage(channels: int, convolutions: int, norm: str, inputs: int | None = None) -> nn.Sequential:
    """``convolutions`` times 3x3x3 convolution, normalization, ReLU."""
    layers: list[nn.Module] = []
    for i in range(convolutions):
        source = inputs if i == 0 and inputs is not None else channels
        layers += [
            Convolution(source, channels),
            _norm(norm, channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def _reduce(channels: int, norm: str) -> nn.Sequential:
    """Half the sides, twice the channels."""
    return nn.Sequential(
        nn.Conv3d(channels, 2 * channels, 2, stride=2),
        _norm(norm, 2 * channels),
        nn.ReLU(inplace=True),
    )


def _enlarge(channels: int, norm: str) -> nn.Sequential:
    """Twice the sides, half the channels."""
    return nn.Sequential(
        nn.ConvTranspose3d(channels, channels // 2, 2, stride=2),
        _norm(norm, channels // 2),
        nn.ReLU(inplace=True),
    )


class Encoder(nn.Module):
    """From an image (B, 1, X, Y, Z) to five feature maps, at 1, 1/2, 1/4, 1/8, 1/16 of the
    resolution with width·1, 2, 4, 8, 16 channels; dropout on the last."""

    def __init__(self, settings: NetSettings) -> None:
        super().__init__()
        w, norm = settings.width, settings.norm
        self.stage1 = _stage(w, 1, norm, inputs=1)
        self.reduce1 = _reduce(w, norm)
        self.stage2 = _stage(2 * w, 2, norm)
        self.reduce2 = _reduce(2 * w, norm)
        self.stage3 = _stage(4 * w, 3, norm)
        self.reduce3 = _reduce(4 * w, norm)
        self.stage4 = _stage(8 * w, 3, norm)
        self.reduce4 = _reduce(8 * w, norm)
        self.stage5 = _stage(16 * w, 3, norm)
        self.dropout = nn.Dropout3d(settings.dropout)

    def forward(self, x: Tensor) -> list[Tensor]:
        x1 = self.stage1(x)
        x2 = self.stage2(self.reduce1(x1))
        x3 = self.stage3(self.reduce2(x2))
        x4 = self.stage4(self.reduce3(x3))
        x5 = self.dropout(self.stage5(self.reduce4(x4)))
        return [x1, x2, x3, x4, x5]


class Decoder(nn.Module):
    """From the encoder's five feature maps to four, at 1, 1/2, 1/4, 1/8 of the resolution with
    width·1, 2, 4, 8 channels; dropout on the first."""

    def __init__(self, settings: NetSettings) -> None:
        super().__init__()
        w, norm = settings.width, settings.norm
        self.enlarge4 = _enlarge(16 * w, norm)
        self.stage4 = _stage(8 * w, 3, norm)
        self.enlarge3 = _enlarge(8 * w, norm)
        self.stage3 = _stage(4 * w, 3, norm)
        self.enlarge2 = _enlarge(4 * w, norm)
        self.stage2 = _stage(2 * w, 2, norm)
        self.enlarge1 = _enlarge(2 * w, norm)
        self.stage1 = _stage(w, 1, norm)
        self.dropout = nn.Dropout3d(settings.dropout)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        y4 = self.stage4(self.enlarge4(features[4]) + features[3])
        y3 = self.stage3(self.enlarge3(y4) + features[2])
        y2 = self.stage2(self.enlarge2(y3) + features[1])
        y1 = self.dropout(self.stage1(self.enlarge1(y2) + features[0]))
        return [y1, y2, y3, y4]


class VNet(nn.Module):
    """Image (B, 1, X, Y, Z) to logits (B, K, X, Y, Z); X, Y, Z are multiples of 16.

    Args:
        channels: K, number of classes with the background.
        settings: width, normalization, dropout.
        heads: extra outputs of ``forward_heads``.
    """

    def __init__(
        self, channels: int, settings: NetSettings | None = None, heads: Iterable[Head] = ()
    ) -> None:
        super().__init__()
        settings = settings or NetSettings()
        self.channels = channels
        self.settings = settings
        w = settings.width
        self.encoder = Encoder(settings)
        self.decoder = Decoder(settings)
        self.head = nn.Conv3d(w, channels, 1)
        heads = frozenset(heads)
        # The extra heads stay out of forward(): exported nets and plain predictions never see them.
        self.deep_heads = nn.ModuleList()
        if "deep" in heads:
            self.deep_heads.extend(nn.Conv3d(s * w, channels, 1) for s in (2, 4, 8))
        self.distance_head = nn.Conv3d(w, channels - 1, 1) if "distance" in heads else None

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.decoder(self.encoder(x))[0])

    def forward_heads(self, x: Tensor) -> Output:
        """All outputs for an image (B, 1, X, Y, Z)."""
        return self.decode(self.encode(x))

    def encode(self, x: Tensor) -> list[Tensor]:
        """Five feature maps, see :class:`Encoder`."""
        return self.encoder(x)

    def decode(self, features: list[Tensor]) -> Output:
        """All outputs from the encoder's feature maps."""
        stages = self.decoder(features)
        size = stages[0].shape[2:]
        deep = [
            F.interpolate(head(stage), size=size, mode="trilinear", align_corners=False)
            for head, stage in zip(self.deep_heads, stages[1:], strict=False)
        ]
        distance = None if self.distance_head is None else self.distance_head(stages[0]).tanh()
        return Output(self.head(stages[0]), stages[0], deep, distance)

    def plain(self, norm: Norm | None = None) -> "VNet":
        """A copy of the weights without the extra heads, for prediction and export.

        Args:
            norm: of the copy; ``instance`` makes of batch norm what it is in training on a batch
                of one window, without running averages. None: the same.
        """
        settings = self.settings.model_copy(update={"norm": norm or self.settings.norm})
        net = VNet(self.channels, settings)
        own = self.state_dict()
        net.load_state_dict({name: own[name] for name in net.state_dict()})
        return net.to(next(self.parameters()).device).train(self.training)
