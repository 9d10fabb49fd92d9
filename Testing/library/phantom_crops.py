"""Crops of phantoms, and small methods to learn them."""

from __future__ import annotations

import torch

from SAMSemiSegLib.retraining.ssl.method import METHODS, LabeledBatch, SSLMethod, UnlabeledBatch
from SAMSemiSegLib.retraining.student import build_method
from SAMSemiSegLib.retraining.vnet import VNet
from SAMSemiSegLib.run.settings import NetSettings, RetrainingSettings, Size3
from SAMSemiSegLib.training.progress import Progress

PATCH: Size3 = (32, 32, 32)
MIDDLE = Progress(60, 100)


def settings_of(name: str, **options: object) -> RetrainingSettings:
    """Small: narrow nets, group norm (which every method works with), small cubes."""
    if name == "magicnet":
        options = {"cube": 16, **options}
    if name == "ua_mt":
        options = {"passes": 2, **options}
    net = NetSettings(width=2, norm="group", dropout=0.1)
    return RetrainingSettings(method=name, options=options, net=net, pseudo_label_mode="off")


def build(settings: RetrainingSettings, channels: int = 2, seed: int = 0) -> SSLMethod:
    torch.manual_seed(seed)
    return build_method(settings, channels, 1, 2, PATCH)


def build_small(name: str, channels: int = 2, seed: int = 0) -> tuple[SSLMethod, Size3]:
    """For tests of many steps: crops as small as the method can work on."""
    settings = settings_of(name)
    net = NetSettings(width=4, norm="group", dropout=0.1)
    entry = METHODS[name]
    torch.manual_seed(seed)
    method = entry(
        lambda: VNet(channels, net, entry.needs.heads), channels, entry.Options(**settings.options)
    )
    patch = (32, 16, 16) if name == "magicnet" else (16, 16, 16)
    method.prepare(patch)
    return method, patch


def phantom(seed: int, channels: int = 2, size: Size3 = PATCH) -> tuple[torch.Tensor, torch.Tensor]:
    """Two crops with a bright ball (of as many shells as there are classes) at a random place."""
    draw = torch.Generator().manual_seed(seed)
    grid = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in size), indexing="ij"))
    sides = torch.tensor(size).view(3, 1, 1, 1)
    images, labels = [], []
    for _ in range(2):
        center = sides * (0.375 + 0.25 * torch.rand(3, 1, 1, 1, generator=draw))
        radius = (grid - center).square().sum(0).sqrt()
        inside = 1 - radius / (0.32 * min(size))
        label = (inside * (channels - 1)).clamp(-1, channels - 2).floor() + 1
        noise = torch.randn(size, generator=draw)
        images.append(3 * label / (channels - 1) - 1 + 0.3 * noise)
        labels.append(label.byte())
    return torch.stack(images).unsqueeze(1), torch.stack(labels)


def batches(
    seed: int, channels: int = 2, size: Size3 = PATCH
) -> tuple[LabeledBatch, UnlabeledBatch]:
    image, labels = phantom(2 * seed, channels, size)
    other, hidden = phantom(2 * seed + 1, channels, size)
    return LabeledBatch(image, labels), UnlabeledBatch(other, hidden)
