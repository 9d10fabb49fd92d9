"""Cross prompting: each of two decoders prompts the other, and learns from its prompted answer.

Source: CPC-SAM (Miao et al., MICCAI 2024) and CPAC-SAM (Medical Image Analysis 110:103973, 2026;
code published for ACDC only). Where this is a reconstruction or our own:

* Published are three rounds a step, each with an optimizer step of its own. Here the three are
  added into one step, so that the encoder runs once for all of them.
* Published is 2D, slice by slice. ``view=stitched`` puts points on the canvas of a whole volume.
* "Differently initialized" decoders: both start from SAM's transformer; class tokens,
  hypernetworks and the added upscaling are drawn apart.
* Background points are prompts too. Where points are too many for memory they are thinned at
  random, evenly over the classes.
* A round's cross loss teaches the decoder that gave the prompts, unprompted.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from SAMSemiSegLib.finetuning.adapters.lora import add_lora
from SAMSemiSegLib.finetuning.agreement import prediction_of_two
from SAMSemiSegLib.finetuning.cross_prompting.decoder import PromptedDecoder, resize_logits
from SAMSemiSegLib.finetuning.cross_prompting.prompts import ClassPoints, Points
from SAMSemiSegLib.finetuning.prototypes import Prototypes, class_prototypes
from SAMSemiSegLib.finetuning.slices import collect_slices, lay_out_slices
from SAMSemiSegLib.finetuning.stitched import StitchedOptions, StitchedStrategy
from SAMSemiSegLib.finetuning.strategy import Prediction, Sample
from SAMSemiSegLib.foundation.model import FoundationModel
from SAMSemiSegLib.run.settings import Fraction, NotNegative, Positive, StitchingSettings
from SAMSemiSegLib.training.losses import IGNORE, cross_entropy, dice_loss, segmentation_loss
from SAMSemiSegLib.training.progress import Progress
from SAMSemiSegLib.volumes.volume import shape_of

CE_SHARE = 0.2
"""The supervised loss is 0.2 CE + 0.8 Dice."""
LARGE = 8192
"""Pixels of an embedding from which on a decoder's activations are computed again in the backward
pass: a step passes through decoders up to twelve times."""


class CrossPromptingOptions(StitchedOptions):
    """Settings of both methods."""

    view: Literal["stitched", "slices"] = "stitched"
    """A volume as one canvas, or as single slices (as published)."""
    slices: Positive = 6
    """For ``view=slices``: random slices of each volume in a step."""
    rank: Positive = 4
    """Of LoRA on the encoder's queries and values."""
    start: Fraction = 0.2
    """Share of the steps before the unsupervised terms begin. Published: 5,000 iterations."""
    cross_weight: NotNegative = 0.4
    """Of the prompted answer teaching the unprompted decoder."""
    consistency_weight: NotNegative = 0.005
    """Of both prompted answers being pulled to their mean's classes."""
    max_points: Positive = 1024
    """Points on one canvas at most, shared out evenly among the classes; where one has more than
    its share, both of its sets are thinned by one factor."""


