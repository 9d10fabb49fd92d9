"""Puts the panel together with its real collaborators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from SAMSemiSegModule.install.installer import SlicerInstaller
from SAMSemiSegModule.panel.dialogs import QtDialogs
from SAMSemiSegModule.panel.panel import Panel
from SAMSemiSegModule.panel.services import Services
from SAMSemiSegModule.process.command import libraryFolder, slicerCommand
from SAMSemiSegModule.process.prediction import isComplete
from SAMSemiSegModule.process.query import CommandQuery
from SAMSemiSegModule.process.runner import ProcessRunner
from SAMSemiSegModule.scene.case_view import CaseView
from SAMSemiSegModule.store import ProjectStore


def buildPanel(layout: Any, resourcePath: Callable[[str], str]) -> Panel:
    """The panel in a layout of the module's widget."""
    import sys

    library = str(libraryFolder())
    if library not in sys.path:
        sys.path.append(library)
    services = Services(
        store=ProjectStore(),
        trainer=ProcessRunner(slicerCommand),
        predictor=ProcessRunner(slicerCommand, isComplete),
        ask=lambda arguments: CommandQuery(slicerCommand(), arguments),
        view=CaseView(),
        installer=SlicerInstaller(Path(resourcePath("requirements.txt"))),
        dialogs=QtDialogs(),
        resource=lambda name: Path(resourcePath(name)),
    )
    return Panel(services, layout)
