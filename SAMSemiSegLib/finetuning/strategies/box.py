"""Ask the foundation model what it was made for: the object in a box. The V-Net draws the box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from SAMSemiSegLib.finetuning.adapters.freeze import freeze
from SAMSemiSegLib.finetuning.boxes import Boxes
from SAMSemiSegLib.finetuning.replay import Entry, ReplayOptions, ReplayStrategy
from SAMSemiSegLib.finetuning.strategy import STRATEGIES, Prediction, Sample
from SAMSemiSegLib.foundation.model import FoundationModel
from SAMSemiSegLib.foundation.semantic import SemanticDecoder
from SAMSemiSegLib.run.settings import (
    Fraction,
    Positive,
    PseudoLabelSettings,
    StitchingSettings,
)
from SAMSemiSegLib.training.losses import IGNORE, segmentation_loss
from SAMSemiSegLib.training.progress import Progress
from SAMSemiSegLib.volumes.components import keep_largest

TOGETHER = 32
"""Boxes that pass through the decoder at a time, and in a step: where lesions are many, memory for
all of them at once would be without bounds."""


@STRATEGIES.register("box")
class BoxStrategy(ReplayStrategy):
    """Slice by slice, with a box around what the warm-started V-Net found. The model is good at
    outlines that it is pointed to, whatever the contrast, and knows no anatomy; the V-Net knows
    where to look. The encoder stays frozen; the decoder learns the outlines of the labels."""

    title = "Boxes drawn by the V-Net"
    source = (
        "own; the model: Ma et al., Segment anything in medical images, Nature Communications 2024"
    )
    guided = True
    advice = "lower finetuning.options.side or finetuning.options.slices."

    class Options(ReplayOptions):
        """Settings of the strategy's own."""

        side: Positive | Literal["auto"] = "auto"
        """Pixels of a slice's longer side as the model sees it; a step costs the square of it.
        ``auto``: 160 for models whose masks have the canvas' resolution (LiteMedSAM), else that of
        the pretraining (1024 for SAM and SAM 2, 512 for MedSAM-2)."""
        slices: Positive = 8
        """Slices that pass through the model at a time, and in a step."""
        margin: Fraction = 0.015
        """Between the V-Net's mask and the box, as a share of the slice's longer side; in training
        the true boxes are moved by up to twice as much."""

    options: Options

    def __init__(
        self,
        foundation: FoundationModel,
        channels: int,
        stitching: StitchingSettings,
        options: Options,
    ) -> None:
        super().__init__(foundation, channels, stitching, options)
        freeze(foundation)
        self.foundation = foundation
        decoder = SemanticDecoder(foundation.mask_decoder, 1, "pretrained")
        first = foundation.mask_decoder.mask_tokens.weight[:1]  # type: ignore[union-attr,index]
        with torch.no_grad():
            decoder.mask_tokens.weight.copy_(first)  # the mask that SAM gives for a clear prompt
        self.decoder = decoder.requires_grad_(True)

    def step(
        self, labeled: Sequence[Sample], unlabeled: Sequence[Sample], progress: Progress
    ) -> dict[str, Tensor]:
        """½(CE + Dice) of the masks in true, shaken boxes on some slices of each volume."""
        losses = [self._sample_loss(sample, progress) for sample in labeled]
        return {"supervised": torch.stack(losses).mean()}

    def _sample_loss(self, sample: Sample, progress: Progress) -> Tensor:
        seen = self.seen(sample, progress)
        labels = seen["labels"]
        boxes = Boxes.around(labels, self.channels, self.whole)
        if not len(boxes):  # the augmentation has moved everything out of view
            return 0 * next(self.decoder.parameters()).sum()
        if len(boxes) > TOGETHER:
            boxes = boxes.of(torch.randperm(len(boxes))[:TOGETHER])
        reach = self.options.margin * max(labels.shape[1:])
        shaken = boxes.grown(reach).shaken(2 * reach)
        logits = self.outline(seen["embedding"].float(), shaken, labels)
        truth = labels[boxes.slices].long()
        classes = boxes.classes.to(truth.device).view(-1, 1, 1)
        held = boxes.inside(*truth.shape[1:]).to(truth.device)
        target = torch.where(truth == IGNORE, truth, ((truth == classes) & held).long())
        return segmentation_loss(torch.stack([torch.zeros_like(logits), logits], 1), target)

    def encoded(self, sample: Sample) -> Entry:
        """Embeddings of random slices that show something, and their labels."""
        assert sample.labels is not None
        axis = self.stitching.axis
        labels = sample.labels.movedim(axis, 0)
        shown = ((labels > 0) & (labels < self.channels)).any(2).any(1).nonzero()[:, 0]
        if not len(shown):
            shown = torch.arange(len(labels), device=labels.device)
        chosen = shown[torch.randperm(len(shown))[: self.options.slices].to(shown.device)]
        images = sample.image.movedim(axis, 0)[chosen]
        return {"embedding": self.encode(images).half(), "labels": labels[chosen].contiguous()}

    def encode(self, images: Tensor) -> Tensor:
        """Embeddings (S, 256, h, w) of slices (S, H, W), each enlarged to ``side`` and padded at
        its ends, one by one: the model scales the gray values of each by itself."""
        (height, width), (rows, columns) = self._sizes(images)
        pad = (0, columns - width, 0, rows - height)
        parts = []
        for image in images:
            seen = F.interpolate(image[None, None].float(), (height, width), mode="bicubic")
            parts.append(self.foundation.encode(F.pad(seen, pad, value=float(seen.min()))))
        return torch.cat(parts)

    def _sizes(self, images: Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of slices (S, H, W) as the model sees them, and of its canvas."""
        side = self.options.side
        if side == "auto":
            side = 160 if self.foundation.downscale == 1 else self.foundation.image_side
        factor = side / max(images.shape[-2:])
        height, width = (max(1, round(n * factor)) for n in images.shape[-2:])
        multiple = self.foundation.multiple
        return (height, width), (height + -height % multiple, width + -width % multiple)

    def outline(self, embedding: Tensor, boxes: Boxes, images: Tensor) -> Tensor:
        """Logits (N, H, W) of what is in each box.

        Args:
            embedding: (S, 256, h, w) of the slices.
            boxes: N, in pixels of the slices.
            images: (S, H, W), for the size of the slices.
        """
        (height, width), padded = self._sizes(images)
        size = images.shape[-2:]
        factor = height / size[0]
        # A slice's pixel becomes several: a box ends with the last one of its last pixel.
        corners = boxes.corners.to(embedding.device) * factor
        corners[:, 2:] += factor - 1
        prompts = self._corner_tokens(corners, padded)
        places, no_mask = self.foundation.context_of(embedding)
        index = boxes.slices.to(embedding.device)
        logits = self.decoder(embedding[index], places, no_mask, prompts)
        logits = F.interpolate(logits, padded, mode="bilinear", align_corners=False)
        logits = logits[..., :height, :width]
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)[:, 0]

    def _corner_tokens(self, corners: Tensor, size: tuple[int, int]) -> Tensor:
        """SAM's embedding (N, 2, 256) of boxes (N, 4) in pixels of a canvas of this size; SAM 2's
        (N, 3, 256)."""
        encoder = self.foundation.prompt_encoder
        points = corners.reshape(-1, 2, 2).flip(2) + 0.5  # SAM wants column before row
        limits = torch.tensor([size[1], size[0]], device=points.device)
        points = torch.minimum(points.clamp_min(0), limits)
        tokens: Tensor = encoder.pe_layer.forward_with_coords(points, size)  # type: ignore
        kinds = torch.cat([encoder.point_embeddings[i].weight for i in (2, 3)])  # type: ignore
        tokens = tokens + kinds
        if self.foundation.pads_boxes:
            nothing = encoder.not_a_point_embed.weight.expand(len(tokens), 1, -1)  # type: ignore
            tokens = torch.cat([tokens, nothing], 1)
        return tokens

    @torch.no_grad()
    def predict(self, image: Tensor, settings: PseudoLabelSettings) -> Prediction:
        """Probabilities along each axis of ``settings.axes``, averaged. In a slice where the V-Net
        found nothing there is no box, and its own probabilities stay; where it found some classes,
        those of the others stay, and the background is what all leave."""
        if self.guide is None:
            raise ValueError("boxes need a V-Net to draw them: set guide")
        theirs = self.guide(image).to(image.device)
        # A speck far away would make a box around half the slice.
        hard = keep_largest(theirs.argmax(0).cpu().numpy(), self.whole)
        found = torch.from_numpy(hard)
        axes = settings.axes or (self.stitching.axis,)
        parts = [self._along(axis, image, found, theirs) for axis in axes]
        return Prediction(torch.stack(parts).mean(0))

    def _along(self, axis: int, image: Tensor, found: Tensor, theirs: Tensor) -> Tensor:
        images = image.movedim(axis, 0)
        foreground = theirs[1:].movedim(1 + axis, 1).clone()
        reach = self.options.margin * max(images.shape[1:])
        boxes = Boxes.around(found.movedim(axis, 0), self.channels, self.whole).grown(reach)
        shown = boxes.slices.unique()
        answered = torch.zeros(len(images), dtype=torch.bool)
        answered[shown] = True
        for part in shown.split(self.options.slices) if len(shown) else ():
            local = boxes.of(torch.isin(boxes.slices, part))
            local = replace(local, slices=torch.searchsorted(part, local.slices))
            seen = images[part.to(images.device)]
            embedding = self.encode(seen)
            asked = torch.zeros_like(foreground[:, part])
            known = torch.zeros(asked.shape[:2], dtype=torch.bool)
            for few in local.split(TOGETHER):
                answers = self.outline(embedding, few, seen).float().sigmoid()
                for k, s, answer in zip(few.classes - 1, few.slices, answers, strict=True):
                    asked[k, s] = torch.maximum(asked[k, s], answer.to(asked))
                    known[k, s] = True
            foreground[:, part] = torch.where(
                known[..., None, None].to(asked.device), asked, foreground[:, part]
            )
        background = (1 - foreground).prod(0, keepdim=True)
        joined = torch.cat([background, foreground])
        joined = joined / joined.sum(0, keepdim=True).clamp_min(1e-6)
        kept = answered.to(joined.device)[:, None, None]
        return torch.where(kept, joined, theirs.movedim(1 + axis, 1)).movedim(1, 1 + axis)
