"""``samsemiseg weights list|fetch|remove``: the foundation models' weights on this machine."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from SAMSemiSegLib.errors import InputError

app = typer.Typer(
    help="Weights of the foundation models.", no_args_is_help=True, rich_markup_mode="markdown"
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """Show which weights there are, their size and license, and which are on this machine."""
    from SAMSemiSegLib.foundation.cache import cache_folder
    from SAMSemiSegLib.foundation.weights import list_weights

    rows = list_weights()
    if as_json:
        _print_json([row.as_dict() for row in rows])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "model", "MB", box=None, header_style="bold")
    table.add_column("license", overflow="fold")  # an address that is cut off leads nowhere
    table.add_column("here")
    for row in rows:
        here = "yes" if row.cached else "no"
        table.add_row(row.name, row.title, f"{row.megabytes:.0f}", row.license, here)
    console = Console(markup=False)
    console.print(table)
    console.print(f"Cache folder: {cache_folder()}", soft_wrap=True)


@app.command("fetch")
def fetch_command(
    name: Annotated[str, typer.Argument(help="Name of a model, as listed.")],
    as_json: AsJson = False,
) -> None:
    """Fetch the weights of a model into the cache and check them."""
    from SAMSemiSegLib.foundation.model import FOUNDATION
    from SAMSemiSegLib.foundation.weights import fetch

    entry = FOUNDATION[name]
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = (name, BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True, markup=False)
    # A bar in a log file is noise beside the one sentence of an error.
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(name, total=entry.weights.size if entry.weights else None)
        path = fetch(entry, lambda done, total: bar.update(task, completed=done, total=total))
    if as_json:
        _print_json({"name": name, "path": str(path)})
    else:
        typer.echo(str(path))


@app.command("remove")
def remove_command(
    name: Annotated[str | None, typer.Argument(help="Name of a model, as listed.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all weights.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove weights from the cache."""
    from SAMSemiSegLib.foundation.weights import remove

    if (name is None) != everything:
        raise InputError("Name one model whose weights to remove, or give --all.")
    removed = remove("all" if name is None else name)
    if as_json:
        _print_json({"removed": removed})
    else:
        typer.echo("Removed: " + ", ".join(removed) if removed else "Nothing was there to remove.")


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))
