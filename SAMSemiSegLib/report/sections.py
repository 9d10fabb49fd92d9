"""The sections of the report, each from the material to HTML; an empty string leaves it out."""

from __future__ import annotations

import base64
import io
import math
import re
from html import escape
from pathlib import Path
from typing import Any

from SAMSemiSegLib.evaluation.scores import Figure, Scores
from SAMSemiSegLib.report.figures import curve_figure, dot_figure, histogram_figure
from SAMSemiSegLib.report.material import Material
from SAMSemiSegLib.report.words import clock, count, stage_title, summary_sentences

MOST_PICTURES = 24


def summary_section(material: Material) -> str:
    """Title, what was done in words, and the key figures."""
    tiles = []
    if material.scores is not None:
        row = material.scores.row_names[-1]
        overall = material.scores.overall(row)
        tiles.append((f"{overall.figures['dice'].mean:.3f}", f"mean Dice, {row}"))
        tiles.append((f"{overall.failures} of {overall.cases}", "cases failed"))
    if material.pseudo_scores:
        scores = list(material.pseudo_scores.values())
        tiles.append((str(len(scores)), "pseudo-labels"))
        tiles.append((f"{sum(scores) / len(scores):.2f}", "their mean score"))
    if material.seconds:
        tiles.append((clock(sum(material.seconds.values())), "of work"))
    shown = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>'
        for value, what in tiles
    )
    return (
        f'<header><p class="kind">Run report</p><h1>{escape(material.name)}</h1>'
        f'<p class="lead">{escape(" ".join(summary_sentences(material)))}</p></header>'
        + (f'<div class="tiles">{shown}</div>' if tiles else "")
    )


def scores_section(material: Material) -> str:
    """The table of rows and labels, a dot for each case, and the cases in a foldable table."""
    scores = material.scores
    if scores is None:
        return ""
    parts = [
        "<h2>Scores</h2>",
        '<p class="hint">Mean ± standard deviation over the cases. A case has failed if a label '
        "is missed altogether or has a Dice below 0.3; missed labels count as Dice 0, and have no "
        "distance, so distances are to be read together with the failures. A label that a case "
        "does not have counts as Dice 1 where none was found.</p>",
        f'<div class="panel">{_score_table(scores)}</div>',
    ]
    for label in scores.labels:
        groups = {
            row: [(r.case, r.metrics.dice) for r in scores.of(row, label)]
            for row in scores.row_names
        }
        heading = "Dice of each case"
        if len(scores.labels) > 1:
            heading += f": {label}"
        parts.append(f'<div class="panel"><h3>{escape(heading)}</h3>{dot_figure(groups)}</div>')
    parts.append(
        "<details><summary>All cases, the worst first</summary>"
        f'<div class="panel">{_case_table(scores)}</div></details>'
    )
    return "".join(parts)


def notes_section(material: Material) -> str:
    """Warnings and messages of the run, without the folders of the files they name."""
    if not material.notes:
        return ""
    ordered = sorted(material.notes, key=lambda note: note[0] != "warning")
    items = "".join(
        f'<li class="{escape(kind)}">{escape(_without_folders(text))}</li>'
        for kind, text in ordered[:20]
    )
    more = f'<p class="hint">And {len(ordered) - 20} more.</p>' if len(ordered) > 20 else ""
    return f'<h2>Notes</h2><ul class="notes">{items}</ul>{more}'


