"""Weights of the foundation models: listed, fetched once, checked, loaded.

Official files are ``torch.save`` archives; they are read without running pickled code, written as
safetensors into the cache, and only that copy is read afterwards.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from SAMSemiSegLib.atomic import replacing
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.foundation import cache
from SAMSemiSegLib.training.memory import is_out_of_memory, memory_sentence

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from SAMSemiSegLib.foundation.model import FoundationEntry, FoundationModel
    from SAMSemiSegLib.run.settings import FoundationSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightsStatus:
    """One row of the table of weights.

    Attributes:
        name, title, source: of the model.
        megabytes: size of the official file (1 MB = 10^6 bytes).
        license: of the weights.
        url: where they come from.
        cached: path of the copy on this machine, or None.
    """

    name: str
    title: str
    source: str
    megabytes: float
    license: str
    url: str | None
    cached: str | None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def list_weights() -> list[WeightsStatus]:
    """The models whose weights can be fetched or given, with what is on this machine."""
    from SAMSemiSegLib.foundation.model import FOUNDATION

    rows = []
    for name in FOUNDATION:
        entry = FOUNDATION[name]
        if entry.weights is None:
            continue
        cached = str(cache.cached_file(name)) if cache.is_cached(name) else None
        size = round(entry.weights.size / 1e6, 1)
        rows.append(
            WeightsStatus(
                name,
                entry.title,
                entry.source,
                size,
                entry.weights.license,
                entry.weights.url,
                cached,
            )
        )
    return rows


def remove(name: str) -> list[str]:
    """Remove the cached weights of a model, or of ``all``; the names of those that were there."""
    from SAMSemiSegLib.foundation.model import FOUNDATION

    if name == "all":
        return cache.remove_all()
    return [name] if cache.remove(FOUNDATION[name].name) else []


def fetch(entry: FoundationEntry, progress: cache.Progress | None = None) -> Path:
    """The cached safetensors file of a model; fetched and converted if it is not there or damaged.

    Raises:
        InputError: it cannot be fetched; the message says how to give a path instead.
    """
    from safetensors.torch import save_file

    from SAMSemiSegLib.foundation.download import download

    if entry.weights is None:
        raise InputError(f"The model '{entry.name}' has random weights: there are none to fetch.")
    target = cache.cached_file(entry.name)
    if cache.is_cached(entry.name):
        if not cache.is_damaged(entry.name):
            return target
        log.warning("The cached weights '%s' are damaged; they are fetched again.", target)
        cache.remove(entry.name)
    cache.make_cache_folder()
    if entry.weights.sha256 is None and entry.weights.url is not None:
        log.warning(
            "No SHA-256 is published for the weights of '%s'; only their MD5 is checked.",
            entry.name,
        )
    part = cache.partial_file(entry.name)
    download(entry.name, entry.weights, part, progress)
    tensors = read_weights(part)
    if entry.convert is not None:
        tensors = entry.convert(tensors)
    with replacing(target) as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary)
        cache.record_digest(entry.name, temporary, entry.weights.url or "")
    part.unlink(missing_ok=True)
    return target


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file or a ``torch.save`` archive, never running its code.

    Raises:
        InputError: the file is missing, damaged, holds pickled code, or no tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"There is no weights file '{path}'; check foundation.weights.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"The weights file '{path}' is damaged ({error}); fetch or copy it again."
            ) from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reads what is no archive of its own as whatever it may be
        if is_out_of_memory(error):
            raise
        if "Unsupported global" in str(error):
            raise InputError(
                f"The weights file '{path}' contains Python code besides tensors and is not "
                "opened; save its tensors as .safetensors, or use the official file."
            ) from None
        raise InputError(
            f"The weights file '{path}' is damaged or no weights file; fetch or copy it again."
        ) from None
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise InputError(f"The file '{path}' holds no named tensors; give a weights file.")
    tensors = {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise InputError(f"The file '{path}' holds no named tensors; give a weights file.")
    return tensors


@memory_sentence("choose a smaller foundation.name, or close other programs.")
def load_model(
    settings: FoundationSettings,
    device: torch.device | str = "cpu",
    progress: cache.Progress | None = None,
) -> FoundationModel:
    """The foundation model of the settings with its weights, on ``device``, in eval mode.

    Raises:
        InputError: unknown name, a package that is not installed, or weights that cannot be had
            or do not fit.
        OutOfMemoryError: the machine's or the device's memory does not suffice.
    """
    from SAMSemiSegLib.foundation.model import FOUNDATION

    entry = FOUNDATION[settings.resolved(str(device))]
    if entry.requires is not None:
        entry.requires()  # before anything is fetched
    if settings.weights is not None:
        path = Path(settings.weights).expanduser()
        tensors = read_weights(path)
        if entry.convert is not None:
            tensors = entry.convert(tensors)
    elif entry.weights is not None:
        path = fetch(entry, progress)
        tensors = read_weights(path)
    else:
        return entry.build().to(device).eval()
    model = entry.build()
    _load(model, tensors, entry.name, path)
    return model.to(device).eval()


def _load(model: FoundationModel, tensors: dict[str, Tensor], name: str, path: Path) -> None:
    """Load strictly; the message names the first tensor that does not fit."""
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in tensors.items()}
    wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    if wrong:
        raise InputError(
            f"The file '{path}' does not hold the weights of '{name}': {len(wrong)} tensors are "
            f"missing, unknown or of another shape, the first is '{wrong[0]}'; give the model's "
            "own file, or set foundation.name to the model the file belongs to."
        )
    model.load_state_dict(tensors, strict=True)
