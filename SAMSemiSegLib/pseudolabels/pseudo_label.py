"""A pseudo-label as it is stored: made once for each volume, read by every later stage."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from SAMSemiSegLib.atomic import replacing
from SAMSemiSegLib.errors import InputError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PseudoLabel:
    """Probabilities and confidence of one volume on its preprocessed grid, in steps of 1/255.

    Attributes:
        quantized: (K, X, Y, Z) uint8, probabilities with the background first.
        quantized_confidence: (X, Y, Z) uint8.
        score: 0..1, trust in the whole volume.
    """

    quantized: Array
    quantized_confidence: Array
    score: float

    @classmethod
    def of(cls, probabilities: Array, confidence: Array, score: float) -> PseudoLabel:
        """Quantize.

        Args:
            probabilities: (K, X, Y, Z) in 0..1, summing to 1 over K.
            confidence: (X, Y, Z) in 0..1.
            score: 0..1.
        """
        return cls(_quantize(probabilities), _quantize(confidence), float(score))

    @cached_property
    def probabilities(self) -> Array:
        """(K, X, Y, Z) float32, summing to 1 over K."""
        values = self.quantized.astype(np.float32)
        # Rounding moves the sum by up to K/2 steps, but the largest of K values never rounds to 0
        # (it is at least 255/K for K <= 255), so that the sum is never 0.
        values /= values.sum(axis=0, keepdims=True)
        return values

    @cached_property
    def hard(self) -> Array:
        """(X, Y, Z) uint8, the most probable channel of each voxel."""
        return np.argmax(self.quantized, axis=0).astype(np.uint8)

    @cached_property
    def confidence(self) -> Array:
        """(X, Y, Z) float32 in 0..1."""
        return self.quantized_confidence.astype(np.float32) / 255

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz``, whole or not at all, and beside it what crops are read from
        (:class:`MappedPseudoLabel`)."""
        for kind in ("hard", "confidence"):
            _save_part(self, path, kind)
        _part(path, "probabilities").unlink(missing_ok=True)  # of an earlier one
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                probabilities=self.quantized,
                confidence=self.quantized_confidence,
                score=np.float64(self.score),
            )

    @classmethod
    def load(cls, path: Path) -> PseudoLabel:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the file is missing, damaged, or something else.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                probabilities, confidence = file["probabilities"], file["confidence"]
                score = float(file["score"])
        except MemoryError:
            raise
        except Exception as error:  # zlib's, the zip file's, the header's: numpy passes all on
            raise InputError(_not_a_pseudo_label(path)) from error
        if (
            probabilities.dtype != np.uint8
            or confidence.dtype != np.uint8
            or probabilities.ndim != 4
            or probabilities.shape[1:] != confidence.shape
        ):
            raise InputError(_not_a_pseudo_label(path))
        return cls(probabilities, confidence, score)

    @classmethod
    def score_of(cls, path: Path) -> float:
        """The score alone of what :meth:`save` wrote; errors as of :meth:`load`."""
        try:
            with np.load(path, allow_pickle=False) as file:
                return float(file["score"])
        except Exception as error:
            raise InputError(_not_a_pseudo_label(path)) from error


class MappedPseudoLabel:
    """A stored pseudo-label of which parts are read: to unpack the whole of it for every crop would
    take longer than a training step.

    Channels and confidence lie unpacked beside the file (``ID.hard.npy``, ``ID.confidence.npy``),
    memory-mapped; probabilities, which are large, from the first time they are asked for.

    Args:
        path: of a pseudo-label that was saved.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def hard(self) -> Array:
        """(X, Y, Z) uint8, the most probable channel of each voxel."""
        return self._mapped("hard")

    @property
    def confidence(self) -> Array:
        """(X, Y, Z) uint8, in steps of 1/255."""
        return self._mapped("confidence")

    @property
    def probabilities(self) -> Array:
        """(K, X, Y, Z) uint8, in steps of 1/255; a voxel's sum over K is off by its rounding."""
        return self._mapped("probabilities")

    def _mapped(self, kind: str) -> Array:
        part = _part(self._path, kind)
        try:
            mapped: Array = np.load(part, mmap_mode="r")
        except (OSError, ValueError, SyntaxError):  # not there yet, or damaged
            _save_part(PseudoLabel.load(self._path), self._path, kind)
            mapped = np.load(part, mmap_mode="r")
        return mapped


_PARTS = {"hard": "hard", "confidence": "quantized_confidence", "probabilities": "quantized"}
"""Which attribute of a pseudo-label each part holds."""


def _part(path: Path, kind: str) -> Path:
    return path.with_name(f"{path.stem}.{kind}.npy")


def _save_part(pseudo_label: PseudoLabel, path: Path, kind: str) -> None:
    with replacing(_part(path, kind)) as temporary, temporary.open("wb") as file:
        np.save(file, getattr(pseudo_label, _PARTS[kind]))


def _not_a_pseudo_label(path: Path) -> str:
    return (
        f"The pseudo-label '{path}' is missing or damaged; delete it, and the run makes it again "
        "with --resume."
    )


def _quantize(values: Array) -> Array:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
