"""``samsemiseg settings``: what ``--set`` can change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

if TYPE_CHECKING:
    from SAMSemiSegLib.run.settings import Settings


def settings(
    part: Annotated[
        str, typer.Argument(help="Only settings whose name holds this text, as in retraining.net.")
    ] = "",
    preset: Annotated[
        str, typer.Option(help="quick, balanced, paper, or a .json file.")
    ] = "balanced",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the settings of a run: the name for --set, the preset's value, and what it means.

    Options of a strategy or a method stand under finetuning.options and retraining.options;
    'samsemiseg methods' lists them.
    """
    from SAMSemiSegLib.run.presets import load_settings

    found = [entry for entry in _listed(load_settings(preset), "") if part in entry[0]]
    if as_json:
        print(json.dumps({name: value for name, value, _ in found}, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("Setting", "Value", "What it means")
    table.columns[0].no_wrap = True
    for name, value, meaning in found:
        table.add_row(name, json.dumps(value, ensure_ascii=False), meaning)
    Console(markup=False).print(table)


def _listed(settings: Settings, prefix: str) -> Iterator[tuple[str, Any, str]]:
    """Name, value and meaning of each setting, groups within groups."""
    plain = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if hasattr(value, "model_dump"):
            yield from _listed(value, f"{prefix}{name}.")
        else:
            meaning = " ".join((field.description or "").replace("``", "").split())
            if get_origin(field.annotation) is Literal:
                meaning = f"{meaning} ({', '.join(map(str, get_args(field.annotation)))})".strip()
            yield f"{prefix}{name}", plain[name], meaning
