"""SFR+ between two rounds: ask the re-trained net how sure it is of each unlabeled volume, and let
the volumes it is sure of fine-tune the foundation model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from SAMSemiSegLib.atomic import replacing, write_json
from SAMSemiSegLib.preprocessing.stage import PreparedCase
from SAMSemiSegLib.retraining.selection import Decision, Evidence, Shape, select
from SAMSemiSegLib.run.settings import SelectionSettings
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.memory import WHOLE_VOLUMES, memory_sentence
from SAMSemiSegLib.volumes.components import keep_largest


@dataclass(frozen=True)
class ConfidentCase:
    """An unlabeled volume with the re-trained net's own segmentation as its label."""

    case: PreparedCase
    label_path: Path

    @property
    def id(self) -> str:
        return self.case.id

    @property
    def image(self) -> np.ndarray[Any, Any]:
        return self.case.image

    @property
    def labels(self) -> np.ndarray[Any, Any]:
        array: np.ndarray[Any, Any] = np.load(self.label_path, mmap_mode="r")
        return array


def choose_confident(
    cases: Sequence[PreparedCase],
    predict: Callable[[PreparedCase], np.ndarray[Any, Any]],
    settings: SelectionSettings,
    channels: int,
    whole: Sequence[int],
    folder: Path,
    context: Context,
) -> dict[str, ConfidentCase]:
    """The confident volumes by case id; ``folder/selection.json`` says why each is or is not. A
    warning tells where none or all are, with which a round has nothing to do.

    Args:
        cases: labeled ones give the usual shape, unlabeled ones are judged.
        predict: probabilities (K, X, Y, Z) of the re-trained net.
        settings: threshold or quantile, and the guards.
        channels: K.
        whole: channels that are in one piece: what lies apart of them is no label.
        folder: of the round.
        context: collaborators; the cases are shared out over the processes.
    """
    from accelerate.utils import gather_object

    unlabeled = [case for case in cases if case.part == "unlabeled"]
    kept = folder / "selection.json"
    if kept.exists():  # of a run that was stopped later
        decided = json.loads(kept.read_text(encoding="utf-8"))
        return {
            case.id: ConfidentCase(case, _label_path(folder, case))
            for case in unlabeled
            if decided.get(case.id, {}).get("confident")  # it may not have been readable then
        }
    known = [Shape.of(np.array(case.labels), channels) for case in cases if case.part == "labeled"]
    mine = set(context.share([case.id for case in unlabeled]))
    context.events.stage(f"selection:{folder.name.replace('-', ' ')}", len(unlabeled))
    evidence: list[tuple[str, Evidence]] = []
    for number, case in enumerate(unlabeled, 1):
        context.cancellation.check()
        if case.id in mine:
            with memory_sentence(WHOLE_VOLUMES):
                probabilities = predict(case)
                evidence.append((case.id, Evidence.of(probabilities)))
                label = keep_largest(probabilities.argmax(0), whole).astype(np.uint8)
            with replacing(_label_path(folder, case)) as temporary:
                np.save(temporary, label)
        context.events.progress(number, len(unlabeled))
    if context.accelerator.num_processes > 1:
        evidence = gather_object(evidence)
    decisions = select(dict(evidence), known, settings)
    chosen = {
        case.id: ConfidentCase(case, _label_path(folder, case))
        for case in unlabeled
        if decisions[case.id].confident
    }
    if context.main:
        write_json(kept, {id: vars(d) for id, d in decisions.items()})
        _tell(len(chosen), decisions, settings, context)
    context.wait()
    context.events.done()
    return chosen


def _tell(
    chosen: int,
    decisions: Mapping[str, Decision],
    settings: SelectionSettings,
    context: Context,
) -> None:
    context.events.message(f"{chosen} of {len(decisions)} volumes are confident.")
    by_threshold = settings.mode == "threshold"
    if chosen == 0:
        best = max(decisions.values(), key=lambda decision: decision.confidence)
        advice = (
            "lower retraining.selection.threshold or set retraining.selection.mode=quantile"
            if by_threshold
            else "raise retraining.selection.quantile"
        )
        context.events.warning(
            f"No volume is confident, so that a further round would change nothing; {advice}. "
            f"The most confident one ({best.confidence:.4f}): {best.reason}"
        )
    elif chosen == len(decisions):
        advice = (
            "raise retraining.selection.threshold or set retraining.selection.mode=quantile"
            if by_threshold
            else "lower retraining.selection.quantile"
        )
        context.events.warning(
            "All volumes are confident, so that none is left for a pseudo-label and there is no "
            f"further round; {advice}."
        )


def _label_path(folder: Path, case: PreparedCase) -> Path:
    return folder / "labels" / f"{case.id}.npy"
