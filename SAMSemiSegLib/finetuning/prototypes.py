"""Prototypes: what a class looks like in the encoder's features of the labeled images.

Source: the prototype-guided region of CPAC-SAM (Medical Image Analysis 110:103973, 2026): the mean
of the L2-normalized features of each class in each labeled image; an unlabeled pixel has the class
of the prototype with the largest cosine. Published are features enlarged to the image's size; here
labels shrink and similarities grow, which is the same but for rounding at borders and needs a
hundredth of the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from SAMSemiSegLib.training.losses import IGNORE

UNSEEN = -2.0
"""Similarity to a class without prototypes: below any cosine."""


@dataclass(frozen=True)
class Prototypes:
    """Unit vectors with their classes.

    Attributes:
        vectors: (P, D).
        classes: (P,) channel indices.
    """

    vectors: Tensor
    classes: Tensor

    @staticmethod
    def join(parts: Sequence[Prototypes]) -> Prototypes:
        """All prototypes of several."""
        return Prototypes(
            torch.cat([part.vectors for part in parts]), torch.cat([part.classes for part in parts])
        )


@torch.no_grad()
def class_prototypes(features: Tensor, labels: Tensor, channels: int) -> Prototypes:
    """One prototype for each image and class it shows.

    Args:
        features: (B, D, h, w).
        labels: (B, H, W) channel indices, 255 = ignore.
        channels: K.
    """
    unit = F.normalize(features.float(), dim=1)
    size = (unit.shape[-2], unit.shape[-1])
    vectors, classes = [], []
    for k in range(channels):
        mask = (labels == k).float().unsqueeze(1)
        weight = F.adaptive_avg_pool2d(mask, size)
        total = (unit * weight).sum((2, 3))
        seen = weight.sum((1, 2, 3)) > 0
        vectors.append(F.normalize(total[seen], dim=1))
        classes.append(torch.full((int(seen.sum()),), k, device=labels.device))
    return Prototypes(torch.cat(vectors), torch.cat(classes))


@torch.no_grad()
def class_similarity(
    features: Tensor, prototypes: Prototypes, channels: int, size: tuple[int, int]
) -> Tensor:
    """(B, K, *size) cosine to each class' most similar prototype; -2 for a class that has none."""
    unit = F.normalize(features.float(), dim=1)
    by_class = []
    # In half precision cosines near 1 would tie, and ties are the background's.
    with torch.autocast(unit.device.type, enabled=False):
        for k in range(channels):
            own = prototypes.vectors[prototypes.classes == k].float()
            if len(own):
                by_class.append(torch.einsum("bdhw,pd->bphw", unit, own).amax(1))
            else:
                by_class.append(torch.full_like(unit[:, 0], UNSEEN))
    similarity = torch.stack(by_class, 1)
    return F.interpolate(similarity, size, mode="bilinear", align_corners=False)


def one_hot_regions(labels: Tensor, channels: int) -> Tensor:
    """(B, K, H, W) bool from labels (B, H, W); ignored pixels are in no region."""
    return torch.stack([(labels == k) & (labels != IGNORE) for k in range(channels)], 1)
