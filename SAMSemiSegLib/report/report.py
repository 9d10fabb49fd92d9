"""One HTML file that shows what a run did and how good it is; opens anywhere, offline."""

from __future__ import annotations

from html import escape
from pathlib import Path

from SAMSemiSegLib.atomic import write_text
from SAMSemiSegLib.report.material import Material, gather
from SAMSemiSegLib.report.sections import (
    curves_section,
    gallery_section,
    notes_section,
    scores_section,
    settings_section,
    summary_section,
    time_section,
)
from SAMSemiSegLib.report.selection import selection_section
from SAMSemiSegLib.report.style import STYLE

_SECTIONS = (
    summary_section,
    scores_section,
    notes_section,
    gallery_section,
    selection_section,
    curves_section,
    time_section,
    settings_section,
)


def write_report(run_folder: Path) -> Path:
    """Write ``report.html`` into a run folder from what it holds; also for a run under way.

    Pictures and figures are inside the file and there are no scripts. It names cases by the ids
    the user gave and has no paths and no dates.

    Returns:
        The path of the report.
    """
    path = run_folder / "report.html"
    write_text(path, page(gather(run_folder)))
    return path


def page(material: Material) -> str:
    """The whole document."""
    body = "\n".join(part for part in (section(material) for section in _SECTIONS) if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(material.name)} – SAMSemiSeg</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n<footer>Made by SAMSemiSeg. Not for clinical use.</footer>\n"
        "</main>\n</body>\n</html>\n"
    )
