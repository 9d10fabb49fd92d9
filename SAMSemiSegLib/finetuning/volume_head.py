"""A small 3D network that reads a canvas' embedding as a volume again."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from SAMSemiSegLib.stitching.layout import Layout
from SAMSemiSegLib.stitching.stitch import unstitch

GROUPS = 4
DILATIONS = (1, 2, 3, 1)


class VolumeHead(nn.Module):
    """Embedding, gray values and place of each voxel to class logits, by four 3x3x3 convolutions.

    The embedding of every slice is taken off the canvas and laid back where the slice was, so that
    neighboring slices meet as neighbors.

    Args:
        channels: K.
        width: feature channels of the 3D layers.
        features: channels that the embedding's 256 are reduced to.
        dropout: probability that one of these is left out of a training step: with a few labeled
            volumes the embedding is rich enough to know them by heart.
        coordinates: whether the place in the volume is an input.
    """

    def __init__(
        self, channels: int, width: int, features: int, dropout: float, coordinates: bool
    ) -> None:
        super().__init__()
        self.coordinates = coordinates
        self.reduce = nn.Sequential(
            nn.Conv2d(256, features, 1),
            nn.GroupNorm(GROUPS, features),
            nn.GELU(),
            nn.Dropout2d(dropout),
        )
        layers: list[nn.Module] = []
        inputs = features + 1 + 3 * coordinates
        for dilation in DILATIONS:
            layers += [
                nn.Conv3d(inputs, width, 3, padding=dilation, dilation=dilation, bias=False),
                nn.GroupNorm(GROUPS, width),
                nn.GELU(),
            ]
            inputs = width
        layers.append(nn.Conv3d(width, channels, 1))
        self.layers = nn.Sequential(*layers)
        # On processors 3D convolutions are faster in this layout.
        self.layers.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(
        self, embedding: Tensor, image: Tensor, layout: Layout, part: tuple[float, float]
    ) -> Tensor:
        """Logits (1, K, X, Y, Z).

        Args:
            embedding: (1, 256, h, w) of the canvas.
            image: (X, Y, Z) gray values of the slab on it.
            layout: of the canvas.
            part: where the slab begins and ends along the axis, as shares of the whole volume.
        """
        features = F.interpolate(
            self.reduce(embedding), (layout.height, layout.width), mode="bilinear"
        )
        inputs = [unstitch(features, layout), image[None, None]]
        if self.coordinates:
            inputs.append(_places(image, layout.axis, part)[None])
        volume = torch.cat(inputs, 1).contiguous(memory_format=torch.channels_last_3d)
        logits: Tensor = self.layers(volume)
        return logits


def _places(image: Tensor, axis: int, part: tuple[float, float]) -> Tensor:
    """(3, X, Y, Z): x, y and z of each voxel, from -1 to 1 over the whole volume."""
    ranges = [(0.0, 1.0)] * 3
    ranges[axis] = part
    lines = [
        torch.linspace(2 * begin - 1, 2 * end - 1, size, device=image.device, dtype=image.dtype)
        for size, (begin, end) in zip(image.shape, ranges, strict=True)
    ]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"))
