"""Pseudo-labels for all unlabeled volumes, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from SAMSemiSegLib.atomic import write_json
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.finetuning.canvases import CanvasStrategy
from SAMSemiSegLib.finetuning.likeness import Likeness
from SAMSemiSegLib.finetuning.sampler import VolumeCase
from SAMSemiSegLib.finetuning.strategy import FinetuningStrategy, Sample
from SAMSemiSegLib.pseudolabels.make import make_pseudo_label, predict_with_guide
from SAMSemiSegLib.pseudolabels.picture import draw_pseudo_label
from SAMSemiSegLib.pseudolabels.pseudo_label import PseudoLabel
from SAMSemiSegLib.run.settings import PseudoLabelSettings
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.memory import WHOLE_VOLUMES, memory_sentence
from SAMSemiSegLib.training.randomness import generator, seed_torch

Color = tuple[int, int, int]
Case = TypeVar("Case", bound=VolumeCase)


def write_pseudo_labels(
    strategy: FinetuningStrategy,
    cases: Sequence[VolumeCase],
    settings: PseudoLabelSettings,
    names: Sequence[str],
    colors: Sequence[Color],
    folder: Path,
    context: Context,
    spacing: tuple[float, float, float],
    name: str = "pseudolabels",
    labeled: Sequence[VolumeCase] = (),
) -> dict[str, float]:
    """Write ``ID.npz`` and ``ID.png`` for each case, and ``scores.json``.

    Cases are shared out over the processes; what is already there is kept, so that a run that was
    stopped goes on with the next case.

    Args:
        strategy: the adapted foundation model.
        cases: unlabeled cases.
        settings: averaging and cleaning.
        names, colors: of the labels, without the background.
        folder: of the pseudo-labels.
        context: collaborators.
        spacing: of the preprocessed volumes, in millimeters.
        name: of the stage in the event stream.
        labeled: cases with labels, for ``settings.prototype_agreement``.

    Returns:
        The score of each case by its id.
    """
    strategy.to(context.device).eval()
    likeness = _likeness(strategy, labeled, context) if settings.prototype_agreement else None
    mine = set(context.share([case.id for case in cases]))
    context.events.stage(name, len(cases))
    for number, case in enumerate(cases, 1):
        context.cancellation.check()
        path = folder / f"{case.id}.npz"
        if case.id in mine and not path.exists():
            pseudo = predict_pseudo_label(strategy, case, settings, names, context, likeness)
            picture = path.with_suffix(".png")
            draw_pseudo_label(np.array(case.image), pseudo, picture, colors, spacing=spacing)
            pseudo.save(path)
            context.events.emit("picture", picture=f"{folder.name}/{picture.name}", message=case.id)
        context.events.progress(number, len(cases))
    context.wait()
    scores = {case.id: PseudoLabel.score_of(folder / f"{case.id}.npz") for case in cases}
    if context.main:
        write_json(folder / "scores.json", scores)
    context.wait()
    context.events.done()
    return scores


def draw_cases(cases: Sequence[Case], most: int | None, seed: int) -> list[Case]:
    """The cases that get a pseudo-label: all, or ``most`` of them in their order, the same at each
    call with the same seed."""
    if most is None or len(cases) <= most:
        return list(cases)
    chosen = generator(seed, "pseudo-labeled cases", 0).choice(len(cases), most, replace=False)
    return [cases[index] for index in sorted(chosen)]


def predict_pseudo_label(
    strategy: FinetuningStrategy,
    case: VolumeCase,
    settings: PseudoLabelSettings,
    names: Sequence[str],
    context: Context,
    likeness: Likeness | None = None,
) -> PseudoLabel:
    """The pseudo-label of one case; the same whichever process makes it.

    The strategy's ``guide`` has ``settings.vnet_share`` in the probabilities; ``likeness`` to the
    labeled volumes takes the confidence where it speaks against the prediction.
    """
    image = torch.from_numpy(np.array(case.image, dtype=np.float32)).to(context.device)
    seed_torch(context.seed, f"pseudolabel {case.id}", 0)
    with torch.inference_mode(), context.accelerator.autocast(), memory_sentence(strategy.advice):
        prediction = predict_with_guide(strategy, image, settings)
        if likeness is not None:
            same = likeness.agreement(image, prediction.probabilities)
            if prediction.agreement is not None:
                same = same * prediction.agreement.to(same.device)
            prediction = replace(prediction, agreement=same)
    with memory_sentence(WHOLE_VOLUMES):
        return make_pseudo_label(prediction, settings, names)


def require_canvases(strategy: type[FinetuningStrategy], setting: str) -> None:
    """Refuse a setting of ``pseudolabels`` that needs canvases: their features, or mirrored ones.

    Raises:
        InputError: the strategy has none.
    """
    if not issubclass(strategy, CanvasStrategy):
        raise InputError(
            f"The setting pseudolabels.{setting} does not work with {strategy.title}; set it to "
            "false, or choose another finetuning.strategy."
        )


def _likeness(
    strategy: FinetuningStrategy, labeled: Sequence[VolumeCase], context: Context
) -> Likeness:
    """Prototypes of the labeled volumes.

    Raises:
        InputError: the strategy has no features of canvases.
    """
    require_canvases(type(strategy), "prototype_agreement")
    assert isinstance(strategy, CanvasStrategy)
    samples = [
        Sample(
            case.id,
            torch.from_numpy(np.array(case.image, dtype=np.float32)).to(context.device),
            torch.from_numpy(np.array(case.labels)).to(context.device),
        )
        for case in labeled
        if case.labels is not None
    ]
    with context.accelerator.autocast(), memory_sentence(strategy.advice):
        return Likeness.of(strategy, samples)
