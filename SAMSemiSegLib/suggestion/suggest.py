"""The suggestion for a project: which of its unlabeled cases a person should label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.foundation.cache import Progress as Fetching
from SAMSemiSegLib.foundation.model import FOUNDATION
from SAMSemiSegLib.foundation.weights import load_model
from SAMSemiSegLib.project.case import Case
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.run.settings import FoundationSettings
from SAMSemiSegLib.suggestion.choice import first_to_label, next_to_label
from SAMSemiSegLib.suggestion.descriptors import Descriptor, Progress, descriptors_of

DEFAULT_MODEL = "lite_medsam"


@dataclass(frozen=True)
class SuggestedCase:
    """A case to label.

    Attributes:
        id: of the case.
        why: one sentence.
        stands_for: number of cases that it represents.
        confidence: of its segmentation, 0..1, where there is one.
    """

    id: str
    why: str
    stands_for: int
    confidence: float | None = None


@dataclass(frozen=True)
class Suggestion:
    """Cases to label, the best first.

    Attributes:
        mode: ``first`` before any network was trained: the most representative cases. ``next``
            after a round: those that stand for many of which the network is unsure.
        cases: to label.
        left_out: why an image could not be read, by case id.
    """

    mode: Literal["first", "next"]
    cases: list[SuggestedCase]
    left_out: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def suggest(
    project: Project,
    count: int,
    model_name: str = DEFAULT_MODEL,
    progress: Progress | None = None,
    fetching: Fetching | None = None,
) -> Suggestion:
    """Which unlabeled cases of a project to label.

    Evaluation cases are neither suggested nor looked at.

    Args:
        project: its cases; descriptors are kept in its ``suggestion`` folder.
        count: how many cases; fewer where fewer are unlabeled.
        model_name: foundation model that describes the volumes.
        progress: is told of each described case.
        fetching: is told while weights are fetched.

    Raises:
        InputError: nothing is left to label, there is no such model, or no volume can be read.
    """
    settings = FoundationSettings(name=FOUNDATION[model_name].name)
    if not project.unlabeled:
        raise InputError(
            f"The project '{project.name}' has no case left to label; import some with "
            "'samsemiseg project import'."
        )
    cases = [*project.labeled, *project.unlabeled]
    found, left_out = descriptors_of(
        project, cases, lambda: load_model(settings, "cpu", fetching), settings.name, progress
    )
    known = [case for case in cases if case.id in found]
    if all(case.trainable for case in known):
        reason = next(iter(left_out.values()))
        raise InputError(f"No unlabeled image of '{project.name}' can be read: {reason}")
    return choose(known, found, count, left_out)


def choose(
    cases: list[Case],
    descriptors: Mapping[str, Descriptor],
    count: int,
    left_out: Mapping[str, str] | None = None,
) -> Suggestion:
    """The suggestion from descriptors.

    Args:
        cases: labeled and unlabeled, each with a descriptor.
        descriptors: by case id.
        count: how many cases.
        left_out: handed on.
    """
    points = np.stack([descriptors[case.id] for case in cases]).astype(np.float64)
    labeled = [i for i, case in enumerate(cases) if case.trainable]
    reasons = dict(left_out or {})
    judged = (c.confidence is not None or c.status == "rejected" for c in cases if not c.trainable)
    if not any(judged):
        picks = first_to_label(points, count, labeled)
        chosen = [
            SuggestedCase(cases[p.index].id, _resemblance(p.stands_for), p.stands_for)
            for p in picks
        ]
        return Suggestion("first", chosen, reasons)
    # What a person has accepted says nothing about those still to be judged.
    confidence = [None if case.trainable else case.confidence for case in cases]
    chosen = [
        SuggestedCase(
            cases[p.index].id,
            f"{_certainty(cases[p.index], cases)}; {_resemblance(p.stands_for)}",
            p.stands_for,
            cases[p.index].confidence,
        )
        for p in next_to_label(points, confidence, count, labeled)
    ]
    return Suggestion("next", chosen, reasons)


def _resemblance(stands_for: int) -> str:
    if stands_for == 1:
        return "of those suggested, no other case resembles it most"
    others = "1 other case resembles" if stands_for == 2 else f"{stands_for - 1} others resemble"
    return f"of those suggested, {others} it most"


def _certainty(case: Case, cases: list[Case]) -> str:
    if case.status == "rejected":
        return "its segmentation was rejected"
    if case.confidence is None:
        return "not segmented yet"
    known = sorted(c.confidence for c in cases if c.confidence is not None and not c.trainable)
    rank = 1 + known.index(case.confidence)
    return f"confidence {case.confidence:.3f}, rank {rank} of {len(known)} from the lowest"