@dataclass(frozen=True)
class Seen:
    """What the model has seen of one volume in this step.

    Attributes:
        target: (B, H, W) labels; for unlabeled volumes 0. 255 = ignore, and blank places.
        embedding: (B, 256, h, w).
        logits: (B, K, H, W) of each decoder without prompts.
    """

    target: Tensor
    embedding: Tensor
    logits: tuple[Tensor, Tensor]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the canvases."""
        return self.target.shape[-2], self.target.shape[-1]

    @property
    def valid(self) -> Tensor:
        """(B, H, W) bool: neither ignored nor blank."""
        return self.target != IGNORE


class CrossPrompting(StitchedStrategy):
    """Shared encoder with LoRA, two decoders, points by class. A subclass says where points are."""

    uses_unlabeled = True
    prompts_from_start = True
    """Whether labeled volumes are prompted before the unsupervised terms begin."""

    class Options(CrossPromptingOptions):
        """Settings of the strategy's own."""

    options: CrossPromptingOptions

    def __init__(
        self,
        foundation: FoundationModel,
        channels: int,
        stitching: StitchingSettings,
        options: CrossPromptingOptions,
    ) -> None:
        super().__init__(foundation, channels, stitching, options)
        self.sam.decoder = PromptedDecoder(foundation, channels, options.tokens)
        self.second = PromptedDecoder(foundation, channels, options.tokens)
        self.points = ClassPoints(foundation.prompt_encoder, channels)
        for part in (self.sam.decoder, self.second, self.points):
            part.requires_grad_(True)

    @property
    def single_slices(self) -> bool:
        """By ``options.view``."""
        return self.options.view == "slices"

    def adapt_encoder(self, foundation: FoundationModel) -> None:
        """Adds LoRA on q and v."""
        add_lora(foundation, self.options.rank)

    @abstractmethod
    def point_sets(
        self, seen: Seen, coarse: Tensor, prototypes: Prototypes | None
    ) -> list[list[Points]]:
        """Two sets of prompts, each with the points of every canvas.

        Args:
            seen: of one volume.
            coarse: (B, H, W) classes by the prompting decoder, 255 in blank places.
            prototypes: of the labeled volumes; None: ``seen`` is labeled, its target is the truth.
        """

    def step(
        self, labeled: Sequence[Sample], unlabeled: Sequence[Sample], progress: Progress
    ) -> dict[str, Tensor]:
        """Round 1 without prompts, rounds 2 and 3 with each decoder prompting the other."""
        active = progress.fraction >= self.options.start
        truths = [self.see(sample) for sample in labeled]
        if not truths:
            raise ValueError("a step needs at least one labeled volume")
        others = [self.see(sample) for sample in unlabeled] if active else []
        losses = [self.loss(logits, seen.target) for seen in truths for logits in seen.logits]
        terms = {"supervised": torch.stack(losses).sum() / len(truths)}
        if active or self.prompts_from_start:
            prototypes = self.prototypes(truths)
            for prompter in (1, 0):
                for name, term in self.round(truths, others, prototypes, prompter).items():
                    terms[name] = terms[name] + term if name in terms else term
        return terms

    def see(self, sample: Sample) -> Seen:
        """Encode a volume's canvas, or some of its slices, and decode without prompts."""
        if sample.labels is None:
            sample = replace(sample, labels=sample.nothing)
        if self.single_slices:
            canvas, target, factor = self._draw_slices(sample)
        else:
            canvas, target, factor = self.draw_canvas(sample)
        embedding = self.encode(canvas, factor)
        size = (canvas.shape[-2], canvas.shape[-1])
        return Seen(
            target, embedding, (self.decode(0, embedding, size), self.decode(1, embedding, size))
        )

    def decode(
        self,
        which: int,
        embedding: Tensor,
        size: tuple[int, int],
        points: Sequence[Points] | None = None,
    ) -> Tensor:
        """Logits (B, K, *size) of decoder 0 or 1, prompted or not."""
        foundation = self.sam.foundation
        decoder = self.second if which else self.sam.decoder
        prompts = None
        if points is not None:
            prompts = self.points(points, size, foundation.prompt_encoder)
        given = () if prompts is None else (prompts.tokens, prompts.present)
        inputs = (embedding, *foundation.context_of(embedding), *given)
        large = embedding.shape[0] * embedding.shape[-2] * embedding.shape[-1] > LARGE
        if torch.is_grad_enabled() and (large or foundation.checkpointing):
            logits: Tensor = checkpoint(decoder, *inputs, use_reentrant=False)
        else:
            logits = decoder(*inputs)
        return resize_logits(logits, size)

    def prototypes(self, truths: Sequence[Seen]) -> Prototypes:
        """Of every canvas or slice of the labeled volumes."""
        return Prototypes.join(
            [class_prototypes(seen.embedding, seen.target, self.channels) for seen in truths]
        )

    def round(
        self,
        truths: Sequence[Seen],
        others: Sequence[Seen],
        prototypes: Prototypes,
        prompter: int,
    ) -> dict[str, Tensor]:
        """Loss terms of the round in which decoder ``prompter`` prompts the other one."""
        options = self.options
        prompted = torch.stack(
            [
                self.loss(logits, seen.target)
                for seen in truths
                for logits in self.prompted_logits(seen, None, prompter)
            ]
        )
        terms = {"prompted": prompted.mean()}
        unsupervised = partial(segmentation_loss, include_background=options.include_background)
        cross, consistency = [], []
        for seen in others:
            answers = self.prompted_logits(seen, prototypes, prompter)
            pseudo = pseudo_label(answers, seen.valid)
            cross.append(unsupervised(seen.logits[prompter], pseudo))
            consistency += [unsupervised(answer, pseudo) for answer in answers]
        if others:
            terms["cross"] = options.cross_weight * torch.stack(cross).mean()
            terms["consistency"] = options.consistency_weight * torch.stack(consistency).mean()
        return terms

    def prompted_logits(
        self, seen: Seen, prototypes: Prototypes | None, prompter: int
    ) -> list[Tensor]:
        """The other decoder's answers to the two sets of prompts by ``prompter``."""
        with torch.no_grad():
            coarse = seen.logits[prompter].argmax(1).masked_fill(~seen.valid, IGNORE)
            sets = self.point_sets(seen, coarse, prototypes)
        return [self.decode(1 - prompter, seen.embedding, seen.size, points) for points in sets]

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """0.2 CE + 0.8 Dice."""
        dice = dice_loss(logits, target, include_background=self.options.include_background)
        return CE_SHARE * cross_entropy(logits, target) + (1 - CE_SHARE) * dice

    def canvas_maps(self, canvas: Tensor, factor: int) -> Tensor:
        """Softmax of one decoder after the other, (B, 2K, H, W)."""
        embedding = self.encode(canvas, factor)
        size = (canvas.shape[-2], canvas.shape[-1])
        return torch.cat([self.decode(i, embedding, size).float().softmax(1) for i in (0, 1)], 1)

    def prediction_of(self, maps: Tensor) -> Prediction:
        """Mean of the decoders, and how far they agree."""
        return prediction_of_two(maps)

    def volume_maps(self, image: Tensor, settings: StitchingSettings, offset: int) -> Tensor:
        """Slice by slice, a few at a time, where slices are seen alone."""
        if not self.single_slices:
            return super().volume_maps(image, settings, offset)
        shape = shape_of(image)
        layout, factor = self.slice_canvas(shape, settings)
        canvases = lay_out_slices(image, layout, float(image.min())).unsqueeze(1)
        parts = [
            self.canvas_maps(part, factor).to(image.device)
            for part in canvases.split(self.options.slices)
        ]
        return collect_slices(torch.cat(parts), layout)

    def _draw_slices(self, sample: Sample) -> tuple[Tensor, Tensor, int]:
        """Canvases (B, 1, H, W) and labels (B, H, W) of random slices, and the factor by which the
        model sees them larger."""
        assert sample.labels is not None
        shape = shape_of(sample.image)
        layout, factor = self.slice_canvas(shape, self.stitching)
        axis = self.stitching.axis
        chosen = torch.randperm(shape[axis])[: self.options.slices].sort().values
        chosen = chosen.to(sample.image.device)
        image = sample.image.index_select(axis, chosen)
        labels = sample.labels.index_select(axis, chosen)
        canvas = lay_out_slices(image, layout, float(sample.image.min()))
        return canvas.unsqueeze(1), lay_out_slices(labels, layout, IGNORE), factor


@torch.no_grad()
def pseudo_label(answers: Sequence[Tensor], valid: Tensor) -> Tensor:
    """Classes (B, H, W) of the mean softmax of several answers (B, K, H, W); 255 where not valid.
    No gradient goes into it."""
    mean = torch.stack([answer.float().softmax(1) for answer in answers]).mean(0)
    return mean.argmax(1).masked_fill(~valid, IGNORE)
