"""``samsemiseg methods``: what is registered, with the source of each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from SAMSemiSegLib.retraining.ssl.method import Needs
    from SAMSemiSegLib.run.settings import Settings


def methods(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List foundation models, fine-tuning strategies and semi-supervised methods, with sources."""
    found = registered()
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    titles = {
        "foundation": ("Foundation models", "foundation.name"),
        "finetuning": ("Fine-tuning strategies", "finetuning.strategy"),
        "ssl": ("Semi-supervised methods", "retraining.method"),
    }
    for kind, entries in found.items():
        title, setting = titles[kind]
        table = Table(
            title=f"{title} (--set {setting}=NAME)", title_justify="left", title_style="bold"
        )
        last = "Weights" if kind == "foundation" else "Options and defaults"
        table.add_column("Name", no_wrap=True)
        headings = ("What", last) if kind == "foundation" else ("What", "Needs", last)
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for entry in entries:
            if kind == "foundation":
                details = _weights_in_words(entry["weights"])
            else:
                details = "\n".join(f"{k} = {json.dumps(v)}" for k, v in entry["options"].items())
            what = f"{escape(entry['title'])}\n[dim]{escape(entry['source'])}[/dim]"
            cells = [what, escape(details) or "–"]
            if kind != "foundation":
                cells.insert(1, escape(", ".join(entry["needs"])) or "–")
            table.add_row(entry["name"], *cells)
        console.print(table)
        console.print()


def registered() -> dict[str, list[dict[str, Any]]]:
    """The three registries as plain values."""
    from SAMSemiSegLib.finetuning.strategy import STRATEGIES
    from SAMSemiSegLib.foundation.model import FOUNDATION
    from SAMSemiSegLib.retraining.ssl.method import METHODS

    foundation: list[dict[str, Any]] = []
    for name in FOUNDATION:
        entry = FOUNDATION[name]
        weights = entry.weights
        plain = None
        if weights is not None:
            size = round(weights.size / 1e6, 1)
            plain = {"url": weights.url, "megabytes": size, "license": weights.license}
        foundation.append(
            {
                "name": name,
                "title": entry.title,
                "source": entry.source,
                "needs": [],
                "weights": plain,
            }
        )
    finetuning = []
    for name in STRATEGIES:
        strategy = STRATEGIES[name]
        finetuning.append(
            {
                "name": name,
                "title": strategy.title,
                "source": strategy.source,
                "needs": [
                    *(["unlabeled volumes"] if strategy.uses_unlabeled else []),
                    *(["a V-Net trained before it"] if strategy.guided else []),
                ],
                "guided": strategy.guided,
                "options": _options(strategy.Options),
            }
        )
    ssl = []
    for name in METHODS:
        method = METHODS[name]
        ssl.append(
            {
                "name": name,
                "title": method.title,
                "source": method.source,
                "needs": _needs_in_words(method.needs, method.uses_unlabeled),
                "options": _options(method.Options),
            }
        )
    return {"foundation": foundation, "finetuning": finetuning, "ssl": ssl}


def _options(options: type[Settings]) -> dict[str, Any]:
    """Defaults by name; a required option has the default None."""
    defaults = {
        name: None if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in options.model_fields.items()
    }
    plain: dict[str, Any] = json.loads(json.dumps(defaults, default=_plain))
    return plain


def _plain(value: Any) -> Any:
    """For JSON: settings inside settings, sets."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)


def _needs_in_words(needs: Needs, uses_unlabeled: bool) -> list[str]:
    words = ["unlabeled volumes"] if uses_unlabeled else []
    words += [f"{head} head" for head in sorted(needs.heads)]
    if needs.networks > 1:
        words.append(f"{needs.networks} networks")
    if needs.split_encoder:
        words.append("a network in two parts")
    if needs.labeled_batch > 1:
        words.append(f"at least {needs.labeled_batch} labeled crops a step")
    if needs.unlabeled_batch > 1:
        words.append(f"at least {needs.unlabeled_batch} unlabeled crops a step")
    if needs.divisor != 16:
        words.append(f"patch sides in multiples of {needs.divisor}")
    if len(needs.norms) < 3:
        words.append(f"{' or '.join(sorted(needs.norms))} normalization")
    if needs.dropout:
        words.append("dropout")
    return words


def _weights_in_words(weights: dict[str, Any] | None) -> str:
    if weights is None:
        return "random"
    place = "" if weights["url"] else ", a file of your own"
    return f"{weights['megabytes']:.0f} MB, {weights['license']}{place}"
