"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from SAMSemiSegLib.errors import DiskFullError, UserError

FULL = 1 << 20
"""A write that fails with fewer bytes free than this failed for want of space."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` for a file, or a folder where there is none yet; when
    the block ends well it becomes ``path``.

    The temporary name keeps the suffixes (writers choose the format by them). On any failure it is
    removed and what stood at ``path`` stays.

    Raises:
        DiskFullError: no space left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        if temporary.is_file():
            _flush(temporary)
        os.replace(temporary, path)
    except Exception as error:
        # torch, safetensors and onnx tell of a full disk in errors of their own, in many words.
        full = isinstance(error, OSError) and is_disk_full(error)
        # Where the system says that one may not write, free space is not the matter: some drives
        # that are read only have none.
        told = isinstance(error, UserError) or (isinstance(error, OSError) and is_forbidden(error))
        if full or (not told and _free(path.parent) < FULL):
            raise DiskFullError(
                f"The disk is full, so '{path.name}' in '{path.parent}' could not be written; free "
                "some space and go on (what was saved before is whole)."
            ) from error
        raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Have the drive keep what was written: else a power cut may leave the new name empty."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return FULL


def is_disk_full(error: OSError) -> bool:
    """Whether the operating system says that there is no space left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_forbidden(error: OSError) -> bool:
    """Whether the operating system says that one may not write there."""
    return isinstance(error, PermissionError) or error.errno == errno.EROFS


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
