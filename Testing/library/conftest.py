"""Fixtures that read as sentences, and a calm number of threads."""

import locale
import os

# Before numpy or torch are imported: tests share few cores, and small arrays gain nothing.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from SAMSemiSegLib.project.phantoms import make_phantom as make_one
from SAMSemiSegLib.project.phantoms import write_phantoms
from SAMSemiSegLib.volumes.volume import Shape, Volume


@pytest.fixture(autouse=True)
def same_locale() -> Iterator[None]:
    """ITK's DICOM writer leaves the process with the locale C, in which Python reads ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real scans: ``SAMSEMISEG_DATA``, or ``shared/data`` beside the repository."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("SAMSEMISEG_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"needs real scans; there is no folder {folder} (set SAMSEMISEG_DATA)")
    return folder


def _part(data_folder: Path, name: str) -> Path:
    folder = data_folder / name
    if not folder.is_dir():
        pytest.skip(f"needs real scans; there is no folder {folder}")
    return folder


@pytest.fixture(scope="session")
def hippocampus_folder(data_folder: Path) -> Path:
    """Brain MR crops with two labels: ``images``, ``labels``, ``train.list``."""
    return _part(data_folder, "hippocampus")


@pytest.fixture(scope="session")
def la_folder(data_folder: Path) -> Path:
    """Left atria in cardiac MR: ``images``, ``labels``, ``train.list``."""
    return _part(data_folder, "la")


@pytest.fixture(scope="session")
def dicom_folder(data_folder: Path) -> Path:
    """Two folders of DICOM slices: ``t2_22_slices``, ``hippocampus_crop``."""
    return _part(data_folder, "dicom")


@pytest.fixture(scope="session")
def make_phantom() -> Callable[..., tuple[Volume, Volume]]:
    """``make_phantom(shape, seed)`` gives an image and its label of two classes."""
    return make_one


@pytest.fixture(scope="session")
def write_phantom_set() -> Callable[..., tuple[Path, Path]]:
    """``write_phantom_set(folder, n)`` writes small phantoms; gives their two folders."""

    def write(
        folder: Path, n: int, seed: int = 0, shape: Shape = (24, 28, 20)
    ) -> tuple[Path, Path]:
        return write_phantoms(folder, n, seed, shape)

    return write
