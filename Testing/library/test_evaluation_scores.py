"""Scores: summary, files and table."""

import csv
import io
import math

import pytest
from rich.console import Console

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.evaluation.metrics import Metrics
from SAMSemiSegLib.evaluation.scores import Scores

NAN = float("nan")


def _metrics(dice, distance=1.0):
    empty = math.isnan(distance)
    return Metrics(dice, dice / (2 - dice), distance, distance, distance, distance, empty)


@pytest.fixture
def scores():
    s = Scores()
    s.add("supervised", "a", {"front": _metrics(0.8, 2.0), "back": _metrics(0.6, 4.0)})
    s.add("supervised", "b", {"front": _metrics(0.0, NAN), "back": _metrics(0.2, 6.0)})
    s.add("re-trained", "a", {"front": _metrics(0.9), "back": _metrics(0.9)})
    return s


def test_summary_counts_failures_and_keeps_their_dice(scores):
    front, back, *_ = scores.summary()
    assert (front.row, front.label, front.cases, front.failures) == ("supervised", "front", 2, 1)
    assert front.figures["dice"].mean == pytest.approx(0.4)
    assert front.figures["hd95_mm"].mean == 2.0
    assert back.failures == 1 and back.figures["dice"].std == pytest.approx(0.4 / math.sqrt(2))
    overall = scores.overall("supervised")
    assert overall.figures["dice"].mean == pytest.approx((0.7 + 0.1) / 2)
    assert (overall.cases, overall.failures) == (2, 1)


def test_files_hold_everything(scores, tmp_path):
    scores.to_json(tmp_path / "scores.json")
    again = Scores.from_json(tmp_path / "scores.json")
    assert repr(again.rows) == repr(scores.rows)
    scores.to_csv(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 6 and lines[2]["hd95_mm"] == "" and lines[2]["failed"] == "1"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scores.csv", "scores.json"]


def test_a_file_with_something_else_is_named(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("[1, 2]")
    with pytest.raises(InputError, match=r"scores\.json"):
        Scores.from_json(path)


def test_table_has_one_line_per_row_name(scores):
    console = Console(file=io.StringIO(), width=120)
    (table,) = scores.tables()
    console.print(table)
    text = console.file.getvalue()
    assert "0.400 ±" in text and "1 of 2" in text and "re-trained" in text
    assert table.row_count == 2


@pytest.mark.parametrize("count", [1, 2, 3, 13])
def test_tables_fit_into_80_columns_whatever_the_number_of_labels(count):
    scores = Scores()
    labels = [f"a label of its own {n}" for n in range(count)]
    for row in ("supervised only", "warm start", "pseudo-labels", "re-trained (round 1)"):
        scores.add(row, "a", dict.fromkeys(labels, Metrics(0.5, 0.4, 1.0, 12.5, 1.0, 12.5, False)))
    console = Console(file=io.StringIO(), width=80)
    for table in scores.tables():
        console.print(table)
    text = console.file.getvalue()
    assert text.count("0 of 1") == 4 and text.count("12.50") == 4
    assert text.count("0.500") == (4 if count == 1 else 4 * (count + 1))
