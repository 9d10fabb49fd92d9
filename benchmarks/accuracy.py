"""Accuracy on real scans: runs of a plan, one after the other, and one table of them.

    python benchmarks/accuracy.py run --dataset la --labels 1 --first 0 --first 1 --seeds 0
    python benchmarks/accuracy.py run --dataset la --labels 1 --methods all --set ...
    python benchmarks/accuracy.py table benchmarks/results/accuracy.jsonl
    python benchmarks/accuracy.py methods benchmarks/results/accuracy.jsonl
    python benchmarks/accuracy.py curves benchmarks/results/accuracy.jsonl --output curves.png

A run is a configuration, a choice of labeled cases and a seed. Each appends one JSON line as it
ends; a run whose line is there already is passed over, and one that was cut off is resumed.
Scores are of the final iteration, on the source volumes' own grid. Labels of unlabeled cases and
of the evaluation cases are never read in training.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from curves import draw, series
from projects import is_whole
from pseudo_labels import score_pseudo_labels
from published import Configuration, configuration_names, load_configuration
from ranking import gains, ranking, title
from rich.console import Console
from rich.table import Table
from variants import Row, alike, keep, rows, shared_folders, take_over

from SAMSemiSegLib.atomic import write_text
from SAMSemiSegLib.command.app import main
from SAMSemiSegLib.command.demo import find_data
from SAMSemiSegLib.errors import InputError
from SAMSemiSegLib.project.importing import import_cases
from SAMSemiSegLib.project.label_set import LabelSet
from SAMSemiSegLib.project.project import Project
from SAMSemiSegLib.retraining.student import check_patch
from SAMSemiSegLib.run.folder import RunFolder
from SAMSemiSegLib.run.presets import load_settings
from SAMSemiSegLib.run.settings import RunSettings

FIGURES = ("dice", "jaccard", "asd_mm", "hd95_mm", "asd_voxels", "hd95_voxels")

RESULTS = Path(__file__).parent / "results" / "accuracy.jsonl"

NAMES = typer.Option([], "--name", help="Configurations to show; none: all.")

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@dataclass(frozen=True)
class Dataset:
    """A set of scans: labels, and which lines of its ``train.list`` are for what."""

    name: str
    labels: tuple[str, ...]
    training: int
    """Lines 1 to this one: labeled and unlabeled."""
    evaluation: int
    """The last so many lines are scored."""


DATASETS = {
    "la": Dataset("la", ("Left atrium",), 64, 16),
    "hippocampus": Dataset("hippocampus", ("Anterior", "Posterior"), 168, 40),
}

# Names of published rows that stand beside those of a run; with other test cases than ours.
PUBLISHED = {
    "supervised only": "supervised/plain",
    "pseudo-labels": "pseudo-labels",
    "re-trained": "mean_teacher/sfr",
}


@app.command()
def run(
    dataset: str = typer.Option(..., help="la, hippocampus, or a published benchmark's name."),
    data: Path = typer.Option(None, help="Folder of the published benchmark's files."),
    labels: int = typer.Option(1, help="Number of labeled cases."),
    first: list[int] = typer.Option([0], help="Line (from 0) of the first labeled case."),
    seeds: list[int] = typer.Option([0], help="Seeds."),
    preset: str = typer.Option("", help="Default: balanced, or the published settings."),
    methods: str = typer.Option("", help="Semi-supervised methods: all, or names with commas."),
    variants: str = typer.Option("plain,sfr,sfr+", help="Of each method."),
    minutes: float = typer.Option(0, help="Training time with SFR, all in all; 0: the preset's."),
    writing: float = typer.Option(0, help="Of these, minutes to write the pseudo-labels in."),
    name: str = typer.Option("default", help="Name of the configuration in the table."),
    assignments: list[str] = typer.Option([], "--set", help="One setting, as key=value."),
    baseline: bool = typer.Option(True, help="Also train supervised only."),
    unlabeled: int = typer.Option(0, help="Use at most so many unlabeled cases; 0: all."),
    results: Path = typer.Option(RESULTS, help="File the lines are appended to."),
    workspace: Path = typer.Option(Path("benchmarks/runs"), help="Projects and runs."),
) -> None:
    """Run every combination of labeled cases and seeds."""
    source: Dataset | Configuration
    if dataset in DATASETS:
        source = DATASETS[dataset]
        found = find_data(dataset)
    else:
        source = load_configuration(dataset)
        found = data
    if found is None:
        raise InputError(f"The scans of '{dataset}' are not here; set SAMSEMISEG_DATA or --data.")
    preset = preset or ("balanced" if isinstance(source, Dataset) else "published")
    preset_file = preset
    methods_own: dict[str, list[str]] = {}
    if preset == "published" and isinstance(source, Configuration):
        preset_file = str(source.write_preset(workspace))
        methods_own = source.method_settings
    settings = list(assignments)
    if minutes:
        settings += budgets(load_settings(preset_file, settings), minutes, writing)
    settings.append(f"supervised_baseline={json.dumps(baseline and not methods)}")
    for start, seed, row in itertools.product(first, seeds, rows(methods, variants)):
        method = row.method or load_settings(preset_file, settings).retraining.method
        own = methods_own.get(method, ())
        key = {
            "dataset": dataset,
            "labels": labels,
            "first": start,
            "seed": seed,
            "name": name,
            "preset": preset,
            "settings": [*row.settings, *own, *settings],
            "unlabeled": unlabeled,
            **row.key,
        }
        if any(all(line.get(k) == v for k, v in key.items()) for line in read(results)):
            print(f"Already there: {key}")
            continue
        wanted = load_settings(preset_file, [*key["settings"], "export=[]"], seed=seed)
        try:
            if wanted.retraining.patch is not None:
                check_patch(wanted.retraining.patch, wanted.retraining)
        except InputError as error:
            print(f"Passed over: {error}")
            continue
        line = _run(source, found, key, row, workspace, preset_file, wanted)
        results.parent.mkdir(parents=True, exist_ok=True)
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        lines = read(results, [name])
        show_table([x for x in lines if (x["dataset"], x["labels"]) == (dataset, labels)])


@app.command()
def table(
    results: Path = typer.Argument(RESULTS), names: list[str] = NAMES, markdown: bool = False
) -> None:
    """One table of all lines: mean and spread over labeled cases and seeds."""
    show_table(read(results, names), markdown)


def show_table(runs: Sequence[dict[str, Any]], markdown: bool = False) -> None:
    """Print mean and spread over labeled cases and seeds of each row."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    published: dict[tuple[Any, ...], float | None] = {}
    for line in runs:
        for row, figures in line["rows"].items():
            key = (line["dataset"], line["labels"], title(line), row)
            groups.setdefault(key, []).append(figures)
            # What one method reaches stands in the other table, beside its own published figure.
            if "method" not in line and row in PUBLISHED:
                published[key] = _published(line["dataset"], line["labels"], PUBLISHED[row])
    columns = ("Set", "Labels", "Configuration", "Row", "Dice %", "HD95 mm", "Failed", "Published")
    lines = []
    for (name, labels, configuration, row), scores in sorted(groups.items()):
        dice = [100 * s["dice"] for s in scores]
        spread = f" ± {statistics.stdev(dice):.1f}" if len(dice) > 1 else ""
        hd95 = [s["hd95_mm"] for s in scores if s["hd95_mm"] is not None]
        cells = (
            name,
            str(labels),
            configuration,
            row,
            f"{statistics.fmean(dice):.1f}{spread} ({len(dice)})",
            f"{statistics.fmean(hd95):.1f}" if hd95 else "–",
            f"{sum(s['failures'] for s in scores)} of {sum(s['cases'] for s in scores)}",
            str(published.get((name, labels, configuration, row)) or "–"),
        )
        lines.append(cells)
    show(columns, lines, markdown)


