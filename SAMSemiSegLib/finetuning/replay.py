"""Canvases that a frozen encoder has seen, kept for many steps.

Encoding is most of the work of a step; where the encoder never changes, an augmented canvas needs
it once.
"""

from __future__ import annotations

import torch
from torch import Tensor

MOST_BYTES = 256 * 2**20
"""What is kept at most; the oldest makes room. A canvas of 670 x 480 pixels takes 10 MB with
LiteMedSAM."""

Entry = dict[str, Tensor]


class Replay:
    """A bounded memory of encoded canvases, each a few tensors by name."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._entries: list[Entry] = []
        self._most_bytes = most_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> Entry:
        """Keep one more; at least the newest always stays."""
        self._entries.append(entry)
        while len(self._entries) > 1 and sum(map(_bytes, self._entries)) > self._most_bytes:
            del self._entries[0]
        return entry

    def draw(self) -> Entry:
        """One of those kept, by torch's global generator.

        Raises:
            IndexError: nothing is kept.
        """
        if not self._entries:
            raise IndexError("nothing has been encoded yet")
        return self._entries[int(torch.randint(len(self._entries), ()).item())]

    def state(self) -> dict[str, Tensor]:
        """All entries, for a checkpoint: a resumed run draws from the same."""
        return {
            f"seen.{i:03}.{name}": tensor
            for i, entry in enumerate(self._entries)
            for name, tensor in entry.items()
        }

    def load(self, state: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """Take the entries of :meth:`state` out of ``state``; the rest is returned."""
        entries: dict[str, Entry] = {}
        rest = {}
        for key, tensor in state.items():
            if key.startswith("seen."):
                _, number, name = key.split(".")
                entries.setdefault(number, {})[name] = tensor.to(device)
            else:
                rest[key] = tensor
        self._entries = [entries[number] for number in sorted(entries)]
        return rest


def _bytes(entry: Entry) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in entry.values())
