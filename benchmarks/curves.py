"""Dice against the number of labeled volumes, a panel for each set of scans."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ranking import final_row, title

Series = dict[str, dict[int, list[float]]]
"""Dice in percent of each run, by the name of the series and the number of labeled volumes."""


def series(lines: Sequence[dict[str, Any]]) -> dict[str, Series]:
    """What is to be drawn of these lines, by the set of scans: the final network of each run."""
    sets: dict[str, Series] = {}
    for line in lines:
        runs = sets.setdefault(line["dataset"], {}).setdefault(title(line), {})
        runs.setdefault(line["labels"], []).append(100 * line["rows"][final_row(line)]["dice"])
    return sets


def draw(sets: dict[str, Series], path: Path) -> None:
    """Write the picture, as its ending says: a dot for each run, a line through the means."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(5.4 * len(sets), 4.2), layout="constrained")
    for axes, (name, found) in zip(
        figure.subplots(1, len(sets), squeeze=False)[0], sorted(sets.items()), strict=True
    ):
        counts = sorted({labels for runs in found.values() for labels in runs})
        for label, runs in sorted(found.items()):
            means = [(labels, statistics.fmean(dice)) for labels, dice in sorted(runs.items())]
            (drawn,) = axes.plot(*zip(*means, strict=True), marker="_", label=label)
            dots = [(labels, dice) for labels, every in runs.items() for dice in every]
            axes.scatter(*zip(*dots, strict=True), s=14, alpha=0.6, color=drawn.get_color())
        axes.set(title=name, xlabel="labeled volumes", ylabel="Dice in percent", xscale="log")
        axes.set_xticks(counts)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
