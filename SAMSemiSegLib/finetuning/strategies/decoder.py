"""Train the mask decoder alone; the encoder stays as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from SAMSemiSegLib.finetuning.replay import Replay
from SAMSemiSegLib.finetuning.stitched import StitchedOptions, StitchedStrategy
from SAMSemiSegLib.finetuning.strategy import STRATEGIES, Sample
from SAMSemiSegLib.foundation.model import FoundationModel
from SAMSemiSegLib.run.settings import Positive, StitchingSettings
from SAMSemiSegLib.training.progress import Progress


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
        self._replay = Replay()

    def adapt_encoder(self, foundation: FoundationModel) -> None:
        """Leaves it frozen."""

    @property
    def period(self) -> int:
        """One step in ``replay`` passes through the encoder."""
        return self.options.replay

    def sample_loss(self, sample: Sample, progress: Progress) -> Tensor:
        """The loss on this volume, or on a canvas seen before."""
        if progress.step % self.options.replay == 0 or not len(self._replay):
            canvas, target, factor = self.draw_canvas(sample)
            with torch.no_grad():
                embedding = self.encode(canvas, factor).half()
            seen = self._replay.add({"embedding": embedding, "target": target})
        else:
            seen = self._replay.draw()
        target = seen["target"]
        size = (target.shape[-2], target.shape[-1])
        return self.loss(self.sam.decode(seen["embedding"].float(), size), target)

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Also the remembered embeddings, so that a resumed run draws from the same."""
        return super().trainable_state_dict() | self._replay.state()

    def load_trainable_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load what :meth:`trainable_state_dict` gave."""
        device = next(self.parameters()).device
        rest = self._replay.load(state, device)
        kept, self._replay = self._replay, Replay()
        super().load_trainable_state_dict(rest)
        self._replay = kept
