"""What the sections work with; made once, passed to each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from SAMSemiSegModule.install.installer import Installer
from SAMSemiSegModule.panel.dialogs import Dialogs
from SAMSemiSegModule.process.query import AskLibrary
from SAMSemiSegModule.process.runner import Runner
from SAMSemiSegModule.scene.case_view import CaseView
from SAMSemiSegModule.store import ProjectStore


@dataclass
class Services:
    """The panel's collaborators.

    Attributes:
        store: the open project.
        trainer, predictor: runners of the two kinds of work.
        ask: asks the library what it offers.
        view: shows cases.
        installer: knows what is missing.
        dialogs: asks the user.
        resource: path of a file in the module's resources.
        parameters: the parameter node's wrapper, None between two scenes.
        changed: tells all sections to look again.
        errorsShown: shows in the panel what goes wrong inside ``with``; ``clear=False`` lets an
            earlier message stand.
        tell: shows a sentence in the panel.
    """

    store: ProjectStore
    trainer: Runner
    predictor: Runner
    ask: AskLibrary
    view: CaseView
    installer: Installer
    dialogs: Dialogs
    resource: Callable[[str], Path]
    parameters: Any = None
    changed: Callable[[], None] = lambda: None
    errorsShown: Callable[..., AbstractContextManager[None]] | None = None
    tell: Callable[[str], None] = lambda text: None
