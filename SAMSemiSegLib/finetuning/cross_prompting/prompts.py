"""Point prompts that name a class: the place is SAM's, the class has an embedding of its own.

Source: CPC-SAM (MICCAI 2024), CPAC-SAM (Medical Image Analysis 110:103973, 2026).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from SAMSemiSegLib.foundation.semantic import TOKEN_NOISE


@dataclass(frozen=True)
class Points:
    """The points of one canvas.

    Attributes:
        places: (N, 2) rows and columns in pixels.
        classes: (N,) channel indices; the background's are SAM's negative points.
    """

    places: Tensor
    classes: Tensor

    @staticmethod
    def of(by_class: Sequence[Tensor]) -> Points:
        """From the places (N_k, 2) of each class."""
        classes = [torch.full((len(p),), k, device=p.device) for k, p in enumerate(by_class)]
        return Points(torch.cat(list(by_class)), torch.cat(classes))


@dataclass(frozen=True)
class Prompts:
    """Embedded points of several canvases, of which some have fewer than others.

    Attributes:
        tokens: (B, N, 256); 0 where a canvas has no further point.
        present: (B, N) bool, whether there is a point.
    """

    tokens: Tensor
    present: Tensor


class ClassPoints(nn.Module):
    """Embeddings of classes, starting from SAM's: the background from the negative point, every
    other class from the positive one (with noise, so that classes can part).

    Args:
        prompt_encoder: SAM's.
        channels: K, classes with the background.
    """

    def __init__(self, prompt_encoder: nn.Module, channels: int) -> None:
        super().__init__()
        negative, positive = (
            prompt_encoder.point_embeddings[i].weight.detach()  # type: ignore[index,union-attr]
            for i in (0, 1)
        )
        table = torch.cat([negative, positive.expand(channels - 1, -1)])
        self.table = nn.Embedding.from_pretrained(
            table + TOKEN_NOISE * table.std() * torch.randn_like(table), freeze=False
        )

    def forward(
        self, points: Sequence[Points], size: tuple[int, int], prompt_encoder: nn.Module
    ) -> Prompts | None:
        """The prompts of B canvases; None where no canvas has a point.

        Args:
            points: of each canvas.
            size: height and width of the canvases in pixels.
            prompt_encoder: SAM's; it says how a place is encoded.

        Raises:
            ValueError: a point outside the canvas.
        """
        longest = max(len(p.places) for p in points)
        if longest == 0:
            return None
        tokens, counts = [], []
        for canvas in points:
            places = canvas.places
            limits = torch.tensor(size, device=places.device)
            if bool(((places < 0) | (places >= limits)).any()):
                raise ValueError(f"a prompt lies outside its canvas of {size} pixels")
            columns_rows = (places.flip(1) + 0.5).float()
            encoded: Tensor = prompt_encoder.pe_layer.forward_with_coords(  # type: ignore
                columns_rows[None], size
            )[0]
            token = encoded + self.table(canvas.classes)
            tokens.append(F.pad(token, (0, 0, 0, longest - len(token))))
            counts.append(len(token))
        order = torch.arange(longest, device=tokens[0].device)
        present = order < torch.tensor(counts, device=order.device)[:, None]
        return Prompts(torch.stack(tokens), present)
