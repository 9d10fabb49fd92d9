"""Fixtures that read as sentences, and a calm number of threads."""

import importlib
import locale
import os
import sys

# Before numpy or torch are imported: tests share few cores, and small arrays gain nothing.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from torch import Tensor

from SAMSemiSegLib.errors import Cancelled
from SAMSemiSegLib.finetuning.stage import finetune
from SAMSemiSegLib.finetuning.strategy import FinetuningStrategy, Sample
from SAMSemiSegLib.project.importing import import_cases
from SAMSemiSegLib.project.label_set import LabelSet
from SAMSemiSegLib.project.phantoms import make_phantom as make_one
from SAMSemiSegLib.project.phantoms import write_phantoms
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.run.cancellation import Cancellation
from SAMSemiSegLib.run.events import Events
from SAMSemiSegLib.run.settings import RunSettings
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.devices import make_accelerator
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
def benchmarks() -> Iterator[Path]:
    """The folder of the benchmarks, whose scripts can be imported."""
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def published(benchmarks: Path) -> ModuleType:
    return importlib.import_module("published")


@pytest.fixture(scope="session")
def accuracy(benchmarks: Path) -> ModuleType:
    return importlib.import_module("accuracy")


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


@pytest.fixture
def scans(tmp_path: Path, write_phantom_set: Callable[..., tuple[Path, Path]]) -> tuple[Path, Path]:
    """A folder of five scans, phantom_001, ..., phantom_005, and one of their labels."""
    return write_phantom_set(tmp_path / "scans", 5)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project with the phantoms' labels."""
    return Project.create(tmp_path / "project", LabelSet.of(["front", "back"]))


@pytest.fixture(scope="session")
def phantom_project() -> Callable[..., Project]:
    """``phantom_project(folder, n, labeled=2)`` imports ``folder/scans``, n new phantoms, into the
    project ``folder/project``; without ``with_labels`` only their images."""

    def make(
        folder: Path,
        n: int,
        labeled: int | None = None,
        evaluate: int | None = None,
        seed: int = 0,
        shape: Shape = (24, 28, 20),
        with_labels: bool = True,
    ) -> Project:
        images, labels = write_phantoms(folder / "scans", n, seed, shape)
        project = Project.create(folder / "project", LabelSet.parse("head=1,tail=2"))
        references = labels if with_labels else None
        import_cases(project, images, references, labeled, evaluate=evaluate)
        return project

    return make


@pytest.fixture
def seven_phantoms(tmp_path: Path, phantom_project: Callable[..., Project]) -> Project:
    """Two labeled phantoms, three unlabeled, two for evaluation."""
    return phantom_project(tmp_path, 7, 2, 2, seed=1, shape=(32, 32, 24))


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run holds its process to what is free, for good; the other tests share this one."""
    monkeypatch.setattr("SAMSemiSegLib.run.start.hold_to_free_memory", lambda: None)


class _StopAfter(Cancellation):
    """Asked to stop at the n-th check."""

    def __init__(self, folder: Path, checks: int) -> None:
        super().__init__(folder / "cancel")
        self.left = checks

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Cancelled("stop")


@pytest.fixture(scope="session")
def weights_after() -> Callable[..., dict[str, Tensor]]:
    """``weights_after(steps, strategy, labeled, unlabeled, folder)`` fine-tunes, or continues what
    is in the folder; with ``checks=n`` it is cancelled at the n-th look."""

    def case(sample: Sample) -> SimpleNamespace:
        labels = None if sample.labels is None else sample.labels.numpy()
        return SimpleNamespace(id=sample.id, image=sample.image.numpy(), labels=labels)

    def run(
        steps: int,
        strategy: FinetuningStrategy,
        labeled: Sequence[Sample],
        unlabeled: Sequence[Sample],
        folder: Path,
        checks: int = 10**6,
    ) -> dict[str, Tensor]:
        accelerator = make_accelerator("cpu", "no")
        context = Context(accelerator, Events(None, ()), _StopAfter(folder, checks))
        settings = RunSettings()
        settings.finetuning.budget.steps = steps
        both = [[case(sample) for sample in part] for part in (labeled, unlabeled)]
        finetune(strategy, *both, settings, folder, context, (1.0, 1.0, 1.0))
        return strategy.trainable_state_dict()

    return run
