"""``samsemiseg project``: create, import, add, status."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.importing import add_case, import_cases
from SAMSemiSegLib.project.label_set import LabelSet
from SAMSemiSegLib.project.matching import read_list
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.project.review import next_case

app = typer.Typer(
    help="The project folder: cases and labels.", no_args_is_help=True, rich_markup_mode="markdown"
)

SHOWN = 25
"""Rows of the case table without --all."""

Folder = Annotated[Path, typer.Argument(help="The project folder.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


@app.command()
def create(
    folder: Folder,
    labels: Annotated[
        str,
        typer.Option(
            help="The labels, as name[=value][:#rrggbb],... "
            "Without it they are taken from the label files on import.",
        ),
    ] = "",
    name: Annotated[str, typer.Option(help="Name of the project; the folder's by default.")] = "",
    as_json: Json = False,
) -> None:
    """Start an empty project."""
    project = Project.create(folder, LabelSet.parse(labels), name)
    if as_json:
        _print_json({"folder": str(project.folder), **_overview(project)})
    else:
        typer.echo(f"Created the project '{project.name}' in '{project.folder}'.")


@app.command("import")
def import_(
    folder: Folder,
    images: Annotated[Path, typer.Option(help="Folder of images, or of folders of DICOM slices.")],
    labels: Annotated[Path | None, typer.Option(help="Folder of labels.")] = None,
    labeled: Annotated[
        str | None,
        typer.Option(help="The first N new cases, names separated by commas, or a file of names."),
    ] = None,
    order: Annotated[
        Path | None, typer.Option(help="File of case names, one a line: the order of the cases.")
    ] = None,
    evaluate: Annotated[
        str | None,
        typer.Option(
            help="The last N new cases, names or a file of names: scored, never trained on."
        ),
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy/--reference", help="Copy the files, or refer to them.")
    ] = False,
    keep_references: Annotated[
        bool,
        typer.Option(
            "--keep-references", help="Keep the other cases' labels to score pseudo-labels by."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Import images and labels, matched by their file names.

    Images that the project has already stay as they are; those without a label get one that has
    been drawn since, and scans that are missing where they were are found again.
    """
    from rich.console import Console
    from rich.progress import Progress

    project = Project.load(folder)
    console = Console(stderr=True, markup=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Checking", total=None)
        summary = import_cases(
            project,
            images,
            labels,
            labeled=_number_or_names(labeled, "--labeled"),
            order=order,
            evaluate=_number_or_names(evaluate, "--evaluate"),
            copy=copy,
            keep_references=keep_references,
            progress=lambda done, total, case: bar.update(
                task, completed=done, total=total, description=case
            ),
        )
    if as_json:
        _print_json(summary.to_dict())
        return
    if summary.imported:
        typer.echo(
            f"Imported {summary.imported} cases: {summary.labeled} labeled, {summary.unlabeled} "
            f"unlabeled, {summary.evaluation} for evaluation."
        )
    for note in summary.notes[:10]:
        typer.echo(note)
    if len(summary.notes) > 10:
        typer.echo(f"... and {len(summary.notes) - 10} notes more (--json lists all).")


@app.command()
def add(
    folder: Folder,
    image: Annotated[
        Path, typer.Argument(help="An image, or a folder of DICOM slices.", show_default=False)
    ],
    label: Annotated[Path | None, typer.Option(help="Its label.")] = None,
    name: Annotated[str | None, typer.Option("--id", help="The case's id.")] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Only score this case, never train on it.")
    ] = False,
    copy: Annotated[
        bool, typer.Option("--copy/--reference", help="Copy the files, or refer to them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Add one case, or give one that has no label its first (IMAGE --label FILE).

    A scan that is missing where it was is found again: its case keeps label and use.
    """
    project = Project.load(folder)
    role = "evaluation" if evaluate else "training"
    before = {case.id: case for case in project.cases}
    case = add_case(project, image, label, name, role, copy)  # type: ignore[arg-type]
    former = before.get(case.id)
    if as_json:
        _print_json(case.model_dump(mode="json"))
        return
    done = "Added" if former is None else "Found" if former.image != case.image else "Labeled"
    again = " again" if done == "Found" else ""
    state = "for evaluation" if case.role == "evaluation" else case.status
    typer.echo(f"{done} the case '{case.id}'{again} ({state}).")
    if case.note:
        typer.echo(case.note)


@app.command()
def status(
    folder: Folder,
    everything: Annotated[bool, typer.Option("--all", help="Show every case.")] = False,
    as_json: Json = False,
) -> None:
    """Show the cases and how many are in which state."""
    project = Project.load(folder)
    if as_json:
        cases = [case.model_dump(mode="json") for case in project.cases]
        coming = next_case(project)
        _print_json(
            {
                "folder": str(project.folder),
                **_overview(project),
                "next_to_review": None if coming is None else coming[0].id,
                "cases": cases,
            }
        )
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False)
    counts = Table(title=f"Project {project.name}", title_justify="left")
    for heading in ("cases", "count"):
        counts.add_column(heading, justify="right" if heading == "count" else "left")
    for use, count in _overview(project)["use"].items():
        counts.add_row(use, str(count))
    counts.add_section()
    for state, count in _overview(project)["status"].items():
        counts.add_row(f"status {state}", str(count))
    console.print(counts)
    names = ", ".join(f"{x.name} = {x.value}" for x in project.label_set.labels)
    console.print(f"Labels: {names or 'none yet'}", highlight=False)

    table = Table()
    for heading in ("case", "status", "role", "label by", "confidence", "note"):
        table.add_column(heading)
    shown = project.cases if everything else project.cases[:SHOWN]
    for case in shown:
        confidence = "" if case.confidence is None else f"{case.confidence:.3f}"
        table.add_row(case.id, case.status, case.role, case.origin, confidence, case.note or "")
    if shown:
        console.print(table)
    if len(shown) < len(project.cases):
        typer.echo(f"... and {len(project.cases) - len(shown)} cases more; --all shows them.")
    if (coming := next_case(project)) is not None:
        typer.echo(f"Next to review in 3D Slicer (SAMSemiSeg, section Review): {coming[1]}")


def _overview(project: Project) -> dict[str, Any]:
    return {
        "name": project.name,
        "labels": [label.model_dump(mode="json") for label in project.label_set.labels],
        "count": len(project.cases),
        "use": {
            "labeled": len(project.labeled),
            "unlabeled": len(project.unlabeled),
            "evaluation": len(project.evaluation),
        },
        "status": dict(Counter(case.status for case in project.cases)),
    }


def _number_or_names(text: str | None, option: str) -> int | list[str] | None:
    """``4``, ``a,b,c`` or the path of a file of names."""
    if text is None:
        return None
    # "003" is the name of a case.
    if text.strip().isdigit() and str(int(text)) == text.strip():
        return int(text)
    with suppress(OSError):  # a long list of names is too long for a path
        if Path(text).is_file():
            return read_list(Path(text))
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"{option} is empty; give a number, case names or a file of names.")
    return names


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))
