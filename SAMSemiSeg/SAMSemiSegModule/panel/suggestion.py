"""Which cases to label next, asked of the library in the background."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from SAMSemiSegModule.panel.services import Services
from SAMSemiSegModule.process.query import NoAnswer

COUNT = 3
"""Cases suggested at a time: as many as their reasons can be read at a glance."""


class Suggestion:
    """One question at a time to ``samsemiseg project suggest``.

    Args:
        services: collaborators.
        select: selects these cases in the table.
    """

    def __init__(self, services: Services, select: Callable[[list[str]], None]) -> None:
        self._services = services
        self._select = select
        self._query: Any = None
        self._folder: Path | None = None
        self._timer = qt.QTimer()
        self._timer.interval = 200
        self._timer.timeout.connect(self._poll)

    def ask(self) -> None:
        """Ask for the open project; the answer comes by and by."""
        self.end()
        self._folder = self._services.store.folder
        self._query = self._services.ask(
            ["project", "suggest", str(self._folder), "--count", str(COUNT)]
        )
        self._services.tell(_("Looking at the volumes: about a second each, the first time."))
        self._timer.start()

    def end(self) -> None:
        """Give up the question."""
        self._timer.stop()
        if self._query is not None:
            self._query.end()
            self._query = None

    def _poll(self) -> None:
        try:
            answer = self._query.poll()
        except NoAnswer as error:
            self.end()
            self._services.tell(str(error))
            return
        if answer is None:
            return
        self.end()
        if self._services.store.folder != self._folder:
            return
        cases = answer["cases"]
        self._select([case["id"] for case in cases])
        reasons = [f"'{case['id']}' ({case['why']})" for case in cases]
        self._services.tell(_("Label next: {cases}.").format(cases=", ".join(reasons)))
