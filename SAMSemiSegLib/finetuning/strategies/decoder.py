"""Train the mask decoder alone; the encoder stays as it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from SAMSemiSegLib.finetuning.stitched import StitchedOptions, StitchedStrategy
from SAMSemiSegLib.finetuning.strategy import STRATEGIES, Sample
from SAMSemiSegLib.foundation.model import FoundationModel
from SAMSemiSegLib.run.settings import Positive, StitchingSettings
from SAMSemiSegLib.training.progress import Progress

KEPT = 40
"""Embeddings that are remembered at most, about 2 MB each; the oldest makes room."""


@dataclass(frozen=True)
class Encoded:
    """A canvas that the frozen encoder has seen: embedding (1, 256, h, w) in half precision and
    labels (1, H, W)."""

    embedding: Tensor
    target: Tensor


@STRATEGIES.register("decoder")
class DecoderStrategy(StitchedStrategy):
    """The least memory and time a step: since the encoder never changes, an augmented canvas it
    has seen once serves many steps. On two processor cores such a step of LiteMedSAM takes a
    tenth of one that passes through the encoder."""

    name = "decoder"
    title = "Decoder only (stitched)"
    source = "Kirillov et al., Segment Anything, ICCV 2023; stitching: SFR, arXiv 2403.11229"

    class Options(StitchedOptions):
        """Settings of the strategy's own."""

        replay: Positive = 4
        """A new augmented canvas is encoded every so many steps; between them, remembered ones are
        drawn. 1: a new one in every step."""

    options: Options

    def __init__(
        self,
        foundation: FoundationModel,
        channels: int,
        stitching: StitchingSettings,
        options: Options,
    ) -> None:
        super().__init__(foundation, channels, stitching, options)
        self._seen: list[Encoded] = []

    def adapt_encoder(self, foundation: FoundationModel) -> None:
        """Leaves it frozen."""

    def sample_loss(self, sample: Sample, progress: Progress) -> Tensor:
        """The loss on this volume, or on a canvas seen before."""
        if progress.step % self.options.replay == 0 or not self._seen:
            canvas, target, factor = self.draw_canvas(sample)
            with torch.no_grad():
                embedding = self.encode(canvas, factor).half()
            self._seen = [*self._seen[-KEPT + 1 :], Encoded(embedding, target)]
            encoded = self._seen[-1]
        else:
            encoded = self._seen[int(torch.randint(len(self._seen), ()).item())]
        target = encoded.target
        size = (target.shape[-2], target.shape[-1])
        return self.loss(self.sam.decode(encoded.embedding.float(), size), target)

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Also the remembered embeddings, so that a resumed run draws from the same."""
        state = super().trainable_state_dict()
        for i, encoded in enumerate(self._seen):
            state[f"seen.{i:03}.embedding"] = encoded.embedding
            state[f"seen.{i:03}.target"] = encoded.target
        return state

    def load_trainable_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load what :meth:`trainable_state_dict` gave."""
        device = next(self.parameters()).device
        seen = sorted({key.rsplit(".", 1)[0] for key in state if key.startswith("seen.")})
        self._seen = []
        super().load_trainable_state_dict(
            {key: value for key, value in state.items() if not key.startswith("seen.")}
        )
        self._seen = [
            Encoded(state[f"{key}.embedding"].to(device), state[f"{key}.target"].to(device))
            for key in seen
        ]
