"""Device, number format and processes, through accelerate."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from SAMSemiSegLib.errors import InputError

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator


def make_accelerator(device: str = "auto", mixed_precision: str = "auto") -> Accelerator:
    """An accelerator for one process, or for those that ``accelerate launch`` or ``torchrun``
    started.

    Args:
        device: ``auto`` (CUDA, else Apple's MPS, else CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        mixed_precision: ``auto`` (bf16 where the hardware has it, else fp16 on CUDA, else none);
            fp16 is none on a processor, which does not train in it.

    Raises:
        InputError: the device is not there.
    """
    import torch
    from accelerate import Accelerator, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState

    chosen = choose_device(device)
    if chosen.index is not None:
        torch.cuda.set_device(chosen.index)
    kind = chosen.type
    wanted = _number_format(kind) if mixed_precision == "auto" else mixed_precision
    if kind == "cpu" and wanted == "fp16":
        wanted = "no"
    # A second run in one process (a notebook, a test) may want another device or number format.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    # One process waits for another's evaluation or export; that may take long.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))
    return Accelerator(
        cpu=kind == "cpu",
        mixed_precision=wanted,
        kwargs_handlers=[patience],
    )


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto``: CUDA, else Apple's MPS, else the CPU.

    Raises:
        InputError: it is not there.
    """
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps"):
        raise InputError(f"There is no device '{name}'; choose auto, cpu, cuda or mps.")
    if not {"cpu": True, "cuda": cuda, "mps": mps}[kind]:
        raise InputError(
            f"The device '{name}' is not available on this machine; use --device auto or cpu "
            "('samsemiseg doctor' shows what there is)."
        )
    counted = kind == "cuda" and index.isdigit() and int(index) < torch.cuda.device_count()
    if index and not counted:
        raise InputError(
            f"There is no device '{name}' on this machine; 'samsemiseg doctor' shows what there is."
        )
    return torch.device(name)


def forget_frozen_casts() -> None:
    """To be called in a step after a pass without gradient of a network that is trained.

    Autocast keeps a weight's half-precision copy; torch before 2.10 kept that of such a pass for
    the next one too, which then gave the weight no gradient (pytorch issue 158232).
    """
    import torch

    torch.clear_autocast_cache()


def _number_format(kind: str) -> str:
    import torch

    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if kind == "cpu" and has_fast_bf16() else "no"


def has_fast_bf16() -> bool:
    """Whether this processor has instructions for bf16 (AMX or AVX-512 BF16); on others it is
    slower than float32. The environment variable ``SAMSEMISEG_CPU_BF16=0`` switches it off."""
    import torch

    if os.environ.get("SAMSEMISEG_CPU_BF16", "auto") == "0":
        return False
    # Torch's own names for it are not public: one that is gone counts as no.
    known = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, bool)() for name in known)
