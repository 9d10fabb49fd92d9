"""The figures of :mod:`variants`, over labeled cases and seeds: a table of the methods, and what
pseudo-labels and selection give them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from variants import MODES

Run = tuple[dict[str, Any], float]
"""Figures of a run's last network, and the seconds that its stages took."""
DiceOfRuns = dict[tuple[int, int], float]
"""Dice in percent, by first labeled case and seed."""
MISSING = "–"
WAYS = {"plain": "plain", "sfr": "SFR", "sfr+": "SFR+"}
"""As the papers write them."""


def title(line: dict[str, Any]) -> str:
    """Configuration, method and variant of a line of the results."""
    return " ".join(filter(None, (line["name"], line.get("method"), line.get("variant"))))


def final_row(line: dict[str, Any]) -> str:
    """Name of the row that holds the scores of a run's last network."""
    return [row for row in line["rows"] if row.startswith("re-trained")][-1]


def ranking(
    lines: Sequence[dict[str, Any]], published: Callable[[str, int, str], float | None]
) -> list[tuple[str, ...]]:
    """One row for each set, number of labels, configuration and method; within a configuration the
    method with the best Dice in any of the three ways first.

    Args:
        lines: of the results file; those without a method are left out.
        published: Dice in percent by set, number of labels and ``method/variant``, where known.

    Returns:
        Set, labels, configuration, method; Dice in percent plain, with SFR and with SFR+ (mean,
        standard deviation and number of runs where there are several); then, each for the three
        ways, HD95 in millimeters, failed cases, published Dice, minutes.
    """
    groups: dict[tuple[Any, ...], dict[str, list[Run]]] = {}
    for line in lines:
        if "method" in line:
            key = (line["dataset"], line["labels"], line["name"], line["method"])
            run = line["rows"][final_row(line)], line["seconds"]
            groups.setdefault(key, {}).setdefault(line["variant"], []).append(run)
    ranked = []
    for key, ways in groups.items():
        dice = {way: _dice(runs) for way, runs in ways.items()}
        known = {way: published(key[0], key[1], f"{key[3]}/{way}") for way in MODES}
        of_ways = (
            {way: _hd95(runs) for way, runs in ways.items()},
            {way: _failed(runs) for way, runs in ways.items()},
            {way: f"{figure:.1f}" for way, figure in known.items() if figure is not None},
            {way: f"{statistics.fmean(s for _, s in runs) / 60:.1f}" for way, runs in ways.items()},
        )
        cells = (
            *(str(part) for part in key),
            *(dice[way][1] if way in dice else MISSING for way in MODES),
            *(", ".join(shown.get(way, MISSING) for way in MODES) for shown in of_ways),
        )
        best, _ = max(dice.values())
        ranked.append(((*key[:3], -best), cells))
    return [cells for _, cells in sorted(ranked)]


def gains(lines: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """What pseudo-labels and selection give the methods: one row for each set, number of labels and
    configuration.

    Args:
        lines: of the results file; those without a method are left out.

    Returns:
        Set, labels, configuration; mean Dice in percent of the methods plain, with SFR and with
        SFR+; in how many runs of a method SFR has a higher Dice than plain, and SFR+ than SFR, of
        those that were run in both ways with the same labeled cases and seed; the best method, its
        way and its mean Dice.
    """
    groups: dict[tuple[Any, ...], dict[tuple[str, str], DiceOfRuns]] = {}
    for line in lines:
        if "method" in line:
            group = groups.setdefault((line["dataset"], line["labels"], line["name"]), {})
            runs = group.setdefault((line["method"], line["variant"]), {})
            runs[line["first"], line["seed"]] = 100 * line["rows"][final_row(line)]["dice"]
    table = []
    for key, group in sorted(groups.items()):
        means = {row: statistics.fmean(runs.values()) for row, runs in group.items()}
        of_way = {way: [mean for (_, own), mean in means.items() if own == way] for way in MODES}
        best = max(means, key=means.__getitem__)
        cells = (
            *(str(part) for part in key),
            *(f"{statistics.fmean(own):.1f}" if own else MISSING for own in of_way.values()),
            _helped(group, "plain", "sfr"),
            _helped(group, "sfr", "sfr+"),
            f"{best[0]} {WAYS[best[1]]}, {means[best]:.1f}",
        )
        table.append(cells)
    return table


def _helped(group: dict[tuple[str, str], DiceOfRuns], without: str, way: str) -> str:
    pairs = [
        (before, group[method, way][run])
        for method, own in group
        if own == without
        for run, before in group[method, without].items()
        if run in group.get((method, way), {})
    ]
    return f"{sum(after > before for before, after in pairs)} of {len(pairs)}" if pairs else MISSING


def _dice(runs: Sequence[Run]) -> tuple[float, str]:
    """Mean Dice in percent, and as it is shown."""
    dice = [100 * figures["dice"] for figures, _ in runs]
    mean = statistics.fmean(dice)
    spread = f" ± {statistics.stdev(dice):.1f} ({len(dice)})" if len(dice) > 1 else ""
    return mean, f"{mean:.1f}{spread}"


def _hd95(runs: Sequence[Run]) -> str:
    known = [figures["hd95_mm"] for figures, _ in runs if figures["hd95_mm"] is not None]
    return f"{statistics.fmean(known):.1f}" if known else MISSING


def _failed(runs: Sequence[Run]) -> str:
    return str(sum(figures["failures"] for figures, _ in runs))