@app.command()
def methods(
    results: Path = typer.Argument(RESULTS), names: list[str] = NAMES, markdown: bool = False
) -> None:
    """The methods plain, with SFR and with SFR+, the best first, with the published Dice and the
    time; cells with commas hold the three in this order. Then what SFR and SFR+ give, over all
    methods."""
    lines = read(results, names)
    common = ("Set", "Labels", "Configuration")
    columns = (*common, "Method", "Plain", "SFR", "SFR+", "HD95 mm")
    columns += ("Failed", "Published", "Minutes")
    show(columns, ranking(lines, _published), markdown)
    print()
    columns = (*common, "Plain", "SFR", "SFR+", "SFR helps", "SFR+ helps once more", "Best row")
    show(columns, gains(lines), markdown)


@app.command()
def curves(
    results: Path = typer.Argument(RESULTS),
    output: Path = typer.Option(Path("curves.png"), help="Picture to write: .png, .svg or .pdf."),
    names: list[str] = NAMES,
) -> None:
    """Draw the Dice of the final networks against the number of labeled volumes."""
    sets = series(read(results, names))
    if not sets:
        raise InputError(f"'{results}' holds no such runs; `run` appends some.")
    draw(sets, output)


def budgets(settings: RunSettings, minutes: float, writing: float) -> list[str]:
    """Assignments that give SFR ``minutes`` in all, shared out as ``settings`` do.

    The row "supervised only" has all of them; the stages with the foundation model those that are
    left when ``writing`` minutes are kept for the pseudo-labels. A method's plain row has less,
    for it has no foundation model to train, and SFR+ more, for it does it all again.
    """
    stages = {
        "retraining.warm_start": settings.retraining.warm_start,
        "finetuning.budget": settings.finetuning.budget,
        "retraining.budget": settings.retraining.budget,
    }
    own = {name: budget.minutes for name, budget in stages.items() if budget is not None}
    if None in own.values():
        raise InputError("--minutes needs a preset whose budgets are given in minutes.")
    factor = (minutes - writing) / sum(filter(None, own.values()))
    shared = [f"{name}.minutes={round(factor * (own[name] or 0), 3)}" for name in own]
    return [f"supervised_budget.minutes={minutes}", *shared]


