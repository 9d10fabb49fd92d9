"""Presets, and what becomes of them by single settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.run.checks import check_before_start
from SAMSemiSegLib.run.presets import load_settings

MakeProject = Callable[..., Project]


@pytest.fixture
def project(tmp_path: Path, phantom_project: MakeProject) -> Project:
    return phantom_project(tmp_path, 2, 1, seed=1)


def test_a_presets_options_are_those_of_its_own_strategy(project: Project) -> None:
    rank = "finetuning.options.rank=8"
    for preset in ("demo", "paper"):
        own = load_settings(preset).finetuning
        assert own.options
        other = load_settings(preset, ["finetuning.strategy=cpc"])
        assert not other.finetuning.options
        check_before_start(project, other)
        assert load_settings(preset, [f"finetuning.strategy={own.strategy}"]).finetuning == own
    assert load_settings("paper", [rank]).finetuning.options["upscale"] == 1
    for given in (["finetuning.strategy=houlsby", rank], [rank, "finetuning.strategy=houlsby"]):
        assert load_settings("paper", given).finetuning.options == {"rank": 8}


def test_steps_that_are_asked_for_are_made_whatever_the_minutes_of_the_preset() -> None:
    for given, minutes in (([], 30), (["retraining.budget.minutes=2"], 2)):
        steps = load_settings("balanced", ["retraining.budget.steps=500", *given])
        assert steps.retraining.budget.steps == 500
        assert steps.retraining.budget.minutes == (minutes if given else None)
    assert load_settings("balanced").retraining.budget.minutes == 30


def test_a_preset_that_is_no_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    for text in ("[1]", "{", ""):
        path.write_text(text)
        with pytest.raises(InputError, match=r"mine\.json"):
            load_settings(str(path))
    with pytest.raises(InputError, match="quick"):
        load_settings("nope")
