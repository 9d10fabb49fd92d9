"""Embeddings of a frozen encoder, computed once for each slice and augmentation.

They are kept in half precision in memory-mapped files of a bounded size; the volume used longest
ago makes room.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class _Volume:
    path: Path
    embeddings: np.memmap[Any, Any]
    known: np.ndarray[Any, Any]


class EmbeddingCache:
    """Files in one folder, removed by :meth:`close`.

    Args:
        folder: created when first needed.
        limit: bytes of all files together.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self.computed = 0
        """Slices that the encoder has seen."""
        self._volumes: OrderedDict[Hashable, _Volume] = OrderedDict()
        self._number = 0

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(volume.embeddings.nbytes for volume in self._volumes.values())

    def get(
        self,
        key: Hashable,
        slices: int,
        wanted: Sequence[int],
        compute: Callable[[Sequence[int]], Tensor],
    ) -> Tensor:
        """Embeddings (N, C, h, w) of the wanted slices, float32 on the CPU.

        They are rounded to half precision whether they were kept or not: a run that was resumed
        with an empty cache goes on the same.

        Args:
            key: of the volume and its augmentation; None: nothing is kept.
            slices: of the whole volume.
            wanted: indices.
            compute: embeddings (n, C, h, w) of the missing ones.
        """
        volume = None if key is None else self._volumes.get(key)
        missing = [i for i in wanted if volume is None or not volume.known[i]]
        fresh = compute(missing).detach().half().cpu().numpy() if missing else None
        self.computed += len(missing)
        if key is not None and volume is None and fresh is not None:
            volume = self._add(key, (slices, *fresh.shape[1:]))
        if volume is None:  # no room to keep it; everything wanted is fresh
            assert fresh is not None
            return torch.from_numpy(fresh).float()
        if fresh is not None:
            volume.embeddings[missing] = fresh
            volume.known[missing] = True
        self._volumes.move_to_end(key)
        return torch.from_numpy(np.array(volume.embeddings[list(wanted)])).float()

    def close(self) -> None:
        """Forget everything and remove the files."""
        while self._volumes:
            self._drop()

    def _add(self, key: Hashable, shape: tuple[int, ...]) -> _Volume | None:
        """A file for a volume; None where it is larger than the limit or the disk."""
        size = 2 * int(np.prod(shape))
        if size > self.limit:
            return None
        while self.size + size > self.limit:
            self._drop()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self._number:06}.embeddings"
        self._number += 1
        try:
            _reserve(path, size)
        except OSError:
            path.unlink(missing_ok=True)
            return None
        array = np.memmap(path, dtype=np.float16, mode="r+", shape=shape)
        self._volumes[key] = _Volume(path, array, np.zeros(shape[0], dtype=bool))
        return self._volumes[key]

    def _drop(self) -> None:
        """Remove the volume that was used longest ago."""
        _, volume = self._volumes.popitem(last=False)
        # Windows removes no file that is mapped.
        volume.embeddings._mmap.close()  # type: ignore[attr-defined]
        volume.path.unlink(missing_ok=True)


def _reserve(path: Path, size: int) -> None:
    """Make a file of so many bytes that are there: into one that is not, the first write after the
    disk is full ends the process without a word.

    Raises:
        OSError: there is no room.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        block = bytes(2**20)
        for start in range(0, size, len(block)):
            file.write(block[: size - start])