def _published(dataset: str, labels: int, row: str) -> float | None:
    name = "la2018" if dataset == "la" else dataset
    if name not in configuration_names():
        return None
    return load_configuration(name).published.get(row, {}).get(labels)


def show(columns: Sequence[str], lines: Sequence[Sequence[str]], markdown: bool) -> None:
    """Print a table."""
    if markdown:
        for cells in (columns, ["---"] * len(columns), *lines):
            print("| " + " | ".join(cells) + " |")
        return
    shown = Table(*columns)
    for line in lines:
        shown.add_row(*line)
    Console().print(shown)


def read(results: Path, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The lines of a results file, or those of the named configurations; none where there is no
    file."""
    if not results.exists():
        return []
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if not names or line["name"] in names]


def _run(
    source: Dataset | Configuration,
    data: Path,
    key: dict[str, Any],
    row: Row,
    workspace: Path,
    preset: str,
    wanted: RunSettings,
) -> dict[str, Any]:
    """One run in a process of its own.

    Args:
        preset: name or file.
        wanted: what preset and settings amount to.

    Raises:
        InputError: a run of this name was made with other settings.
    """
    label = f"{source.name}-{key['labels']}-{key['first']}"
    if key["unlabeled"]:
        label += f"-u{key['unlabeled']}"
    project = workspace / label
    if not is_whole(project):
        if isinstance(source, Dataset):
            _make_project(source, data, key["labels"], key["first"], key["unlabeled"], project)
        else:
            source.make_project(data, key["labels"], key["first"], key["unlabeled"], project)
    name = row.run_name(key["name"], key["seed"])
    folder = project / "runs" / name
    shared = shared_folders(project, wanted)
    resume = (folder / "config.json").exists()
    command = [sys.executable, "-m", "SAMSemiSegLib", "train", str(project), "--run", name]
    if resume:
        if not alike(RunFolder(folder).settings(), wanted):
            raise InputError(
                f"The run '{name}' in '{project}' was made with other settings; choose another "
                "--name, or delete it."
            )
        command.append("--resume")
    else:
        sfr = project / "runs" / Row(row.method, "sfr").run_name(key["name"], key["seed"])
        take_over(row, folder, shared, sfr, wanted)
        command += ["--preset", preset, "--seed", str(key["seed"])]
        for setting in key["settings"]:
            command += ["--set", setting]
        command += ["--set", "export=[]"]
    peak = train(command)
    seconds = keep(row, folder, shared)
    summary = json.loads((folder / "evaluation" / "scores.json").read_text())["summary"]
    figures = {
        entry["row"]: {
            **{name: entry["figures"][name]["mean"] for name in FIGURES},
            "failures": entry["failures"],
            "cases": entry["cases"],
        }
        for entry in [*summary, *_unlabeled(source, project, folder, data)]
        if entry["label"] == "mean"
    }
    shutil.rmtree(folder / "preprocessed", ignore_errors=True)
    return {**key, "rows": figures, "seconds": round(seconds), "peak_gb": round(peak, 2)}


def train(command: list[str]) -> float:
    """Run it to its end; its own peak memory in GB.

    Raises:
        typer.Exit: it failed, and has said why.
        subprocess.CalledProcessError: it was killed.
    """
    process = subprocess.Popen(command)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode < 0:  # so that nobody has said why
        raise subprocess.CalledProcessError(process.returncode, command)
    if process.returncode:
        raise typer.Exit(process.returncode)
    return used.ru_maxrss / 2**20


def _unlabeled(
    source: Dataset | Configuration, project: Path, folder: Path, data: Path
) -> list[dict[str, Any]]:
    """Scores of the pseudo-labels, those that were left out of re-training among them."""
    if not isinstance(source, Dataset):
        return []
    scored = score_pseudo_labels(Project.load(project), folder, data / "labels")
    return [asdict(row) for row in scored]


def _make_project(
    dataset: Dataset, data: Path, labels: int, first: int, unlabeled: int, folder: Path
) -> None:
    names = (data / "train.list").read_text(encoding="utf-8").split()
    training = names[: dataset.training]
    training = training[first:] + training[:first]
    if unlabeled:
        training = training[: labels + unlabeled]
    order = folder.parent / f"{folder.name}.txt"
    write_text(order, "\n".join(training + names[-dataset.evaluation :]) + "\n")
    project = Project.create(folder, LabelSet.of(dataset.labels), folder.name)
    import_cases(
        project,
        data / "images",
        data / "labels",
        labeled=labels,
        order=order,
        evaluate=dataset.evaluation,
        copy=False,
        keep_references=False,
    )


if __name__ == "__main__":
    main(app)
