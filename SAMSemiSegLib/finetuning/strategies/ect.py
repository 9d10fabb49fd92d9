"""ECT-3DMedSAM: frozen encoders, two decoders with LoRA that teach each other on slice sequences.

Source: ECT-3DMedSAM, MIDL 2026 (PMLR 315:2057-2070). Published in what is openly available: the
two decoders adapted by LoRA alone (0.94 M trained parameters), weak and strong augmentation of the
same volume, cross teaching, a light temporal propagation module in place of memory attention.
Reconstructed: the loss L = Σ_i ½(CE + Dice) on labeled slices + λ(t)·Σ_i ½(CE + Dice)(decoder i on
strong, classes of the other on weak), λ(t) = 0.1·exp(-5(1 - t)²); rank and place of LoRA; the
propagation; no prompts, but a new token for each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from SAMSemiSegLib.augmentation.augmentation import Augmentation
from SAMSemiSegLib.finetuning.adapters.decoder_lora import add_decoder_lora
from SAMSemiSegLib.finetuning.adapters.freeze import freeze
from SAMSemiSegLib.finetuning.agreement import prediction_of_two
from SAMSemiSegLib.finetuning.cross_teaching.embedding_cache import EmbeddingCache
from SAMSemiSegLib.finetuning.cross_teaching.propagation import Propagation
from SAMSemiSegLib.finetuning.slices import collect_slices, lay_out_slices
from SAMSemiSegLib.finetuning.stitched import StitchedOptions, StitchedStrategy
from SAMSemiSegLib.finetuning.strategy import STRATEGIES, Prediction, Sample
from SAMSemiSegLib.foundation.blocks import PROMPT_CHANNELS
from SAMSemiSegLib.foundation.model import FoundationModel
from SAMSemiSegLib.foundation.semantic import SemanticDecoder
from SAMSemiSegLib.run.settings import (
    AugmentationSettings,
    Fraction,
    NotNegative,
    Positive,
    StitchingSettings,
)
from SAMSemiSegLib.training.losses import IGNORE
from SAMSemiSegLib.training.progress import Progress, sigmoid_ramp
from SAMSemiSegLib.volumes.volume import shape_of

STRONG = AugmentationSettings(
    strength=1.5, gamma=1.0, brightness=0.8, blur=0.4, noise=1.0, bias_field=0.5, low_resolution=0.4
)
"""Gray values of the strong view, on top of the run's augmentation, which is the weak view."""


