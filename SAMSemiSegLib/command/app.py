"""The ``samsemiseg`` command: its sub-commands, and how it ends.

Nothing here may import torch, MONAI or SimpleITK: ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys

# Spinning worker threads cost a shared machine dearly (up to 50 times was seen); they must be told
# before torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer

from SAMSemiSegLib import __version__
from SAMSemiSegLib.atomic import is_disk_full, is_forbidden
from SAMSemiSegLib.command import project, weights
from SAMSemiSegLib.command.demo import demo
from SAMSemiSegLib.command.doctor import doctor
from SAMSemiSegLib.command.methods import methods
from SAMSemiSegLib.command.predict import predict
from SAMSemiSegLib.command.settings import settings
from SAMSemiSegLib.command.stitch import stitch
from SAMSemiSegLib.command.suggest import suggest
from SAMSemiSegLib.command.train import report, runs, train
from SAMSemiSegLib.errors import Cancelled, DiskFullError, UserError

IN_THE_WAY = (FileExistsError, NotADirectoryError)
"""What else the system says of a place that was named; other failures are the program's."""

app = typer.Typer(
    name="samsemiseg",
    help="Label a few scans; segment the rest. Foundation-model pseudo-labels for semi-supervised "
    "3D segmentation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
project.app.command()(suggest)
app.add_typer(project.app, name="project", help="Create a project, import cases, see their state.")
app.command()(train)
app.command()(predict)
app.command()(stitch)
app.command()(report)
app.command()(runs)
app.add_typer(weights.app, name="weights", help="Weights of the foundation models.")
app.command()(methods)
app.command()(settings)
app.command()(doctor)
app.command()(demo)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_version, help="Show the version."),
) -> None:
    """Label a few scans; segment the rest."""


def main(command: typer.Typer = app) -> None:
    """Run the command. A user's mistake ends in one sentence on stderr and its exit code.

    Args:
        command: also one of the benchmarks, which end alike.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        command(standalone_mode=True)
    except UserError as error:
        _end(str(error), error.exit_code)
    except Cancelled as error:
        _end(str(error) or "Stopped.", Cancelled.exit_code)
    except OSError as error:
        if is_disk_full(error):
            _end(
                "The disk is full; free some space and go on (what was saved before is whole).",
                DiskFullError.exit_code,
            )
        if error.filename is not None and (is_forbidden(error) or isinstance(error, IN_THE_WAY)):
            _end(
                f"'{error.filename}' cannot be used ({error.strerror}); check the path, and that "
                "you may write there.",
                UserError.exit_code,
            )
        raise


def _end(sentence: str, code: int) -> None:
    print(sentence, file=sys.stderr)
    # Threads of accelerate or of a data loader must not keep a finished process alive.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