def gallery_section(material: Material) -> str:
    """Pictures of the pseudo-labels, the least trusted first, with a histogram of the scores."""
    if not material.pseudo_scores and not material.pictures:
        return ""
    scores = material.pseudo_scores
    cases = sorted(material.pictures, key=lambda case: (scores.get(case, math.inf), case))
    parts = [
        "<h2>Pseudo-labels</h2>",
        '<p class="hint">The score is the mean confidence around the predicted structure: 0 '
        "unsure, 1 sure. Look at low scores first; they are the ones worth correcting.</p>",
    ]
    if scores:
        figure = histogram_figure(list(scores.values()))
        parts.append(f'<div class="panel"><h3>Scores of {count(len(scores), "volume")}</h3>')
        parts.append(f"{figure}</div>")
    if cases:
        figures = []
        for case in cases[:MOST_PICTURES]:
            score = f"<b>{scores[case]:.2f}</b>" if case in scores else ""
            picture = _embedded(material.pictures[case])
            if picture is None:
                continue
            figures.append(
                f'<figure><div class="frame"><img src="{picture}" '
                f'alt="Pseudo-label of {escape(case)}" loading="lazy"></div>'
                f"<figcaption><span>{escape(case)}</span>{score}</figcaption></figure>"
            )
        hint = "The warmer the color over the gray image, the less sure the label."
        if len(cases) > MOST_PICTURES:
            hint = f"The {MOST_PICTURES} lowest scores of {len(cases)} are shown. " + hint
        parts.append(f'<p class="hint">{hint}</p>')
        parts.append(f'<div class="gallery">{"".join(figures)}</div>')
    return "".join(parts)


def curves_section(material: Material) -> str:
    """Losses of each training stage."""
    charts = []
    for stage, curve in material.curves.items():
        # The total comes first, then its terms; a single term is the total once more.
        names = sorted(curve.series, key=lambda name: name != "loss")
        if len(names) == 2:
            names = names[:1]
        figure = curve_figure({name: curve.series[name] for name in names}, curve.total)
        charts.append(f'<div class="panel"><h3>{escape(stage_title(stage))}</h3>{figure}</div>')
    if not charts:
        return ""
    return (
        '<h2>Training</h2><p class="hint">Loss over the steps: as logged (thin) and its running '
        f'mean (thick).</p><div class="charts above">{"".join(charts)}</div>'
    )


def time_section(material: Material) -> str:
    """Seconds of each stage with bars."""
    if not material.seconds:
        return ""
    longest = max(*material.seconds.values(), 1e-9)
    rows = "".join(
        f"<tr><td>{escape(stage_title(stage))}</td>"
        f'<td class="track"><span class="bar" style="width:{100 * spent / longest:.1f}%"></span>'
        f"</td><td>{clock(spent)}</td></tr>"
        for stage, spent in material.seconds.items()
    )
    return f'<h2>Time</h2><div class="panel"><table>{rows}</table></div>'


def settings_section(material: Material) -> str:
    """Settings that differ from the defaults, then all of them and the versions, folded."""
    parts = []
    if material.settings:
        settings = _flat(material.settings)
        defaults = _flat(_default_settings())
        # Options have no default of their own there: what is set is told.
        changed = {key: v for key, v in settings.items() if defaults.get(key) != v}
        # Beside minutes a number of steps is without effect.
        for key in [
            key for key in settings if key.endswith(".minutes") and settings[key] != "none"
        ]:
            changed.pop(key.removesuffix("minutes") + "steps", None)
        parts.append("<h2>Settings</h2>")
        if changed:
            parts.append('<p class="hint">What differs from the defaults:</p>')
            parts.append(f'<div class="panel">{_key_table(changed)}</div>')
        else:
            parts.append('<p class="hint">All settings have their defaults.</p>')
        parts.append(
            "<details><summary>All settings</summary>"
            f'<div class="panel">{_key_table(settings)}</div></details>'
        )
    if material.versions:
        parts.append(
            "<details><summary>Versions</summary>"
            f'<div class="panel">{_key_table(_flat(material.versions))}</div></details>'
        )
    return "".join(parts)


