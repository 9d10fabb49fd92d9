"""Which volumes are suggested for labeling, and why."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from typer.testing import CliRunner

from SAMSemiSegLib.command.app import app
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.case import Case
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.project.review import offer
from SAMSemiSegLib.suggestion import descriptors
from SAMSemiSegLib.suggestion.choice import first_to_label, next_to_label
from SAMSemiSegLib.suggestion.suggest import choose, suggest

TINY = "lite_tiny_random"
COORDINATES = st.integers(-9, 9).map(float)
POINTS = arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=COORDINATES)


def star(center: tuple[float, float], arms: int, length: float = 1.0) -> np.ndarray:
    """A center, then as many points on a circle around it."""
    angles = 2 * np.pi * np.arange(arms) / arms
    around = np.stack([np.cos(angles), np.sin(angles)], 1) * length
    return np.array(center) + np.vstack([np.zeros((1, 2)), around])


def test_the_center_of_a_cluster_is_the_first_and_stands_for_all() -> None:
    points = np.roll(star((3, -2), 7), 4, axis=0)
    (pick,) = first_to_label(points, 1)
    assert (pick.index, pick.stands_for) == (4, 8)


def test_each_cluster_gets_one_before_any_gets_two() -> None:
    sizes = (5, 10, 7)
    clusters = [star(at, n - 1) for at, n in zip([(0, 0), (100, 0), (0, 90)], sizes, strict=True)]
    picks = first_to_label(np.vstack(clusters), 3)
    cluster = np.repeat(range(3), sizes)
    assert {int(cluster[p.index]): p.stands_for for p in picks} == dict(enumerate(sizes))


def test_a_labeled_cluster_needs_no_second_label() -> None:
    points = np.vstack([star((0, 0), 9), star((50, 0), 4)])
    assert first_to_label(points, 1, labeled=[0])[0].index == 10


@given(POINTS, st.integers(0, 15), st.data())
@settings(max_examples=60, deadline=None)
def test_picks_are_unlabeled_and_different_and_as_many_as_there_are(
    points: np.ndarray, count: int, data: st.DataObject
) -> None:
    n = len(points)
    labeled = data.draw(st.lists(st.integers(0, n - 1), unique=True))
    confidence = data.draw(st.lists(st.none() | st.floats(0, 1), min_size=n, max_size=n))
    for picks in (
        [p.index for p in first_to_label(points, count, labeled)],
        [p.index for p in next_to_label(points, confidence, count, labeled)],
    ):
        assert len(picks) == len(set(picks)) == min(count, n - len(labeled))
        assert not set(picks) & set(labeled)


@given(POINTS)
@settings(max_examples=60, deadline=None)
def test_a_copy_comes_only_when_every_other_volume_was_picked(points: np.ndarray) -> None:
    doubled = np.vstack([points, points])
    different = len(np.unique(points, axis=0))
    by_first = [p.index for p in first_to_label(doubled, different)]
    by_next = [p.index for p in next_to_label(doubled, [0.5] * len(doubled), different, [])]
    for picks in (by_first, by_next):
        assert len(np.unique(doubled[picks], axis=0)) == different


@given(POINTS, st.data())
@settings(max_examples=60, deadline=None)
def test_more_picks_only_go_on_from_fewer(points: np.ndarray, data: st.DataObject) -> None:
    fewer = data.draw(st.integers(0, len(points)))
    every = [p.index for p in first_to_label(points, len(points))]
    assert [p.index for p in first_to_label(points, fewer)] == every[:fewer]


def test_next_stands_for_many_of_which_the_network_is_unsure() -> None:
    """Of three groups the first is labeled; the second is the larger one, but the network knows
    it; a lone odd volume, however unsure it is of it, teaches it about no other."""
    points = np.vstack([star((0, 0), 4), star((50, 0), 9), star((0, 60), 5), [[70, 70]]])
    confidence = [0.3] * 5 + [0.98] * 10 + [0.7] * 6 + [0.5]
    (pick,) = next_to_label(points, confidence, 1, labeled=[0])
    assert (pick.index, pick.stands_for) == (15, 7)
    # Sure of all alike, or of all for certain: as before any network.
    first = [p.index for p in first_to_label(points, 3, [0])]
    for alike in (0.7, 1.0):
        assert [p.index for p in next_to_label(points, [alike] * 22, 3, [0])] == first


def test_one_without_confidence_counts_as_the_least_certain() -> None:
    points = np.array([[0.0], [1.0], [-1.0]])
    assert next_to_label(points, [None, 0.9, None], 1, [0])[0].index in (1, 2)
    assert next_to_label(points, [0.2, 0.9, None], 1, [0])[0].index == 2


def test_the_reason_names_what_decided() -> None:
    cases = [
        Case(id="done", image="a", label="l", origin="expert", status="labeled"),
        Case(id="sure", image="b", status="pseudo", confidence=0.95),
        Case(id="unsure", image="c", status="pseudo", confidence=0.7),
        Case(id="thrown", image="d", status="rejected"),
    ]
    found = {case.id: np.array([i, 0], np.float32) for i, case in enumerate(cases)}
    after = choose(cases, found, 4)
    assert after.mode == "next"
    why = {case.id: case.why for case in after.cases}
    assert why["thrown"].startswith("its segmentation was rejected; ")
    assert why["unsure"] == (
        "confidence 0.700, rank 1 of 2 from the lowest; of those suggested, no other case "
        "resembles it most"
    )

    before = choose([c.model_copy(update={"confidence": None}) for c in cases[:3]], found, 1)
    assert before.mode == "first"
    # All that a network has offered are reviewed: it was there nevertheless.
    again = choose([cases[0], cases[3]], found, 1)
    assert again.mode == "next" and "rejected" in again.cases[0].why
    assert before.cases[0].stands_for is not None


@pytest.fixture
def project(tmp_path: Path, phantom_project: Callable[..., Project]) -> Project:
    """One labeled phantom, five unlabeled, one for evaluation."""
    return phantom_project(tmp_path / "ä", 7, 1, 1)


def test_a_descriptor_is_kept_until_its_image_changes(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = suggest(project, 3, TINY)
    kept = sorted((project.folder / descriptors.FOLDER).iterdir())
    assert len(kept) == 6  # the evaluation case is not looked at

    def fail(*_: object) -> None:
        raise AssertionError("the descriptor was made again")

    with monkeypatch.context() as patched:
        patched.setattr(descriptors, "describe", fail)
        assert suggest(project, 3, TINY) == first
    kept[0].write_text("{", encoding="utf-8")
    assert suggest(project, 3, TINY) == first

    image = project.path(project.unlabeled[0].image)
    image.write_bytes(b"no image")
    after = suggest(project, 9, TINY)
    assert list(after.left_out) == [project.unlabeled[0].id]
    assert len(after.cases) == 4


def test_the_command_says_why_and_as_json(project: Project) -> None:
    runner = CliRunner()
    arguments = ["project", "suggest", str(project.folder), "--count", "2", "--model", TINY]
    shown = runner.invoke(app, arguments)
    assert shown.exit_code == 0 and "Label these first" in shown.output

    told = json.loads(runner.invoke(app, [*arguments, "--json"]).stdout)
    ids = {case.id for case in project.unlabeled}
    assert told["mode"] == "first" and len(told["cases"]) == 2
    assert all(case["id"] in ids and case["id"] in shown.output for case in told["cases"])

    for number, case in enumerate(project.unlabeled):
        offer(project, case.id, project.folder / "x.seg.nrrd", 0.9 - 0.1 * number)
    after = json.loads(runner.invoke(app, [*arguments, "--json"]).stdout)
    assert after["mode"] == "next"
    assert all(case["stands_for"] >= 1 for case in after["cases"])


def test_with_nothing_left_to_label_it_says_so(project: Project) -> None:
    project.cases = project.labeled
    with pytest.raises(InputError, match="no case left to label"):
        suggest(project, 1, TINY)
    with pytest.raises(InputError, match="choose one of"):
        suggest(project, 1, "no_such_model")


def test_on_real_scans_copies_are_alike_and_others_are_not(hippocampus_folder: Path) -> None:
    from SAMSemiSegLib.foundation.model import FOUNDATION
    from SAMSemiSegLib.volumes.reading import read_image
    from SAMSemiSegLib.volumes.volume import Volume

    names = (hippocampus_folder / "train.list").read_text(encoding="utf-8").split()[:4]
    volumes = [read_image(hippocampus_folder / "images" / f"{n}.nii.gz") for n in names]
    # The same scan at another gain, as another scanner would store it.
    volumes.append(Volume(volumes[0].array.astype(np.float32) * 7 + 3, volumes[0].geometry))
    model = FOUNDATION[TINY].build().eval()
    points = np.stack([descriptors.describe(volume, model) for volume in volumes])
    assert np.isfinite(points).all()
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    assert apart[0, 4] < 0.05 * apart[0, 1:4].min()
    picks = [pick.index for pick in first_to_label(points, 4)]
    assert not {0, 4} <= set(picks)


def test_the_simulation_reveals_no_label_before_it_is_asked_for(
    benchmarks: Path, hippocampus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = importlib.import_module("suggestion")
    small = replace(benchmark.DATASETS["hippocampus"], training=4, evaluation=2)
    monkeypatch.setitem(benchmark.DATASETS, "hippocampus", small)
    monkeypatch.setattr(benchmark, "find_data", lambda name: hippocampus_folder)
    monkeypatch.setattr(benchmark, "_points", lambda *_: np.array([[0.0], [2], [3], [9]]))
    trained: list[int] = []
    train = benchmark._train

    def counted(scans: list[Any], *rest: Any) -> Any:
        trained.append(len(scans))
        return train(scans, *rest)

    monkeypatch.setattr(benchmark, "_train", counted)
    results = tmp_path / "results.jsonl"

    def simulate() -> list[dict[str, Any]]:
        benchmark.run(
            dataset="hippocampus", labels=[1, 2], orders=["random", "first", "rounds"], seeds=1,
            steps=2, pool=4, results=results, workspace=tmp_path,
        )  # fmt: skip
        found: list[dict[str, Any]] = benchmark.read(results)
        return found

    lines = simulate()
    assert [(line["order"], line["labels"]) for line in lines] == [
        (order, labels) for order in ("random", "first", "rounds") for labels in (1, 2)
    ]
    assert all(len(line["chosen"]) == line["labels"] and 0 <= line["dice"] <= 1 for line in lines)
    chosen = {(line["order"], line["labels"]): line["chosen"] for line in lines}
    assert chosen["rounds", 1] == chosen["first", 1] == chosen["first", 2][:1]
    assert len(trained) <= 5 and max(trained) == 2  # the network of both first labels is one
    assert simulate() == lines and len(trained) <= 5
