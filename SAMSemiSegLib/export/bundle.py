"""A MONAI bundle: weights, network and inference configuration in MONAI's own terms.

``monai.bundle`` runs it without SAMSemiSeg, by standard transforms. These differ from ours in
how they resample (within interpolation error); ``samsemiseg predict`` runs the bundle with exactly
our preprocessing, from the model card in its metadata.
"""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from SAMSemiSegLib.atomic import write_json
from SAMSemiSegLib.export.model_card import ModelCard, readme
from SAMSemiSegLib.export.torchscript import export_torchscript
from SAMSemiSegLib.preprocessing.plan import IntensityRule

CARD_KEY = "samsemiseg_model_card"

PACKAGES = {"fire": "0.7.1", "nibabel": "5.3.2", "pynrrd": "1.1.3"}
"""What MONAI needs besides itself for its command, for NIfTI and for NRRD: each in a version that a
bundle was run with, with NumPy 2."""


def export_bundle(net: nn.Module, card: ModelCard, folder: Path) -> Path:
    """Write the folder ``bundle``: ``configs``, ``models``, ``docs``.

    Args:
        net: a plain V-Net.
        card: stored in ``configs/metadata.json`` and, in words, as ``docs/README.md``.
        folder: to write into; a former ``bundle`` in it is replaced.
    """
    path = folder / "bundle"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".bundle-", dir=folder))
    try:
        for name in ("configs", "models", "docs"):
            (temporary / name).mkdir()
        write_json(temporary / "configs" / "metadata.json", bundle_metadata(card))
        write_json(temporary / "configs" / "inference.json", inference_config(card))
        export_torchscript(net, card, temporary / "models")
        weights = copy.deepcopy(net).cpu().state_dict()
        torch.save(weights, temporary / "models" / "model.pt")
        (temporary / "docs" / "README.md").write_text(readme(card), encoding="utf-8")
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def bundle_metadata(card: ModelCard) -> dict[str, Any]:
    """``metadata.json`` after MONAI's schema, with the model card as one more entry."""
    channels = {"0": "background"} | {
        str(channel): name for channel, name in enumerate(card.label_set.names, start=1)
    }
    modality = card.plan.fingerprint.modality
    patch = list(card.patch)
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/"
        "0.8.1/meta_schema_20240725.json",
        "version": "1.0.0",
        "changelog": {"1.0.0": "exported"},
        "monai_version": metadata.version("monai"),
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": metadata.version("numpy"),
        "required_packages_version": PACKAGES
        | ({"scikit-image": "0.25.2"} if card.largest_component else {}),
        "name": card.name,
        "task": f"Segmentation of {', '.join(card.label_set.names)}",
        "description": "V-Net trained from few labeled and many unlabeled volumes. "
        "Not for clinical use.",
        "authors": "",
        "copyright": "",
        "intended_use": "Research",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude" if modality == "MR" else "hounsfield",
                    "modality": modality,
                    "num_channels": 1,
                    "spatial_shape": patch,
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": {"0": "image"},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": card.label_set.channels,
                    "spatial_shape": patch,
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": channels,
                }
            },
        },
        CARD_KEY: card.model_dump(mode="json"),
    }


def inference_config(card: ModelCard) -> dict[str, Any]:
    """``inference.json``: every image of ``dataset_dir`` to a label file in ``output_dir``.

    Run by the command that the card's README tells.
    """
    preprocessing = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": card.plan.orientation},
        {"_target_": "Spacingd", "keys": "image", "pixdim": list(card.plan.spacing)},
        *_intensity_transforms(card.plan.intensity),
        {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32"},
    ]
    postprocessing = [
        {
            "_target_": "Invertd",
            "keys": "pred",
            "transform": "@preprocessing",
            "orig_keys": "image",
            "nearest_interp": False,
            "to_tensor": True,
        },
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        *_cleaning_transforms(card.largest_component),
        {
            "_target_": "MapLabelValued",
            "keys": "pred",
            "orig_labels": list(range(card.label_set.channels)),
            "target_labels": [0, *card.label_set.values],
        },
        {
            "_target_": "SaveImaged",
            "keys": "pred",
            "output_dir": "@output_dir",
            "output_postfix": "segmentation",
            "output_dtype": "$np.uint16",
            "separate_folder": False,
        },
    ]
    return {
        "imports": ["$import glob", "$import numpy as np", "$import os", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "images",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "data": "$[{'image': i} for i in sorted(glob.glob(os.path.join(@dataset_dir, '*')))]",
        "network_def": "$torch.jit.load(@bundle_root + '/models/model.ts', "
        "map_location=@device).eval()",
        "preprocessing": {"_target_": "Compose", "transforms": preprocessing},
        "dataset": {"_target_": "Dataset", "data": "@data", "transform": "@preprocessing"},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(card.patch),
            "sw_batch_size": 1,
            "overlap": card.overlap,
            "mode": "gaussian",
            "padding_mode": "constant",
            "device": "$torch.device('cpu')",
            "sw_device": "@device",
        },
        "postprocessing": {"_target_": "Compose", "transforms": postprocessing},
        # As in our own prediction: probabilities are averaged over the windows, not logits, and
        # volumes smaller than a window are padded with their darkest value.
        "probabilities": "$lambda window: torch.softmax(@network_def(window), dim=1)",
        "darkest": "$lambda image: setattr(@inferer, 'cval', float(image.min()))",
        "scales": list(card.scales),
        "resized": "$lambda volumes, size: volumes if list(volumes.shape[2:]) == list(size) else "
        "torch.nn.functional.interpolate(volumes, size, mode='trilinear')",
        "look": "$lambda image, scale: @resized(@inferer(@resized(image, [max(1, round(scale * n)) "
        "for n in image.shape[2:]]), @probabilities), image.shape[2:])",
        "predict": "$torch.inference_mode()(lambda item: @darkest(item['image']) or "
        "@postprocessing({**item, 'pred': (sum(@look(item['image'][None], scale) "
        "for scale in @scales) / len(@scales))[0]}))",
        "run": ["$[@predict(item) and None for item in @dataset]"],
    }


def _cleaning_transforms(largest_component: Sequence[int]) -> list[dict[str, Any]]:
    keep = {
        "_target_": "KeepLargestConnectedComponentd",
        "keys": "pred",
        "applied_labels": list(largest_component),
        "independent": True,
        "connectivity": 1,
    }
    return [keep] if largest_component else []


def _intensity_transforms(rule: IntensityRule) -> list[dict[str, Any]]:
    key: dict[str, Any] = {"keys": "image"}
    if rule.kind == "zscore":
        clip = {"_target_": "ClipIntensityPercentilesd", "lower": rule.lower, "upper": rule.upper}
        return [clip | key, {"_target_": "NormalizeIntensityd"} | key]
    if rule.kind == "percentile":
        scale: dict[str, Any] = {
            "_target_": "ScaleIntensityRangePercentilesd",
            "lower": rule.lower,
            "upper": rule.upper,
            "b_min": -1.0,
            "b_max": 1.0,
            "clip": True,
        }
        return [scale | key]
    low, high = -1.0, 1.0
    if rule.kind == "ct":
        low, high = ((edge - rule.mean) / rule.std for edge in (rule.lower, rule.upper))
    window: dict[str, Any] = {
        "_target_": "ScaleIntensityRanged",
        "a_min": rule.lower,
        "a_max": rule.upper,
        "b_min": low,
        "b_max": high,
        "clip": True,
    }
    return [window | key]
