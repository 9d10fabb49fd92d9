"""Checkpoints: written whole, read without running code from them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from SAMSemiSegLib.atomic import replacing
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.training.memory import is_out_of_memory


def save_checkpoint(path: Path, contents: dict[str, Any]) -> None:
    """Write tensors and plain values; an old checkpoint stays until the new one is whole."""
    import torch

    with replacing(path) as temporary:
        torch.save(contents, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        InputError: it is damaged, or holds anything but tensors and plain values.
    """
    import torch

    try:
        contents: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return contents
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"The checkpoint '{path}' cannot be read; delete it to repeat the stage from its start."
        ) from error
