"""``docs/results.md``: its tables of the methods hold what was measured."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

NAME = "methods-style"


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
    text = (benchmarks.parent / "docs" / "results.md").read_text(encoding="utf-8")
    section = text.split(f"### {title}, every method\n")[1].split("\n#")[0]
    table = section.split("\n\n")[1].splitlines()
    heads = _cells(table[0])
    shown = [dict(zip(heads, _cells(row), strict=True)) for row in table[2:]]

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


def _cells(row: str) -> list[str]:
    return [_plain(cell) for cell in row.strip("|").split("|")]


def _plain(cell: str) -> str:
    """Without what only the document, or only the command, has around a figure."""
    return re.sub(r"[*`]| \(\d+\)", "", cell).strip()
