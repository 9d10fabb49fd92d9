"""The folder of fetched weights: ``NAME.safetensors`` and beside it ``NAME.json`` with its digest.

Imports nothing heavy: the command lists weights with it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from SAMSemiSegLib.atomic import write_json
from SAMSemiSegLib.digest import file_digest
from SAMSemiSegLib.errors import InputError

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


def cache_folder() -> Path:
    """``SAMSEMISEG_CACHE`` if set, else the user's cache folder of this system."""
    chosen = os.environ.get("SAMSEMISEG_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
        return Path(base) / "samsemiseg"
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "samsemiseg"


def cached_file(name: str) -> Path:
    """Where the weights of that name are, or would be."""
    return cache_folder() / f"{name}.safetensors"


def is_cached(name: str) -> bool:
    """Whether weights of that name were fetched (their digest is not checked here)."""
    return cached_file(name).is_file() and _digest_file(name).is_file()


def is_damaged(name: str) -> bool:
    """Whether the cached file differs from what was written: size first, then SHA-256."""
    try:
        record = json.loads(_digest_file(name).read_text(encoding="utf-8"))
        expected_size, expected_digest = record["size"], record["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return True
    path = cached_file(name)
    return path.stat().st_size != expected_size or file_digest(path) != expected_digest


def record_digest(name: str, path: Path, source: str) -> None:
    """Write ``NAME.json`` for the finished file ``path`` that will be moved into the cache."""
    record = {"size": path.stat().st_size, "sha256": file_digest(path), "source": source}
    write_json(_digest_file(name), record)


def remove(name: str) -> bool:
    """Remove cached weights, and what an interrupted download of them left; False: none there."""
    there = False
    for path in (cached_file(name), _digest_file(name), partial_file(name)):
        if path.is_file():
            path.unlink()
            there = True
    return there


def remove_all() -> list[str]:
    """Remove all cached weights and unfinished downloads; the names of those that were there."""
    found = [*cache_folder().glob("*.safetensors"), *cache_folder().glob("*.part")]
    names = sorted({path.stem for path in found})
    return [name for name in names if remove(name)]


def partial_file(name: str) -> Path:
    """An unfinished download; a later one goes on from its end."""
    return cache_folder() / f"{name}.part"


def make_cache_folder() -> Path:
    """Create the folder.

    Raises:
        InputError: it cannot be written.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The cache folder '{folder}' cannot be made ({error.strerror}); set the environment "
            "variable SAMSEMISEG_CACHE to a folder that can be written."
        ) from None
    return folder


def _digest_file(name: str) -> Path:
    return cache_folder() / f"{name}.json"
