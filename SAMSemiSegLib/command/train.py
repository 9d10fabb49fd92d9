"""``samsemiseg train``, ``report`` and ``runs``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import typer

from SAMSemiSegLib.errors import Cancelled, InputError


def train(
    project: Path = typer.Argument(..., help="The project folder."),
    preset: str = typer.Option(
        "", help="quick, balanced, paper, or a .json file.", show_default="balanced"
    ),
    assignments: list[str] = typer.Option(
        [], "--set", help="One setting, as key=value: retraining.budget.steps=500. Repeatable."
    ),
    run: str = typer.Option("", help="Name of the run; default: the next free run-N."),
    device: str = typer.Option("", help="auto, cpu, cuda, cuda:1 or mps."),
    seed: int | None = typer.Option(None, help="Seed of everything random."),
    resume: bool = typer.Option(
        False, "--resume", help="Continue a run that was stopped, with the settings it has."
    ),
    stop_with_parent: bool = typer.Option(
        False, "--stop-with-parent", help="Also stop when standard input ends.", hidden=True
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the scores as JSON."),
) -> None:
    """Train: adapt the foundation model, write pseudo-labels, re-train the V-Net, evaluate, export.

    The run is a folder, PROJECT/runs/NAME; its report.html shows the result. Ctrl-C stops it so
    that --resume goes on where it was; only its --device may then be another.
    """
    from SAMSemiSegLib.project.project import Project
    from SAMSemiSegLib.run.folder import RunFolder
    from SAMSemiSegLib.run.presets import load_settings, would_change

    opened = Project.load(project)
    # Not "..", which is another folder, nor a dot or space at the end, which Windows drops.
    if run and not re.fullmatch(r"\w([\w.\- ]*[\w\-])?", run):
        raise InputError(f"'{run}' cannot be the name of a run; use letters, digits, '-' and '_'.")
    project = project.parent if project.is_file() else project  # its project.json was named
    folder = RunFolder(project / "runs" / (run or _default_name(project, resume)))
    if resume:
        settings = folder.settings()
        # The same command with --resume added is fine: it changes nothing.
        name = Path(preset).stem if preset else None
        if would_change(settings, assignments, preset=name, seed=seed):
            raise InputError(
                f"The run '{folder.path.name}' goes on with the settings it was started with; "
                "leave out --preset, --set and --seed, or start a new run under another name "
                "without --resume."
            )
        settings.device = device or settings.device
    else:
        settings = load_settings(
            preset or "balanced", assignments, device=device or None, seed=seed
        )
    from SAMSemiSegLib.command.display import Display
    from SAMSemiSegLib.run.start import start

    # Not "the same command": the demo's own would begin anew.
    again = f'samsemiseg train "{project}" --run "{folder.path.name}" --resume'
    stopped = f"Stopped. Continue with: {again}"
    try:
        with Display(folder.path.name, stopped) as display:
            scores = start(opened, folder, settings, resume, display, stop_with_parent)
    except Cancelled as error:
        raise Cancelled(stopped) from error
    if scores is None:  # not the first of several processes
        return
    if as_json:
        places = {"run": folder.path.name, "report": str(folder.path / "report.html")}
        print(json.dumps({**places, **scores.to_dict()}, indent=2))
        return
    from rich.console import Console

    console = Console(markup=False)
    if scores.rows:
        for table in scores.tables():
            console.print(table)
    console.print(f"Report: {folder.path / 'report.html'}", highlight=False, soft_wrap=True)
    if settings.export:
        console.print(f"Model:  {folder.path / 'model'}", highlight=False, soft_wrap=True)


def report(
    run_folder: Path = typer.Argument(..., help="The folder of a run."),
) -> None:
    """Write a run's report.html again, also for a run under way."""
    from SAMSemiSegLib.report.report import write_report

    if not (run_folder / "config.json").exists():
        raise InputError(f"'{run_folder}' is not the folder of a run: it holds no config.json.")
    print(write_report(run_folder))


def runs(
    project: Path = typer.Argument(..., help="The project folder."),
    as_json: bool = typer.Option(False, "--json", help="Print a JSON list."),
) -> None:
    """List the runs of a project with what sets them apart, and their mean Dice."""
    from SAMSemiSegLib.project.project import Project
    from SAMSemiSegLib.run.state import run_states

    states = run_states(Project.load(project).folder)
    if as_json:
        print(json.dumps([vars(state) for state in states], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("Run", "State", "Preset", "Strategy", "Method", "Mode", "Seed", "Dice")
    for run in states:
        state = run.state if run.state == "complete" else f"{run.state} in {run.stage}"
        dice = "" if run.dice is None else f"{run.dice:.3f}"
        told = (run.preset, run.strategy, run.method, run.pseudo_label_mode, run.seed, dice)
        table.add_row(run.name, state, *map(str, told))
    Console(markup=False).print(table)


def _default_name(project: Path, resume: bool) -> str:
    from SAMSemiSegLib.run.folder import RunFolder, new_run_name

    existing = sorted(
        (path for path in (project / "runs").glob("*") if (path / "config.json").exists()),
        key=lambda path: (path / "config.json").stat().st_mtime,
    )
    if resume:
        stopped = [path for path in existing if not RunFolder(path).complete]
        if not stopped:
            are = "every run is complete" if existing else "there is none"
            raise InputError(f"No run in '{project}' can be resumed, for {are}; start a new one.")
        return stopped[-1].name
    return new_run_name(project)
