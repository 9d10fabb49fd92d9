"""``samsemiseg doctor``: what is installed, and what this machine can do."""

from __future__ import annotations

import json
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

PACKAGES = (
    "samsemiseg",
    "torch",
    "numpy",
    "SimpleITK",
    "monai",
    "segment-anything",
    "peft",
    "accelerate",
    "onnx",
    "onnxruntime",
    "sam2",
)


def doctor(
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Show what is installed: packages, devices, free memory and disk, weights."""
    found = examine()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title="SAMSemiSeg on this machine", show_header=False, box=None)
    table.add_row("Python", found["python"])
    for name, version in found["packages"].items():
        optional = " (optional)" if name == "sam2" else ""
        table.add_row(name, version or f"[yellow]not installed{optional}")
    for device in found["devices"]:
        table.add_row(device["name"], device["about"])
    table.add_row("Free memory", f"{found['free_memory_gb']:.1f} GB")
    table.add_row("Free disk here", f"{found['free_disk_gb']:.1f} GB")
    for row in found["weights"]:
        table.add_row(f"Weights {row['name']}", row["state"])
    console.print(table)


def examine() -> dict[str, Any]:
    """The findings as plain values."""
    import psutil
    import torch

    from SAMSemiSegLib.foundation.weights import list_weights
    from SAMSemiSegLib.training.devices import has_fast_bf16
    from SAMSemiSegLib.training.memory import free_memory

    devices = [
        {
            "name": "cpu",
            "about": f"{psutil.cpu_count(logical=False) or psutil.cpu_count()} cores, "
            f"{torch.get_num_threads()} threads, "
            f"bf16 {'fast' if has_fast_bf16() else 'not used'}",
        }
    ]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        about = f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GB free"
        devices.append({"name": f"cuda:{index}", "about": about})
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "about": "Apple GPU"})
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "packages": versions,
        "devices": devices,
        "free_memory_gb": free_memory() / 2**30,
        "free_disk_gb": shutil.disk_usage(Path.cwd()).free / 2**30,
        "weights": [
            {"name": row.name, "state": row.cached or _still_missing(row.url, row.megabytes)}
            for row in list_weights()
        ],
    }


def _still_missing(url: str | None, megabytes: float) -> str:
    """How weights that are not on this machine get here."""
    return "to be given as foundation.weights" if url is None else f"to fetch, {megabytes:g} MB"
