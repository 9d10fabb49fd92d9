"""SFR+ in rounds: what the order of the stages does with volumes that the V-Net is sure of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from SAMSemiSegLib.preprocessing.stage import PreparedCase
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.run.folder import RunFolder
from SAMSemiSegLib.run.presets import load_settings
from SAMSemiSegLib.run.selection import ConfidentCase
from SAMSemiSegLib.run.start import start


def test_confident_volumes_teach_the_foundation_model_and_get_no_pseudo_label(
    tmp_path: Path, phantom_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tiny networks are never sure of is decided by hand: all but the last volume."""
    project = phantom_project(tmp_path, 5, 2, 0, seed=1, shape=(32, 32, 24))
    taught: list[list[str]] = []

    def choose(cases: list[PreparedCase], *_: object) -> dict[str, ConfidentCase]:
        sure = [case for case in cases if case.part == "unlabeled"][:-1]
        for case in sure:
            np.save(tmp_path / f"{case.id}.npy", np.ones(case.image.shape, np.uint8))
        return {case.id: ConfidentCase(case, tmp_path / f"{case.id}.npy") for case in sure}

    def fine_tune(
        strategy: object, labeled: list[PreparedCase], unlabeled: list[PreparedCase], *_: object
    ) -> None:
        taught.append([case.id for case in labeled])

    monkeypatch.setattr("SAMSemiSegLib.run.pipeline.choose_confident", choose)
    monkeypatch.setattr("SAMSemiSegLib.run.pipeline.finetune", fine_tune)
    monkeypatch.setattr("SAMSemiSegLib.run.start.hold_to_free_memory", lambda: None)
    settings = load_settings("tiny")
    settings.retraining.pseudo_label_mode = "selected"
    settings.retraining.selection.rounds = 1
    settings.export = ()
    folder = RunFolder(project.folder / "runs" / "plus")
    start(project, folder, settings)
    labeled, unlabeled = (["phantom_001", "phantom_002"], [f"phantom_00{n}" for n in (3, 4, 5)])
    assert taught == [labeled, [*labeled, *unlabeled[:-1]]]
    for place, expected in (("", unlabeled), ("round-1", unlabeled[-1:])):
        made = (folder / place / "pseudolabels").glob("*.npz")
        assert sorted(path.stem for path in made) == expected
