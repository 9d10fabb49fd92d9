"""``samsemiseg project suggest``: which cases to label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from SAMSemiSegLib.project.project import Project

HEADINGS = {
    "first": "Label these first: together they represent the others best",
    "next": "Label these next, for the network's doubt and for what they add to the labeled ones",
}


def suggest(
    folder: Annotated[Path, typer.Argument(help="The project folder.", show_default=False)],
    count: Annotated[int, typer.Option(min=1, help="How many cases.")] = 4,
    model: Annotated[
        str, typer.Option(help="Foundation model that looks at the volumes.")
    ] = "lite_medsam",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
) -> None:
    """Suggest which cases to label: typical ones first, after a run those it is unsure of."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from SAMSemiSegLib.suggestion.suggest import suggest as suggest_cases

    project = Project.load(folder)
    console = Console(stderr=True, markup=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        looking = bar.add_task("Looking at the volumes", total=None)
        fetching = bar.add_task(f"Fetching {model}", total=None, visible=False)
        suggestion = suggest_cases(
            project,
            count,
            model,
            lambda done, total: bar.update(looking, completed=done, total=total),
            lambda done, total: bar.update(fetching, completed=done, total=total, visible=True),
        )
    if as_json:
        value = {"folder": str(project.folder), **suggestion.to_dict()}
        typer.echo(json.dumps(value, ensure_ascii=False, indent=2))
        return
    table = Table("", "case", "why", title=HEADINGS[suggestion.mode], title_justify="left")
    for number, case in enumerate(suggestion.cases, 1):
        table.add_row(str(number), case.id, case.why)
    Console(markup=False).print(table)
    for case_id, reason in suggestion.left_out.items():
        typer.echo(f"{case_id} is left out: {reason}")
