"""Slices that inform their neighbors: a light, local stand-in for memory attention.

The published temporal propagation module of ECT-3DMedSAM (MIDL 2026) is not described in what is
openly available. This is our own: along the slices and back, each pixel's features are mixed with
those of the same place in the slices before, by a gate that sees both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Sweep(nn.Module):
    """One direction: m ← x + a(x, m - x)·(m - x) over the last ``reach`` slices, 0 < a < 1.

    Where neighbors are equal, m - x = 0 and nothing changes. What a slice says reaches ``reach``
    slices and no farther, so that a window with that many further slices on both sides gives what
    the whole sequence would. All slices are computed at once.

    Args:
        channels: of the features.
        hidden: of the gate.
        reach: slices that are looked back.
    """

    def __init__(self, channels: int, hidden: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.look = nn.Conv2d(channels, hidden, 1)
        self.compare = nn.Conv2d(channels, hidden, 1, bias=False)
        self.up = nn.Conv2d(hidden, channels, 1)
        # Nearly closed: training starts near the model's own features.
        nn.init.normal_(self.up.weight, std=0.01)
        assert self.up.bias is not None
        nn.init.constant_(self.up.bias, -1.0)

    def forward(self, sequence: Tensor) -> Tensor:
        """(S, C, h, w) to the same shape; the first slice stands for those before it."""
        places = torch.arange(len(sequence), device=sequence.device)
        memory = sequence[(places - self.reach).clamp_min(0)]
        for back in reversed(range(self.reach)):
            now = sequence[(places - back).clamp_min(0)] if back else sequence
            change = memory - now
            gate = self.up(nn.functional.gelu(self.look(now) + self.compare(change)))
            memory = torch.addcmul(now, gate.sigmoid(), change)
        return memory


class Propagation(nn.Module):
    """Both directions, averaged.

    Args:
        channels, hidden, reach: see :class:`Sweep`.
    """

    def __init__(self, channels: int = 256, hidden: int = 16, reach: int = 3) -> None:
        super().__init__()
        self.reach = reach
        self.up = Sweep(channels, hidden, reach)
        self.down = Sweep(channels, hidden, reach)

    def forward(self, sequence: Tensor) -> Tensor:
        """Embeddings (S, C, h, w) of consecutive slices to the same shape."""
        result: Tensor = (self.up(sequence) + self.down(sequence.flip(0)).flip(0)) / 2
        return result
