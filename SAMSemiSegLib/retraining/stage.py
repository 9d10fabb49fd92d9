"""Stage 3: the V-Net on labeled volumes and pseudo-labels, semi-supervised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from SAMSemiSegLib.atomic import replacing, write_json
from SAMSemiSegLib.augmentation.augmentation import Augmentation
from SAMSemiSegLib.augmentation.style import StyleExchange
from SAMSemiSegLib.finetuning.strategy import FinetuningStrategy
from SAMSemiSegLib.preprocessing.stage import PreparedCase
from SAMSemiSegLib.pseudolabels.pseudo_label import MappedPseudoLabel
from SAMSemiSegLib.retraining.alternation import OnlineAlternation
from SAMSemiSegLib.retraining.crops import CropSampler
from SAMSemiSegLib.retraining.patch import choose_patch
from SAMSemiSegLib.retraining.pseudo_label_term import PseudoLabelTerm
from SAMSemiSegLib.retraining.selection import Shape
from SAMSemiSegLib.retraining.ssl.method import LabeledBatch, UnlabeledBatch
from SAMSemiSegLib.retraining.student import adapt_settings, build_method, needs_of
from SAMSemiSegLib.retraining.vnet import VNet
from SAMSemiSegLib.run.settings import RetrainingSettings, RunSettings, Size3
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.loop import Optimization, Task, train
from SAMSemiSegLib.training.memory import memory_sentence
from SAMSemiSegLib.training.progress import Progress
from SAMSemiSegLib.training.randomness import generator, seed_torch

ADVICE = (
    "lower retraining.patch, retraining.net.width, retraining.labeled_batch or "
    "retraining.unlabeled_batch."
)

Batches = tuple[LabeledBatch, UnlabeledBatch | None]


@dataclass(frozen=True)
class RetrainingCase:
    """A preprocessed case with its pseudo-label.

    Attributes:
        case: labeled or unlabeled.
        pseudo_path: of the stored pseudo-label, or None.
        selected: whether its pseudo-label takes part: those of confident volumes do not (SFR+), nor
            those that cannot be right, also where they would be made anew (SFR+ online).
    """

    case: PreparedCase
    pseudo_path: Path | None = None
    selected: bool = True

    @property
    def image(self) -> np.ndarray[Any, Any]:
        return self.case.image

    @property
    def labels(self) -> np.ndarray[Any, Any] | None:
        return self.case.labels

    @property
    def pseudo_label(self) -> MappedPseudoLabel | None:
        return None if self.pseudo_path is None else MappedPseudoLabel(self.pseudo_path)


@dataclass(frozen=True)
class RetrainedNet:
    """The result of the stage.

    Attributes:
        net: plain V-Net in evaluation mode.
        patch: of training and of the sliding window.
    """

    net: VNet
    patch: Size3


def retrain(
    cases: Sequence[PreparedCase],
    pseudo_labels: Mapping[str, Path],
    channels: int,
    settings: RunSettings,
    folder: Path,
    context: Context,
    spacing: tuple[float, float, float],
    name: str = "retraining",
    selected: Mapping[str, bool] | None = None,
    foundation: FinetuningStrategy | None = None,
    label_names: Sequence[str] = (),
    warm: VNet | None = None,
    donors: Sequence[PreparedCase] = (),
) -> RetrainedNet:
    """Train the network of ``settings.retraining``.

    Args:
        cases: labeled and unlabeled (evaluation cases are ignored).
        pseudo_labels: path of the pseudo-label by case id.
        channels: K.
        settings: of the run.
        folder: keeps the checkpoint and the final ``net.safetensors``.
        context: collaborators.
        spacing: of the preprocessed volumes, in millimeters.
        name: of the stage in the event stream.
        selected: whether a case's pseudo-label takes part, by id; default: all.
        foundation: the fine-tuned foundation model, for the online alternation of SFR+.
        label_names: of the label set; used with ``foundation``.
        warm: network that training begins from; None: random weights.
        donors: further volumes whose style labeled crops may take on, beside those that are trained
            on.
    """
    labeled = [RetrainingCase(c) for c in cases if c.part == "labeled"]
    unlabeled = [
        RetrainingCase(c, pseudo_labels.get(c.id), (selected or {}).get(c.id, True))
        for c in cases
        if c.part == "unlabeled"
    ]
    own, notes = adapt_settings(settings.retraining, len(labeled), len(unlabeled))
    patch = own.patch or _patch(labeled + unlabeled, channels, own)
    seed_torch(settings.seed, "retraining-init", 0)
    method = build_method(own, channels, len(labeled), len(unlabeled), patch)
    if own.final_model == "ema" and method.ema_net() is None:
        notes.append(f"{method.title} keeps no moving average; its last network is the result.")
    if warm is not None:
        method.begin_from(warm.state_dict())
    if not method.uses_unlabeled:  # then only their pseudo-labels teach anything
        online = foundation is not None  # it labels the others' crops in training
        unlabeled = [c for c in unlabeled if c.pseudo_path is not None or (online and c.selected)]
    trained_on = labeled + unlabeled
    sampler = CropSampler(
        trained_on,
        patch,
        own,
        Augmentation(own.augmentation, spacing),
        StyleExchange(own.augmentation, [*trained_on, *donors]),
    )
    term = PseudoLabelTerm(method, own)
    if context.device.type == "cpu":
        # On processors 3D convolutions are about 1.7 times faster in this layout.
        term.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def draw(draws: np.random.Generator, progress: Progress) -> Batches:
        return sampler.draw(draws)

    trained: PseudoLabelTerm | OnlineAlternation = term
    done = folder / "net.safetensors"
    if foundation is not None and unlabeled and not done.exists():
        known = _crop_shapes(sampler, channels, generator(settings.seed, f"{name}-shapes", 0))
        with memory_sentence(ADVICE):
            trained = OnlineAlternation(term, foundation, known, label_names, settings, context)

    def step(batches: Batches, progress: Progress) -> tuple[dict[str, Tensor], dict[str, float]]:
        lab, unlab = (_to_device(batch, context.device) for batch in batches)
        result = trained.step(lab, unlab, progress)
        return result.losses, result.values

    task = Task(
        name=name,
        section="retraining",
        module=term,
        draw=draw,
        step=step,
        after_step=term.after_step,
        state=trained.state if isinstance(trained, OnlineAlternation) else term.state_dict,
        load_state=(
            trained.load_state if isinstance(trained, OnlineAlternation) else term.load_state_dict
        ),
        advice=ADVICE,
    )
    optimization = Optimization(own.optimizer, own.learning_rate, own.weight_decay, own.schedule)
    if not done.exists():
        for note in notes:
            context.events.message(note)
        train(task, own.budget, optimization, folder / "checkpoint.pt", context)
        if context.main:
            if isinstance(trained, OnlineAlternation):
                write_json(folder / "crops.json", list(trained.judged))
            _save(term, own, patch, folder)
        context.wait()
    return load_net(folder, channels, own)


def load_net(folder: Path, channels: int, settings: RetrainingSettings) -> RetrainedNet:
    """The network that :func:`retrain` left in ``folder``."""
    import json

    from safetensors import safe_open
    from safetensors.torch import load_file

    path = folder / "net.safetensors"
    with safe_open(path, "pt") as file:
        norm = (file.metadata() or {}).get("norm", settings.net.norm)
    net = VNet(channels, settings.net.model_copy(update={"norm": norm}))
    net.load_state_dict(load_file(path))
    x, y, z = json.loads((folder / "patch.json").read_text(encoding="utf-8"))
    return RetrainedNet(net.eval(), (x, y, z))


def _save(term: PseudoLabelTerm, settings: RetrainingSettings, patch: Size3, folder: Path) -> None:
    from safetensors.torch import save_file

    net = term.ema_net() if settings.final_model == "ema" else None
    net = net or term.final_net()
    assert isinstance(net, VNet)
    write_json(folder / "patch.json", list(patch))
    by_window = settings.window_statistics and net.settings.norm == "batch"
    plain = net.plain("instance" if by_window else None)
    weights = {key: value.contiguous().cpu() for key, value in plain.state_dict().items()}
    with replacing(folder / "net.safetensors") as temporary:
        save_file(weights, temporary, {"norm": plain.settings.norm})


def _crop_shapes(
    sampler: CropSampler, channels: int, draws: np.random.Generator, count: int = 16
) -> list[Shape]:
    """What the labels of labeled crops look like."""
    shapes: list[Shape] = []
    while len(shapes) < count:
        shapes += [Shape.of(x.numpy(), channels) for x in sampler.draw_labeled(draws).labels]
    return shapes


def _patch(cases: Sequence[RetrainingCase], channels: int, settings: RetrainingSettings) -> Size3:
    median = np.median([case.image.shape for case in cases], axis=0)
    return choose_patch(median.tolist(), channels, needs_of(settings).divisor)


def _to_device(batch: Any, device: torch.device) -> Any:
    if batch is None:
        return None
    moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(batch).items()}
    if device.type == "cpu":
        moved["image"] = moved["image"].contiguous(memory_format=torch.channels_last_3d)
    return type(batch)(**moved)