@STRATEGIES.register("ect")
class ECTStrategy(StitchedStrategy):
    """Sees a volume as a sequence of slices; the encoder never changes, so that each slice passes
    through it once for each augmentation."""

    title = "ECT-3DMedSAM: cross teaching on slice sequences"
    source = "ECT-3DMedSAM, MIDL 2026, PMLR 315:2057-2070 (largely reconstructed)"
    uses_unlabeled = True

    advice = "lower finetuning.options.window, stitching.max_pixels or preprocessing.scale."

    class Options(StitchedOptions):
        """Settings of the strategy's own."""

        rank: Positive = 16
        """Of LoRA on the decoders' linear layers."""
        window: Positive = 8
        """Consecutive slices of a volume in a step."""
        reach: Positive = 3
        """Slices over which the propagation carries."""
        variants: Positive = 24
        """Augmentations of all labeled volumes together, and of the unlabeled, at least one of
        each volume; each is encoded once, weakly and strongly altered."""
        cache_gigabytes: NotNegative = 4.0
        """Embeddings kept on the disk at most."""
        cross_weight: NotNegative = 0.1
        ramp: Fraction = 1.0
        """Share of the steps over which the cross teaching's weight rises."""

    options: Options

    def __init__(
        self,
        foundation: FoundationModel,
        channels: int,
        stitching: StitchingSettings,
        options: Options,
    ) -> None:
        super().__init__(foundation, channels, stitching, options)
        freeze(self)
        self.second = SemanticDecoder(foundation.mask_decoder, channels, options.tokens)
        for decoder in (self.sam.decoder, self.second):
            add_decoder_lora(decoder, options.rank)
        self.propagation = Propagation(PROMPT_CHANNELS, reach=options.reach)
        self.variants = options.variants
        self._strong = Augmentation(STRONG)
        self._cache: EmbeddingCache | None = None
        self._temporary: TemporaryDirectory[str] | None = None

    @property
    def single_slices(self) -> bool:
        """Always."""
        return True

    def adapt_encoder(self, foundation: FoundationModel) -> None:
        """Leaves it frozen."""

    def use_scratch(self, folder: Path | None) -> None:
        """Embeddings are kept there."""
        if self._cache is not None:
            self._cache.close()
        self._cache = None if folder is None else self._new_cache(folder)

    @property
    def cache(self) -> EmbeddingCache:
        """The embeddings of this training; without a folder of the run's, in a temporary one."""
        if self._cache is None:
            self._temporary = TemporaryDirectory(prefix="samsemiseg-")
            self._cache = self._new_cache(Path(self._temporary.name))
        return self._cache

    def _new_cache(self, folder: Path) -> EmbeddingCache:
        return EmbeddingCache(folder, int(self.options.cache_gigabytes * 2**30))

    def step(
        self, labeled: Sequence[Sample], unlabeled: Sequence[Sample], progress: Progress
    ) -> dict[str, Tensor]:
        """Decoder 1 learns from weak and decoder 2 from strong views of labeled slices; on
        unlabeled ones each learns on the strong view from the other's answer to the weak one."""
        if not labeled:
            raise ValueError("a step needs at least one labeled volume")
        losses = []
        for sample in labeled:
            target, views = self.draw_window(sample)
            losses += [
                self.loss(self.decode(i, view, target), target) for i, view in enumerate(views)
            ]
        terms = {"supervised": torch.stack(losses).sum() / len(labeled)}
        weight = self.options.cross_weight * sigmoid_ramp(progress.fraction, self.options.ramp)
        if weight > 0 and unlabeled:
            taught = [self.cross_teaching(*self.draw_window(sample)) for sample in unlabeled]
            terms["cross"] = weight * torch.stack(taught).mean()
        return terms

    def cross_teaching(self, target: Tensor, views: tuple[Tensor, Tensor]) -> Tensor:
        """Sum of both decoders' losses on an unlabeled window.

        Args:
            target: (S, H, W), 255 where there is nothing.
            views: weak and strong features (S, 256, h, w).
        """
        weak, strong = views
        losses = []
        for i in (0, 1):
            with torch.no_grad():
                classes = self.decode(1 - i, weak, target).argmax(1)
                classes = classes.masked_fill(target == IGNORE, IGNORE)
            losses.append(self.loss(self.decode(i, strong, target), classes))
        return torch.stack(losses).sum()

    def draw_window(self, sample: Sample) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Labels (S, H, W) of consecutive slices, 0 where unlabeled and 255 in blank places, and
        their weak and strong features (S, 256, h, w) after propagation."""
        axis = self.stitching.axis
        depth = sample.image.shape[axis]
        length = min(self.options.window, depth)
        start = int(torch.randint(depth - length + 1, ()).item())
        labels = sample.nothing if sample.labels is None else sample.labels
        layout, _ = self.slice_canvas(shape_of(sample.image), self.stitching)
        target = lay_out_slices(labels.narrow(axis, start, length), layout, IGNORE)
        wanted = range(start, start + length)
        weak, strong = (
            self.propagation(self._embeddings(sample, wanted, view)) for view in ("weak", "strong")
        )
        return target, (weak, strong)

    def decode(self, which: int, features: Tensor, like: Tensor) -> Tensor:
        """Logits (S, K, H, W) of decoder 0 or 1 at the size of ``like``."""
        decoder = self.second if which else self.sam.decoder
        logits: Tensor = decoder(features, *self.sam.foundation.context_of(features))
        return nn.functional.interpolate(
            logits, like.shape[-2:], mode="bilinear", align_corners=False
        )

    def _embeddings(self, sample: Sample, wanted: Sequence[int], view: str) -> Tensor:
        """(S, 256, h, w) of slices of the weak or the strong view, kept or computed."""

        def compute(missing: Sequence[int]) -> Tensor:
            image = sample.image
            if view == "strong":
                generator = np.random.default_rng(sample.seed)
                # A training step computes in half precision where it can; gray values must not.
                with torch.autocast("cpu", enabled=False):
                    image = self._strong.intensity(image.cpu(), generator).to(image.device)
            return self.encode_slices(image, self.stitching, missing)

        key = None if sample.variant is None else (sample.id, sample.variant, view)
        depth = sample.image.shape[self.stitching.axis]
        return self.cache.get(key, depth, wanted, compute).to(sample.image.device)

    @torch.no_grad()
    def encode_slices(
        self, image: Tensor, settings: StitchingSettings, wanted: Sequence[int]
    ) -> Tensor:
        """Embeddings (N, 256, h, w) of slices of a volume (X, Y, Z).

        One at a time: their numbers must not depend on which others happen to be missing.
        """
        layout, factor = self.slice_canvas(shape_of(image), settings)
        index = torch.tensor(list(wanted), device=image.device)
        slices = image.index_select(settings.axis, index)
        canvases = lay_out_slices(slices, layout, float(image.min()))
        return torch.cat([self.encode(canvas[None, None], factor) for canvas in canvases])

    def volume_maps(self, image: Tensor, settings: StitchingSettings, offset: int) -> Tensor:
        """Softmax of one decoder after the other, (2K, X, Y, Z), window by window.

        Each window is encoded with as many further slices as the propagation reaches, which gives
        what the whole sequence would; memory does not grow with the number of slices.
        """
        layout, _ = self.slice_canvas(shape_of(image), settings)
        depth, length, reach = image.shape[settings.axis], self.options.window, self.options.reach
        blank = image.new_empty((layout.height, layout.width))
        encoded: dict[int, Tensor] = {}
        parts = []
        for start in range(0, depth, length):
            stop = min(start + length, depth)
            around = range(max(start - reach, 0), min(stop + reach, depth))
            missing = [i for i in around if i not in encoded]
            if missing:
                fresh = self.encode_slices(image, settings, missing)
                encoded |= dict(zip(missing, fresh, strict=True))
            encoded = {i: encoded[i] for i in around}
            features = self.propagation(torch.stack(list(encoded.values())))
            features = features[start - around.start : stop - around.start]
            maps = [self.decode(i, features, blank).float().softmax(1) for i in (0, 1)]
            parts.append(torch.cat(maps, 1).to(image.device))
        return collect_slices(torch.cat(parts), layout)

    def prediction_of(self, maps: Tensor) -> Prediction:
        """Mean of the decoders, and how far they agree."""
        return prediction_of_two(maps)
