"""SFR+ between two rounds: the labels of confident volumes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from SAMSemiSegLib.run.cancellation import Cancellation
from SAMSemiSegLib.run.events import Events, read_events
from SAMSemiSegLib.run.selection import ConfidentCase, choose_confident
from SAMSemiSegLib.run.settings import SelectionSettings
from SAMSemiSegLib.training.context import Context
from SAMSemiSegLib.training.devices import make_accelerator


def case(id: str, part: str = "unlabeled") -> SimpleNamespace:
    return SimpleNamespace(id=id, part=part, labels=ball_and_speck()[1] > 0.5)


def ball_and_speck(certainty: float = 0.9) -> np.ndarray:
    """(2, X, Y, Z) probabilities."""
    foreground = np.full((12, 12, 12), 0.001)
    foreground[3:9, 3:9, 3:9] = certainty
    foreground[0, 0, :2] = certainty
    return np.stack([1 - foreground, foreground])


def choose(
    tmp_path: Path, cases: list[SimpleNamespace], settings: SelectionSettings, whole: list[int]
) -> tuple[dict[str, ConfidentCase], list[str]]:
    """The confident volumes, each less sure than the one before; and the warnings."""
    path = tmp_path / "events.jsonl"
    context = Context(
        make_accelerator("cpu", "no"), Events(path, ()), Cancellation(tmp_path / "cancel", False), 1
    )
    sure = {case.id: 0.9 - 0.1 * number for number, case in enumerate(cases)}
    chosen = choose_confident(
        cases,  # type: ignore[arg-type]
        lambda case: ball_and_speck(sure[case.id]),
        settings,
        2,
        whole,
        tmp_path / "round-1",
        context,
    )
    return chosen, [e["message"] for e in read_events(path) if e["kind"] == "warning"]


@pytest.mark.parametrize("whole", [[], [1]])
def test_what_lies_apart_of_an_organ_in_one_piece_teaches_nobody(
    tmp_path: Path, whole: list[int]
) -> None:
    """At prediction too, boxes are drawn around the organ without it."""
    cases = [case("labeled", "labeled"), case("sure"), case("unsure")]
    settings = SelectionSettings(mode="quantile", quantile=0.5)
    chosen, warnings = choose(tmp_path, cases, settings, whole)
    assert list(chosen) == ["sure"] and not warnings
    labels = chosen["sure"].labels
    assert labels[3:9, 3:9, 3:9].all() and labels[0].any() == (not whole)
    # Resumed, with a volume that could not be read when the round began.
    again, _ = choose(tmp_path, [*cases, case("late")], settings, whole)
    assert list(again) == ["sure"]


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        (SelectionSettings(threshold=1.0), "lower retraining.selection.threshold"),
        (SelectionSettings(threshold=0.0), "raise retraining.selection.threshold"),
        (SelectionSettings(mode="quantile", quantile=0.1), "raise retraining.selection.quantile"),
        (SelectionSettings(mode="quantile", quantile=1.0), "lower retraining.selection.quantile"),
    ],
)
def test_a_round_with_nothing_to_do_says_which_setting_to_change(
    tmp_path: Path, settings: SelectionSettings, advice: str
) -> None:
    cases = [case("labeled", "labeled"), case("one"), case("two")]
    _, (warning,) = choose(tmp_path, cases, settings, [1])
    assert advice in warning
