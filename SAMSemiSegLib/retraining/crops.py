"""Random crops of the preprocessed volumes: what a training step sees.

Volumes stay on disk (memory-mapped); of each only what the augmented crop looks at is read. A
step's crops depend on the generator given and on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from SAMSemiSegLib.augmentation.augmentation import Augmentation
from SAMSemiSegLib.augmentation.spatial import View
from SAMSemiSegLib.augmentation.style import StyleExchange
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.retraining.ssl.method import LabeledBatch, UnlabeledBatch
from SAMSemiSegLib.run.settings import RetrainingSettings
from SAMSemiSegLib.training.losses import IGNORE

Array = np.ndarray[Any, Any]
Size = tuple[int, int, int]

REMEMBERED = 20000
"""Foreground voxels kept for each class and volume to center crops on."""


class PseudoLabelArrays(Protocol):
    """A stored pseudo-label."""

    @property
    def hard(self) -> Array:
        """(X, Y, Z) channel indices."""

    @property
    def probabilities(self) -> Array:
        """(K, X, Y, Z) in 0..1, or uint8 in steps of 1/255."""

    @property
    def confidence(self) -> Array:
        """(X, Y, Z) in 0..1, or uint8 in steps of 1/255."""


class TrainingCase(Protocol):
    """A preprocessed volume as training needs it; arrays may be memory-mapped."""

    @property
    def image(self) -> Array:
        """(X, Y, Z) float32."""

    @property
    def labels(self) -> Array | None:
        """(X, Y, Z) uint8 channel indices with 255 = ignore; None for an unlabeled volume."""

    @property
    def pseudo_label(self) -> PseudoLabelArrays | None:
        """Of an unlabeled volume, where there is one."""

    @property
    def selected(self) -> bool:
        """Whether the pseudo-label takes part (SFR+)."""


class CropSampler:
    """Draws the batches of a step.

    Args:
        cases: labeled and unlabeled volumes.
        patch: voxels of a crop along x, y, z.
        settings: batch sizes, share of foreground crops, what the pseudo-label term needs.
        augment: applied to each crop; None: none.
        style: applied to labeled crops before that; None: none.

    Raises:
        InputError: no case is labeled.
    """

    def __init__(
        self,
        cases: Sequence[TrainingCase],
        patch: Size,
        settings: RetrainingSettings,
        augment: Augmentation | None = None,
        style: StyleExchange | None = None,
    ) -> None:
        self.labeled = [case for case in cases if case.labels is not None]
        self.unlabeled = [case for case in cases if case.labels is None]
        if not self.labeled:
            raise InputError("No case is labeled; label at least one case before training.")
        self.patch = patch
        self.settings = settings
        self.augment = augment
        self.style = style
        self._foreground = [_foreground_voxels(case) for case in self.labeled]
        self._minima: dict[int, float] = {}

    def draw(self, generator: np.random.Generator) -> tuple[LabeledBatch, UnlabeledBatch | None]:
        """The batches of one step; None where there are no unlabeled cases."""
        labeled = self.draw_labeled(generator)
        return labeled, self.draw_unlabeled(generator) if self.unlabeled else None

    def draw_labeled(self, generator: np.random.Generator) -> LabeledBatch:
        """``labeled_batch`` crops; volumes are repeated where there are fewer."""
        images, labels = [], []
        for i in _pick(len(self.labeled), self.settings.labeled_batch, generator):
            case = self.labeled[i]
            corner = self._labeled_corner(i, generator)
            image, label, _ = self._crop(case, case.labels, [], corner, generator)
            assert label is not None
            images.append(image)
            labels.append(label)
        return LabeledBatch(torch.stack(images).unsqueeze(1), torch.stack(labels))

    def draw_unlabeled(self, generator: np.random.Generator) -> UnlabeledBatch:
        """``unlabeled_batch`` crops with what the pseudo-label term needs of them."""
        images, insides, hards, extras, selected = [], [], [], [], []
        mode = self.settings.pseudo_label_mode
        online = mode == "selected" and self.settings.selection.alternation == "online"
        picked = _pick(len(self.unlabeled), self.settings.unlabeled_batch, generator)
        for case in [self.unlabeled[i] for i in picked]:
            pseudo = case.pseudo_label if mode != "off" else None
            maps = [] if pseudo is None else self._soft_maps(pseudo)
            corner = self._uniform_corner(case, generator)
            blank = np.broadcast_to(np.uint8(0), case.image.shape)
            stored = blank if pseudo is None else pseudo.hard
            image, label, extra = self._crop(case, stored, maps, corner, generator)
            assert label is not None
            # Online the foundation model labels the crop in training, but not what is outside.
            labeled = pseudo is not None or (online and case.selected)
            images.append(image)
            insides.append(label != IGNORE)
            hards.append(label if labeled else None)
            extras.append(extra)
            selected.append(bool(case.selected) and pseudo is not None)
        image_batch, inside = torch.stack(images).unsqueeze(1), torch.stack(insides)
        first = next((e for e in extras if e is not None), None)
        if all(h is None for h in hards):
            return UnlabeledBatch(image_batch, inside=inside)
        # A volume without a pseudo-label (yet) is ignored by the term: 255, confidence 0.
        nothing = torch.full(self.patch, IGNORE, dtype=torch.uint8)
        hard = torch.stack([nothing if h is None else h for h in hards])
        confidence = soft = None
        if first is not None:
            soft_maps = torch.stack([torch.zeros_like(first) if e is None else e for e in extras])
            if self.settings.confidence_weights:
                confidence = soft_maps[:, 0].clamp(0, 1)
                soft_maps = soft_maps[:, 1:]
            if self.settings.pseudo_label_target == "soft":
                soft = soft_maps.clamp_min(0)
                soft = soft / soft.sum(1, keepdim=True).clamp_min(1e-6)
        return UnlabeledBatch(image_batch, hard, soft, confidence, torch.tensor(selected), inside)

    def _soft_maps(self, pseudo: PseudoLabelArrays) -> list[Array]:
        """Confidence (1, X, Y, Z) and probabilities (K, X, Y, Z), those that are used."""
        maps: list[Array] = []
        if self.settings.confidence_weights:
            maps.append(np.asanyarray(pseudo.confidence)[None])
        if self.settings.pseudo_label_target == "soft":
            maps.append(pseudo.probabilities)
        return maps

    def _labeled_corner(self, i: int, generator: np.random.Generator) -> list[int]:
        """On a foreground voxel of a class drawn first, so that small organs are seen as often as
        large ones; or anywhere."""
        case, classes = self.labeled[i], self._foreground[i]
        uniform = self._uniform_corner(case, generator)
        if generator.random() >= self.settings.foreground_crops or not classes:
            return uniform
        voxels = classes[generator.integers(len(classes))]
        shape = case.image.shape
        center = np.unravel_index(int(voxels[generator.integers(len(voxels))]), shape)
        return [
            u if side <= p else int(np.clip(c - p // 2, 0, side - p))
            for u, c, p, side in zip(uniform, center, self.patch, shape, strict=True)
        ]

    def _uniform_corner(self, case: TrainingCase, generator: np.random.Generator) -> list[int]:
        """Anywhere inside; a volume smaller than the patch lies anywhere inside the patch."""
        corner = []
        for side, p in zip(case.image.shape, self.patch, strict=True):
            low, high = min(0, side - p), max(0, side - p)
            corner.append(int(generator.integers(low, high + 1)))
        return corner

    def _crop(
        self,
        case: TrainingCase,
        labels: Array | None,
        maps: list[Array],
        corner: list[int],
        generator: np.random.Generator,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """One augmented crop: image, labels, soft maps."""
        view = View(self.patch, None)
        if self.augment is not None:
            view = self.augment.draw_view(self.patch, generator)
        first, size = view.box
        start = [c + f for c, f in zip(corner, first, strict=True)]
        box = read_padded(case.image, start, size, self._minimum(case)).astype(np.float32)
        if self.style is not None and case.labels is not None:
            box = self.style(box, case, start, generator)
        image = torch.from_numpy(box)
        label = extra = None
        if labels is not None:
            label = torch.from_numpy(read_padded(labels, start, size, IGNORE).astype(np.uint8))
        if maps:
            extra = torch.from_numpy(np.concatenate([_soft_crop(m, start, size) for m in maps]))
        image, label, extra = view.of(image, label, extra, first)
        if self.augment is not None:
            image = self.augment.intensity(image, generator)
        return image, label, extra

    def _minimum(self, case: TrainingCase) -> float:
        if id(case) not in self._minima:
            self._minima[id(case)] = float(np.min(case.image))
        return self._minima[id(case)]


def read_padded(array: Array, start: Sequence[int], size: Sequence[int], fill: float) -> Array:
    """A box of the last three axes, filled where it reaches outside.

    Args:
        array: (..., X, Y, Z).
        start: first voxel along x, y, z; may be negative.
        size: voxels along x, y, z.
        fill: value outside.
    """
    shape = array.shape[-3:]
    inside, where = [], []
    for s, n, side in zip(start, size, shape, strict=True):
        low, high = min(max(s, 0), side), max(min(s + n, side), 0)
        inside.append(slice(low, max(low, high)))
        where.append(slice(low - s, max(low, high) - s))
    box = np.full((*array.shape[:-3], *size), fill, array.dtype)
    x, y, z = where
    u, v, w = inside
    box[..., x, y, z] = array[..., u, v, w]
    return box


def _soft_crop(array: Array, start: Sequence[int], size: Sequence[int]) -> Array:
    """(E, X, Y, Z) float32, 0 outside."""
    box = read_padded(array, start, size, 0)
    return box.astype(np.float32) / 255 if box.dtype == np.uint8 else box.astype(np.float32)


def _pick(available: int, wanted: int, generator: np.random.Generator) -> list[int]:
    """``wanted`` different entries; each is repeated only after all others were taken."""
    picked: list[int] = []
    while len(picked) < wanted:
        picked += generator.permutation(available).tolist()
    return picked[:wanted]


def _foreground_voxels(case: TrainingCase) -> list[Array]:
    """Flat indices of voxels of each foreground class that is there, thinned evenly."""
    labels = np.asarray(case.labels)
    present = [int(c) for c in np.unique(labels) if c not in (0, IGNORE)]
    found = []
    for value in present:
        flat = np.flatnonzero(labels == value)
        found.append(flat[:: max(1, len(flat) // REMEMBERED)].copy())
    return found
