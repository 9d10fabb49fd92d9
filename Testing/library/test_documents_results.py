"""``docs/results.md``: its tables of the methods hold what was measured."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

NAME = "methods-style"
SECTION = "## Every method plain, SFR and SFR+\n"


@pytest.mark.parametrize(
    "title, dataset, labels",
    [
        ("Hippocampus, one label", "hippocampus", 1),
        ("Hippocampus, four labels", "hippocampus", 4),
        ("Hippocampus, sixteen labels", "hippocampus", 16),
        ("Left atrium, one label", "la", 1),
        ("Left atrium, four labels", "la", 4),
    ],
)
def test_a_table_of_the_methods_shows_the_lines_of_its_runs(
    title: str, dataset: str, labels: int, accuracy: ModuleType, benchmarks: Path
) -> None:
    shown = _table_after(f"### {title}, every method\n", benchmarks)
    lines = [
        line
        for line in accuracy.read(accuracy.RESULTS, [NAME])
        if (line["dataset"], line["labels"]) == (dataset, labels)
    ]
    measured = {row[3]: row[4:8] + row[10:] for row in accuracy.ranking(lines, lambda *_: None)}
    assert {
        row["method"]: tuple(row[head] for head in ("plain", "SFR", "SFR+", "HD95 mm", "minutes"))
        for row in shown
    } == {method: tuple(map(_plain, cells)) for method, cells in measured.items()}


def test_the_overview_of_the_methods_counts_their_runs(
    accuracy: ModuleType, benchmarks: Path
) -> None:
    shown = {row[""]: row for row in _table_after(SECTION, benchmarks)}
    heads = ("plain", "SFR", "SFR+", "SFR helps", "SFR+ helps once more", "best row")
    titles = {"hippocampus": "hippocampus", "la": "left atrium"}
    assert {title: tuple(row[head] for head in heads) for title, row in shown.items()} == {
        f"{titles[dataset]}, {labels} label{'s' if labels != '1' else ''}": tuple(cells)
        for dataset, labels, _, *cells in accuracy.gains(accuracy.read(accuracy.RESULTS, [NAME]))
    }


def _table_after(title: str, benchmarks: Path) -> list[dict[str, str]]:
    """Rows of the first table in a section."""
    text = (benchmarks.parent / "docs" / "results.md").read_text(encoding="utf-8")
    paragraphs = text.split(title)[1].split("\n#")[0].split("\n\n")
    table = next(paragraph for paragraph in paragraphs if paragraph.startswith("|"))
    heads, _, *rows = map(_cells, table.splitlines())
    return [dict(zip(heads, row, strict=True)) for row in rows]


def _cells(row: str) -> list[str]:
    return [_plain(cell) for cell in row.strip("|").split("|")]


def _plain(cell: str) -> str:
    """Without what only the document, or only the command, has around a figure."""
    return re.sub(r"[*`]| \(\d+\)", "", cell).strip()
