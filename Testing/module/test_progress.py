"""What the panel makes of events, settings, queues and results; no Qt, no process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
from SAMSemiSegModule.process.arguments import (
    chosenSettings,
    parseSettings,
    resumeArguments,
    trainArguments,
)
from SAMSemiSegModule.process.prediction import expect, isComplete, resultOf
from SAMSemiSegModule.process.progress import MOST_POINTS, SHARES, WARM_SHARES, RunProgress, inWords
from SAMSemiSegModule.process.tail import MOST_BYTES, EventTail, TextTail
from SAMSemiSegModule.review.queue import neighbor, reason, waitingCases


def event(kind: str, stage: str = "retraining", time: float = 0.0, **fields) -> dict:
    return {"kind": kind, "stage": stage, "time": time, **fields}


def test_progress_of_stage_and_whole():
    progress = RunProgress()
    progress.take(event("start", "", 100.0))
    progress.take(event("stage", "finetuning", 101.0, step=0, total=10))
    progress.take(event("progress", "finetuning", 111.0, step=5, total=10, seconds_left=10))
    assert progress.stageFraction == 0.5 and progress.stageSecondsLeft == 10
    assert progress.fraction == pytest.approx(0.03 + 0.38 / 2)
    assert progress.secondsLeft == pytest.approx(11 / progress.fraction * (1 - progress.fraction))


def test_a_warm_start_is_a_part_of_the_whole_and_scoring_is_none():
    progress = RunProgress()
    progress.take(event("stage", "warm-start", step=0, total=10))
    progress.take(event("progress", "warm-start", step=10, total=10))
    warm = progress.fraction
    assert warm == pytest.approx(0.33)
    progress.take(event("progress", "evaluation:warm start", step=2, total=2))
    assert progress.fraction == warm
    progress.take(event("progress", "finetuning", step=1, total=2))
    assert warm < progress.fraction < 0.4
    for shares in (SHARES, WARM_SHARES):
        assert sum(shares.values()) == pytest.approx(1)


def test_whole_never_goes_back():
    progress = RunProgress()
    progress.take(event("progress", "proposals", step=1, total=1))
    before = progress.fraction
    progress.take(event("progress", "evaluation:re-trained", step=0, total=2))
    assert progress.fraction == before
    assert progress.stageTitle() == "Scoring"


def test_repeated_steps_after_a_resume_replace_the_old_ones():
    progress = RunProgress()
    for step in (1, 2, 3, 2, 3, 4):
        progress.take(event("progress", step=step, total=9, values={"loss": step / 10}))
    assert [x for x, _ in progress.curves["loss"]] == [1, 2, 3, 4]


def test_a_single_term_is_not_drawn_beside_the_total():
    progress = RunProgress()
    progress.curves = {"loss": [(1, 0.5)], "supervised": [(1, 0.5)]}
    assert set(progress.shownCurves) == {"loss"}
    progress.curves["pseudo label"] = [(1, 0.1)]
    assert progress.shownCurves == progress.curves


def test_curves_stay_short_and_whole():
    progress = RunProgress()
    for step in range(1, 5000):
        progress.take(event("progress", step=step, total=5000, values={"loss": 1.0}))
    assert len(progress.curves["loss"]) <= MOST_POINTS
    assert progress.curves["loss"][0][0] == 1


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "progress"},
        {"kind": "progress", "step": "x", "total": 0, "values": [1]},
        {"kind": "progress", "step": 1, "total": 2, "values": {"loss": None, "dice": "high"}},
        {"kind": "scores", "values": None},
        {"kind": "something new"},
    ],
)
def test_events_of_another_shape_are_passed_over(broken):
    progress = RunProgress()
    progress.take(broken)
    assert progress.curves.get("loss") is None


def test_time_left_in_words():
    assert inWords(None) == "time left not known yet"
    assert inWords(30) == "less than a minute left"
    assert inWords(60) == "about a minute left"
    assert inWords(600) == "about 10 minutes left"
    assert inWords(7200) == "about 2.0 hours left"


def test_tail_joins_what_was_written_in_pieces(tmp_path: Path):
    path = tmp_path / "log"
    tail = TextTail(path)
    assert tail.read() == ""
    data = "größer".encode()
    path.write_bytes(data[:3])  # in the middle of the letter
    first = tail.read()
    with path.open("ab") as file:
        file.write(data[3:])
    assert first + tail.read() == "größer"


def test_tail_passes_over_a_flood(tmp_path: Path):
    path = tmp_path / "log"
    path.write_bytes(b"x" * 10 * MOST_BYTES + b"the end")
    tail = TextTail(path)
    tail.skipToLast()
    text = tail.read()
    assert len(text) == MOST_BYTES and text.endswith("the end")
    tail.skipToLast()
    assert tail.read() == ""


def test_event_is_read_once_its_line_is_whole(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    tail = EventTail(path)
    path.write_text('{"kind": "sta')
    assert tail.read() == []
    with path.open("a") as file:
        file.write('ge"}\n')
    assert tail.read() == [{"kind": "stage"}]


def parameters(**changes) -> SimpleNamespace:
    chosen = {
        "preset": "quick",
        "foundation": "auto",
        "strategy": "auto",
        "method": "auto",
        "seed": 7,
        "supervisedBaseline": False,
        "finetuningMinutes": 0.0,
        "retrainingMinutes": 0.0,
        "extraSettings": "",
    }
    return SimpleNamespace(**{**chosen, **changes})


def test_what_is_left_to_the_preset_is_not_set():
    assert chosenSettings(parameters()) == {}
    chosen = parameters(strategy="lora", method="acmt")
    assert chosenSettings(chosen) == {"finetuning.strategy": "lora", "retraining.method": "acmt"}


def test_chosen_settings_reach_the_command_line():
    chosen = parameters(foundation="sam_vit_b", retrainingMinutes=2.5, extraSettings="a.b=[1, 2]")
    with pytest.raises(ValueError, match="2]"):
        chosenSettings(chosen)
    chosen.extraSettings = "'a.b=[1, 2]'"
    arguments = trainArguments(Path("p"), "run-1", chosen, chosenSettings(chosen), "cuda")
    pairs = [arguments[i + 1] for i, word in enumerate(arguments) if word == "--set"]
    assert "retraining.budget.minutes=2.5" in pairs and "a.b=[1, 2]" in pairs
    assert "foundation.name=sam_vit_b" in pairs
    assert arguments[:8] == [
        "train",
        "p",
        "--preset",
        "quick",
        "--run",
        "run-1",
        "--device",
        "cuda",
    ]
    assert resumeArguments(Path("p"), "run-1")[-1] == "--resume"


def test_settings_with_an_open_quote_are_refused():
    with pytest.raises(ValueError, match="cannot be read"):
        parseSettings("a='1")


def test_further_settings_hold_paths_of_every_system():
    words = [
        r"foundation.weights=C:\Users\me\x.pth",
        "a='/home/Jane Doe/f#1'",
        'retraining.patch="[32, 32, 32]"',
    ]
    assert parseSettings(" ".join(words)) == {
        "foundation.weights": r"C:\Users\me\x.pth",
        "a": "/home/Jane Doe/f#1",
        "retraining.patch": "[32, 32, 32]",
    }
    with pytest.raises(ValueError, match="in quotes"):
        parseSettings("foundation.weights=/home/Jane Doe/f.pth")


@dataclass
class Case:
    id: str
    confidence: float | None
    status: str = "pseudo"


def test_queue_goes_from_the_least_certain_with_a_clear_end():
    cases = [Case("a", 0.9), Case("b", 0.1), Case("c", None), Case("d", 0.5, "accepted")]
    waiting = waitingCases(cases)
    assert [case.id for case in waiting] == ["c", "b", "a"]
    assert neighbor(waiting, "", 1) == "c"
    assert neighbor(waiting, "b", 1) == "a"
    assert neighbor(waiting, "a", 1) is None and neighbor(waiting, "c", -1) is None
    assert neighbor([], "a", 1) is None
    assert "number 2 of 3" in reason(waiting[1], waiting)
    assert "No confidence" in reason(waiting[0], waiting)


def test_an_old_file_is_no_result(tmp_path: Path):
    import os

    job, output = tmp_path / "job", tmp_path / "out"
    output.mkdir()
    result = resultOf(Path("scan.nii.gz"), output)
    assert result.name == "scan.seg.nrrd"
    assert not isComplete(job)
    result.write_text("of yesterday")
    os.utime(result, (1, 1))
    expect(job, [result])
    assert not isComplete(job)
    result.write_text("new")
    assert isComplete(job)
