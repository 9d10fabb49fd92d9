"""Canvases that a frozen encoder has seen, kept for many steps.

Encoding is most of the work of a step; where the encoder never changes, an augmented canvas needs
it once.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from SAMSemiSegLib.finetuning.strategy import FinetuningStrategy, Sample
from SAMSemiSegLib.foundation.model import FoundationModel
from SAMSemiSegLib.run.settings import Positive, StitchingSettings
from SAMSemiSegLib.training.progress import Progress

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
        self._entries = [entries[number] for number in sorted(entries, key=int)]
        return rest


class ReplayOptions(FinetuningStrategy.Options):
    """Settings of strategies with a frozen encoder."""

    replay: Positive = 4
    """A new augmented canvas is encoded every so many steps; between them, remembered ones are
    drawn. 1: a new one in every step."""


class ReplayStrategy(FinetuningStrategy):
    """Base, beside one that encodes canvases, of the strategies that leave the encoder frozen."""

    options: ReplayOptions

    def __init__(
        self,
        foundation: FoundationModel,
        channels: int,
        stitching: StitchingSettings,
        options: FinetuningStrategy.Options,
    ) -> None:
        super().__init__(foundation, channels, stitching, options)
        self._replay = Replay()
        self._remembers = True

    @abstractmethod
    def encoded(self, sample: Sample) -> Entry:
        """What is kept of a labeled volume: embedding, labels, and whatever else a step wants."""

    def seen(self, sample: Sample, progress: Progress) -> Entry:
        """This volume, encoded now; or, in most steps, one seen before."""
        if self._remembers and progress.step % self.options.replay and len(self._replay):
            return self._replay.draw()
        with torch.no_grad():
            entry = self.encoded(sample)
        return self._replay.add(entry) if self._remembers else entry

    def take_each_sample(self) -> None:
        """Forgets what it has seen, and keeps nothing more."""
        self._remembers = False
        self._replay = Replay()

    @property
    def period(self) -> int:
        """One step in ``replay`` passes through the encoder."""
        return self.options.replay

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Also the remembered embeddings, so that a resumed run draws from the same."""
        return super().trainable_state_dict() | self._replay.state()

    def load_trainable_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load what :meth:`trainable_state_dict` gave."""
        rest = self._replay.load(state, next(self.parameters()).device)
        kept, self._replay = self._replay, Replay()
        super().load_trainable_state_dict(rest)
        self._replay = kept


def _bytes(entry: Entry) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in entry.values())
