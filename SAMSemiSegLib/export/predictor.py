"""Prediction from an exported model, whichever of the three it is."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.export import bundle, onnx
from SAMSemiSegLib.export.model_card import FILE_NAME, ModelCard
from SAMSemiSegLib.preprocessing.preprocessor import Preprocessor
from SAMSemiSegLib.retraining.inference import predict_probabilities
from SAMSemiSegLib.retraining.vnet import VNet
from SAMSemiSegLib.training.devices import choose_device
from SAMSemiSegLib.volumes.components import keep_largest
from SAMSemiSegLib.volumes.volume import Volume


class Predictor:
    """A network and its card: from a volume as it was read to labels on the same grid.

    Args:
        net: (B, 1, X, Y, Z) to logits (B, K, X, Y, Z).
        card: preprocessing, window, labels.
        device: where the network runs; it is moved there.

    Attributes:
        on_cpu: whether main memory is all that a prediction needs.
    """

    def __init__(self, net: nn.Module, card: ModelCard, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.net = net.to(self.device).eval()
        self.card = card
        self.on_cpu = self.device.type == "cpu"
        self._preprocessor = Preprocessor(card.plan)

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> Predictor:
        """Open an exported model: ``.ts``/``.pt`` (TorchScript), ``.onnx``, a bundle's folder, or a
        folder that holds any of these. No pickled code is ever run.

        Raises:
            InputError: it is none of these, it is damaged, or the device is not there.
        """
        chosen = choose_device(device)
        on_cpu = chosen.type == "cpu"
        path = _model_in(path)
        if path.is_dir():
            net, card = _load_bundle(path)
        elif path.suffix.lower() == ".onnx":
            net, card = _load_onnx(path, chosen)
            chosen = torch.device("cpu")  # tensors pass through main memory; the session has chosen
        else:
            net, card = _load_torchscript(path)
        predictor = cls(net, card, chosen)
        predictor.on_cpu = on_cpu
        return predictor

    def predict_probabilities(self, volume: Volume) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Softmax probabilities (K, X, Y, Z) on the preprocessed grid (RAS, the plan's spacing)."""
        image = torch.from_numpy(self._preprocessor.image(volume))
        probabilities = predict_probabilities(
            self.net,
            image,
            self.card.patch,
            self.card.overlap,
            self.device,
            scales=self.card.scales,
        )
        return probabilities.numpy()

    def predict(self, volume: Volume) -> Volume:
        """Channel indices (uint8) on the volume's own grid; ``card.label_set`` names them."""
        labels = self._preprocessor.back(self.predict_probabilities(volume), volume.geometry)
        return Volume(keep_largest(labels, self.card.largest_component), volume.geometry)


class OnnxNet(nn.Module):
    """An ONNX session that is called like any other network."""

    def __init__(self, path: Path, device: torch.device) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        providers = ["CPUExecutionProvider"]
        if device.type == "cuda" and "CUDAExecutionProvider" in (
            onnxruntime.get_available_providers()
        ):
            providers.insert(0, "CUDAExecutionProvider")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)

    @property
    def card(self) -> str:
        """The JSON of the model card; empty if there is none."""
        entries = self._session.get_modelmeta().custom_metadata_map
        return str(entries.get(onnx.CARD_KEY, ""))

    def forward(self, image: Tensor) -> Tensor:
        values = np.ascontiguousarray(image.detach().cpu().numpy(), dtype=np.float32)
        try:
            (logits,) = self._session.run(["logits"], {"image": values})
        except Exception as error:  # onnxruntime's errors have no common class of their own
            if "alloc" in str(error).lower():
                raise MemoryError(str(error)) from error
            raise
        return torch.from_numpy(logits)


def _model_in(path: Path) -> Path:
    """The model itself, where a run's ``model`` folder is named."""
    if not path.exists():
        raise InputError(
            f"There is no model at '{path}'; give a run's model folder, a .ts or .onnx file, or "
            "a bundle."
        )
    if path.is_dir() and not (path / "configs" / "metadata.json").exists():
        for name in ("model.ts", "model.onnx", "bundle"):
            if (path / name).exists():
                return path / name
        raise _no_model(path)
    return path


def _load_torchscript(path: Path) -> tuple[nn.Module, ModelCard]:
    extra = {FILE_NAME: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
    except (RuntimeError, ValueError, OSError) as error:
        raise _no_model(path) from error
    text: str | bytes = extra[FILE_NAME]
    return net, _card(path, text)


def _load_onnx(path: Path, device: torch.device) -> tuple[nn.Module, ModelCard]:
    try:
        net = OnnxNet(path, device)
    except ImportError as error:
        raise InputError(
            f"'{path.name}' needs the package onnxruntime, which cannot be used here ({error}); "
            "install it, or use the TorchScript model or the MONAI bundle of the same run."
        ) from error
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise _no_model(path) from error
    return net, _card(path, net.card)


def _load_bundle(path: Path) -> tuple[nn.Module, ModelCard]:
    try:
        entries = json.loads((path / "configs" / "metadata.json").read_text(encoding="utf-8"))
        card = _card(path, json.dumps(entries.get(bundle.CARD_KEY)))
        net = VNet(card.label_set.channels, card.net)
        weights = torch.load(path / "models" / "model.pt", map_location="cpu", weights_only=True)
        net.load_state_dict(weights)
    except (
        OSError,
        ValueError,
        RuntimeError,
        AttributeError,
        TypeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        raise _no_model(path) from error
    return net, card


def _card(path: Path, text: str | bytes) -> ModelCard:
    if not text or text == "null":
        raise InputError(
            f"'{path}' carries no model card, so its preprocessing is unknown; export it with "
            "SAMSemiSeg."
        )
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError as error:
        raise InputError(
            f"The model card in '{path}' cannot be read, perhaps because a newer version wrote "
            "it; update SAMSemiSeg or export the model again."
        ) from error


def _no_model(path: Path) -> InputError:
    return InputError(
        f"'{path}' is not a model that SAMSemiSeg has exported, or it is damaged; give a run's "
        "model folder (runs/NAME/model), a .ts or .onnx file, or the folder of a bundle."
    )