def _score_table(scores: Scores) -> str:
    labels = scores.labels if len(scores.labels) > 1 else []
    overall = {row: scores.overall(row) for row in scores.row_names}
    by_label = {(s.row, s.label): s for s in scores.summary()}
    columns: list[tuple[str, dict[str, Figure], int, bool]] = []
    for label in labels:
        figures = {
            row: by_label[row, label].figures["dice"] for row in overall if (row, label) in by_label
        }
        columns.append((f"Dice {label}", figures, 3, True))
    for heading, name, digits, higher in (
        ("Dice", "dice", 3, True),
        ("Jaccard", "jaccard", 3, True),
        ("HD95 mm", "hd95_mm", 2, False),
        ("ASD mm", "asd_mm", 2, False),
    ):
        figures = {row: summary.figures[name] for row, summary in overall.items()}
        columns.append((heading, figures, digits, higher))
    head = "".join(f"<th>{escape(heading)}</th>" for heading, *_ in columns)
    lines = []
    for row, summary in overall.items():
        cells = []
        for _, figures, digits, higher in columns:
            cells.append(_figure_cell(row, figures, digits, higher))
        cells.append(f"<td>{summary.failures} of {summary.cases}</td>")
        lines.append(f"<tr><td>{escape(row)}</td>{''.join(cells)}</tr>")
    return f"<table><tr><th></th>{head}<th>Failures</th></tr>{''.join(lines)}</table>"


def _figure_cell(row: str, figures: dict[str, Figure], digits: int, higher: bool) -> str:
    figure = figures.get(row)
    if figure is None or math.isnan(figure.mean):
        return "<td>–</td>"
    known = [f.mean for f in figures.values() if not math.isnan(f.mean)]
    best = len(set(known)) > 1 and figure.mean == (max(known) if higher else min(known))
    kind = ' class="best"' if best else ""
    return f"<td{kind}>{figure.mean:.{digits}f} <small>± {figure.std:.{digits}f}</small></td>"


def _case_table(scores: Scores) -> str:
    """Mean Dice over the labels of each case, a column a row name."""
    table: dict[str, dict[str, list[float]]] = {}
    for score in scores.rows:
        table.setdefault(score.case, {}).setdefault(score.row, []).append(score.metrics.dice)
    last = scores.row_names[-1]
    means = {
        case: {row: sum(values) / len(values) for row, values in rows.items()}
        for case, rows in table.items()
    }
    head = "".join(f"<th>{escape(row)}</th>" for row in scores.row_names)
    lines = []
    for case in sorted(means, key=lambda case: (means[case].get(last, 2.0), case)):
        cells = "".join(
            f"<td>{means[case][row]:.3f}</td>" if row in means[case] else "<td>–</td>"
            for row in scores.row_names
        )
        lines.append(f"<tr><td>{escape(case)}</td>{cells}</tr>")
    return f"<table><tr><th>Case</th>{head}</tr>{''.join(lines)}</table>"


def _key_table(values: dict[str, str]) -> str:
    rows = "".join(
        f'<tr><td>{escape(key)}</td><td class="text">{escape(value)}</td></tr>'
        for key, value in values.items()
    )
    return f"<table>{rows}</table>"


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings as ``a.b.c`` and text."""
    if isinstance(value, dict) and (value or not prefix):
        flat: dict[str, str] = {}
        for key, entry in value.items():
            flat |= _flat(entry, f"{prefix}.{key}" if prefix else str(key))
        return flat
    if value is None:
        return {prefix: "none"}
    if isinstance(value, bool):
        return {prefix: "yes" if value else "no"}
    if isinstance(value, list):
        return {prefix: ", ".join(str(entry) for entry in value) or "none"}
    return {prefix: re.split(r"[/\\]", str(value))[-1] or "none"}  # a path: its last part


def _default_settings() -> dict[str, Any]:
    from SAMSemiSegLib.run.settings import RunSettings

    return RunSettings().model_dump(mode="json")


def _without_folders(text: str) -> str:
    """Paths shortened to the file's name: folders may tell whose scan it is."""
    quoted = re.sub(r"'[^'\n]*[/\\]([^'/\\\n]+)'", r"'\1'", text)
    return re.sub(r"(?<![\w:/.])(?:[A-Za-z]:)?[/\\](?:[^\s/\\]+[/\\])+([^\s/\\]+)", r"\1", quoted)


def _embedded(picture: Path) -> str | None:
    """The picture as a data address: JPEG at most 960 pixels wide, a third of the PNG's size; None
    where the file cannot be read."""
    from PIL import Image

    try:
        with Image.open(picture) as opened:
            image = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for damaged files
        return None
    image.thumbnail((960, 960))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
