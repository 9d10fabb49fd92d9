"""Seconds and peak memory of each stage, each measured in a process of its own.

    python benchmarks/speed.py            # all rows
    python benchmarks/speed.py vnet sam   # some
    python benchmarks/speed.py --device cuda

Nothing needs downloading: where weights are not at hand, random ones do (speed is the same).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import speed_of_runs  # noqa: F401
import speed_of_sequences  # noqa: F401 - registers its rows
import typer
from measuring import ROWS
from rich.console import Console
from rich.table import Table


def main(
    names: list[str] = typer.Argument(None, help="Rows; default: all."),
    device: str = typer.Option("cpu", help="cpu or cuda."),
    out: Path | None = typer.Option(None, help="Append the rows as JSON lines."),
    only: str = typer.Option("", hidden=True),
) -> None:
    """Measure and print one table."""
    if only:
        print(json.dumps(ROWS[only](device)))
        return
    table = Table("What", "Seconds", "Peak GB", "Remark")
    for name in names or list(ROWS):
        command = [sys.executable, __file__, "--device", device, "--only", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        lines = done.stdout.strip().splitlines()
        rows = json.loads(lines[-1]) if done.returncode == 0 else [{"what": f"{name}: failed"}]
        for line in rows:
            cells = (line.get("seconds", ""), line.get("peak_gb", ""), line.get("remark", ""))
            table.add_row(str(line["what"]), *(str(cell) for cell in cells))
            if out is not None:
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line | {"device": device}) + "\n")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
