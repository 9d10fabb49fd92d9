"""The scores of a run: one row for each stage, case and label; their summary, files and table."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from SAMSemiSegLib.atomic import replacing, write_json
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.evaluation.metrics import Metrics

if TYPE_CHECKING:
    from rich.table import Table

MOST_BESIDE = 2
"""Labels that have room beside the summary in the 80 columns of a terminal or a log."""

_FIGURES = ("dice", "jaccard", "asd_mm", "hd95_mm", "asd_voxels", "hd95_voxels")


@dataclass(frozen=True)
class ScoreRow:
    """Metrics of one label of one case.

    Attributes:
        row: what was scored, as the table names it: "supervised", "pseudo-labels", "re-trained".
        case: the case's id.
        label: the label's name.
    """

    row: str
    case: str
    label: str
    metrics: Metrics


@dataclass(frozen=True)
class Figure:
    """Mean and standard deviation over the cases where the metric is a number (NaN: over none)."""

    mean: float
    std: float


@dataclass(frozen=True)
class SummaryRow:
    """One row's cases for one label (or ``mean``: the average of the labels' means).

    Attributes:
        cases: how many cases were scored.
        failures: how many of them are empty or have a Dice below 0.3.
        figures: by the metric's name. An empty prediction enters Dice and Jaccard as 0; it has no
            surface distance, so that distances must be read together with the failures.
    """

    row: str
    label: str
    cases: int
    failures: int
    figures: dict[str, Figure]


@dataclass
class Scores:
    """A list of score rows, in the order in which they were added."""

    rows: list[ScoreRow] = field(default_factory=list)

    def add(self, row: str, case: str, metrics: dict[str, Metrics]) -> None:
        """Append the metrics of one case, by label (from ``metrics.compare_labels``)."""
        self.rows.extend(ScoreRow(row, case, label, m) for label, m in metrics.items())

    @property
    def row_names(self) -> list[str]:
        """Names of what was scored, in order of appearance."""
        return list(dict.fromkeys(r.row for r in self.rows))

    @property
    def labels(self) -> list[str]:
        """Names of the labels, in order of appearance."""
        return list(dict.fromkeys(r.label for r in self.rows))

    def of(self, row: str, label: str | None = None) -> list[ScoreRow]:
        """The rows of one name, and of one label if given."""
        return [r for r in self.rows if r.row == row and label in (None, r.label)]

    def summary(self) -> list[SummaryRow]:
        """Mean and standard deviation over the cases, for each row name and label."""
        return [
            _summarize(row, label, self.of(row, label))
            for row in self.row_names
            for label in self.labels
            if self.of(row, label)
        ]

    def overall(self, row: str) -> SummaryRow:
        """All labels together: each case is first averaged over its labels, then the cases.

        A case has failed if any of its labels has.
        """
        by_case: dict[str, list[ScoreRow]] = {}
        for score in self.of(row):
            by_case.setdefault(score.case, []).append(score)
        figures = {
            name: _figure([_mean(getattr(r.metrics, name) for r in rs) for rs in by_case.values()])
            for name in _FIGURES
        }
        failures = sum(any(r.metrics.failed for r in rs) for rs in by_case.values())
        return SummaryRow(row, "mean", len(by_case), failures, figures)

    def to_csv(self, path: Path) -> None:
        """One line per row, case and label; NaN is an empty field."""
        names = [f.name for f in fields(Metrics)]
        with (
            replacing(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["row", "case", "label", *names, "failed"])
            for r in self.rows:
                values = [_csv_value(getattr(r.metrics, name)) for name in names]
                writer.writerow([r.row, r.case, r.label, *values, int(r.metrics.failed)])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the rows, the summary of each label, and the overall one.

        NaN becomes null.
        """
        summary = [*self.summary(), *(self.overall(row) for row in self.row_names)]
        plain = {
            "rows": [
                {"row": r.row, "case": r.case, "label": r.label, **asdict(r.metrics)}
                for r in self.rows
            ],
            "summary": [asdict(s) for s in summary],
        }
        without_nan: dict[str, Any] = _without_nan(plain)
        return without_nan

    def to_json(self, path: Path) -> None:
        """Write :meth:`to_dict`; :meth:`from_json` reads it back."""
        write_json(path, self.to_dict())

    @classmethod
    def from_json(cls, path: Path) -> Scores:
        """Read what :meth:`to_json` wrote.

        Raises:
            InputError: the file holds something else.
        """
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
            return cls([_row_from(entry) for entry in rows])
        except (OSError, ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise InputError(
                f"'{path}' does not hold scores of a run; evaluate the run again."
            ) from error

    def tables(self) -> list[Table]:
        """One line per row name: Dice of each label, mean Dice, HD95 and ASD in mm, failures; with
        many labels their Dice is a table of its own, with one line per label."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        def table_of(*headings: str) -> Table:
            table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
            for heading in headings:
                table.add_column(heading, justify="right", overflow="fold", min_width=5)
            table.columns[0].justify = "left"
            return table

        labels = self.labels if len(self.labels) > 1 else []
        beside = labels if len(labels) <= MOST_BESIDE else []
        summary = table_of(
            "", *(f"Dice {label}" for label in beside), "Dice", "HD95 mm", "ASD mm", "Failures"
        )
        for column in (summary.columns[0], *summary.columns[1 + len(beside) :]):
            column.no_wrap = True
        for row in self.row_names:
            overall = self.overall(row)
            cells = [self._dice_shown(row, label) for label in beside]
            cells.append(_shown(overall.figures["dice"], 3))
            cells += [_mean_shown(overall.figures[name], 2) for name in ("hd95_mm", "asd_mm")]
            cells.append(f"{overall.failures} of {overall.cases}")
            summary.add_row(row, *cells)
        if labels == beside:
            return [summary]
        by_label = table_of("Dice", *self.row_names)
        for label in labels:
            by_label.add_row(label, *(self._dice_shown(row, label) for row in self.row_names))
        return [by_label, summary]

    def _dice_shown(self, row: str, label: str) -> str:
        return _mean_shown(_summarize(row, label, self.of(row, label)).figures["dice"], 3)


def _summarize(row: str, label: str, scored: list[ScoreRow]) -> SummaryRow:
    figures = {name: _figure([getattr(r.metrics, name) for r in scored]) for name in _FIGURES}
    return SummaryRow(row, label, len(scored), sum(r.metrics.failed for r in scored), figures)


def _mean(values: Iterable[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return statistics.fmean(known) if known else math.nan


def _figure(values: list[float]) -> Figure:
    """Mean and sample standard deviation (0 for a single case) of the values that are numbers."""
    known = [v for v in values if not math.isnan(v)]
    if not known:
        return Figure(math.nan, math.nan)
    return Figure(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else 0.0)


def _shown(figure: Figure, digits: int) -> str:
    if math.isnan(figure.mean):
        return "–"
    return f"{figure.mean:.{digits}f} ±{figure.std:.{digits}f}"


def _mean_shown(figure: Figure, digits: int) -> str:
    return "–" if math.isnan(figure.mean) else f"{figure.mean:.{digits}f}"


def _csv_value(value: float | bool) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return "" if math.isnan(value) else f"{value:.6g}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _row_from(entry: dict[str, Any]) -> ScoreRow:
    numbers = {name: _number(entry[name]) for name in _FIGURES}
    return ScoreRow(
        str(entry["row"]),
        str(entry["case"]),
        str(entry["label"]),
        Metrics(**numbers, empty=bool(entry["empty"])),
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
