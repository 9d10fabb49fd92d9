"""The report's section on SFR+: how sure the re-trained net was of each volume."""

from __future__ import annotations

from html import escape
from typing import Any

from SAMSemiSegLib.report.figures import confidence_figure
from SAMSemiSegLib.report.material import Judgment, Material


def selection_section(material: Material) -> str:
    """SFR+: how sure the re-trained net was of each volume, or of the last crops, and who was
    selected."""
    if not material.selections and not material.crops:
        return ""
    retraining = material.settings.get("retraining")
    settings = retraining.get("selection") if isinstance(retraining, dict) else None
    settings = settings if isinstance(settings, dict) else {}
    where = "around the structure" if settings.get("confidence") == "foreground" else "everywhere"
    what = "volumes" if material.selections else "crops"
    parts = [
        f"<h2>Confident {what}</h2>",
        '<p class="hint">Mean confidence of the re-trained net over the voxels '
        f"({where}). Selected {what} adapt the foundation model with the net's own labels; the "
        "others get new pseudo-labels. Implausible predictions are never selected.</p>",
    ]
    if material.crops:
        figure = _figure(material.crops, settings)
        heading = f"The last {len(material.crops)} crops of the re-training"
        parts.append(f'<div class="panel"><h3>{heading}</h3>{figure}</div>')
    for name, judgments in material.selections.items():
        figure = _figure(list(judgments.values()), settings)
        heading = escape(name.capitalize())
        parts.append(f'<div class="panel"><h3>{heading}</h3>{figure}')
        rows = "".join(
            f'<tr><td>{escape(case)}</td><td>{judgment.confidence:.4f}</td><td class="text">'
            f"{escape(judgment.reason)}</td></tr>"
            for case, judgment in sorted(judgments.items(), key=lambda item: item[1].confidence)
        )
        parts.append(
            "<details><summary>Each volume with the reason</summary>"
            f"<table>{rows}</table></details></div>"
        )
    return "".join(parts)


def _figure(judgments: list[Judgment], settings: dict[str, Any]) -> str:
    return confidence_figure(_grouped(judgments), *_selection_line(judgments, settings))


def _grouped(judgments: list[Judgment]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {"selected": [], "not confident": [], "implausible": []}
    for judgment in judgments:
        name = "selected" if judgment.confident else "not confident"
        groups["implausible" if judgment.implausible else name].append(judgment.confidence)
    return {name: values for name, values in groups.items() if values or name != "implausible"}


def _selection_line(
    judgments: list[Judgment], settings: dict[str, Any]
) -> tuple[float | None, str]:
    """Where the line of the histogram lies, and its name."""
    if settings.get("mode") == "quantile":
        chosen = [judgment.confidence for judgment in judgments if judgment.confident]
        return (min(chosen), f"lowest selected {min(chosen):.4f}") if chosen else (None, "")
    threshold = settings.get("threshold")
    if not isinstance(threshold, (int, float)):
        return None, ""
    return float(threshold), f"threshold {threshold:g}"
