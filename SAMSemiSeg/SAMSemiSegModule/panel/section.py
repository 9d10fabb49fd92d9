"""What the five sections have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer

from SAMSemiSegModule.panel.services import Services


class Section:
    """One collapsible part of the panel, with widgets from its own .ui file.

    It greys out, and says why, until its input is there.

    Args:
        services: collaborators.
        button: the collapsible button to live in.
    """

    uiFile = ""

    def __init__(self, services: Services, button: Any) -> None:
        self.services = services
        self.button = button
        self.widget = slicer.util.loadUI(str(services.resource(f"UI/{self.uiFile}")))
        button.layout().addWidget(self.widget)
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.widget.setMRMLScene(slicer.mrmlScene)
        self.setup()

    @property
    def store(self):
        return self.services.store

    @property
    def parameters(self):
        return self.services.parameters

    def setup(self) -> None:
        """Connect the widgets."""

    def isValid(self) -> tuple[bool, str]:
        """Whether the section has its input; else the reason, and what to do."""
        return True, ""

    def update(self) -> None:
        """Show the present state; called when the input is there."""

    def refresh(self) -> None:
        """Grey out or show."""
        isValid, reason = self.isValid()
        self.ui.reasonLabel.text = reason
        self.ui.reasonLabel.visible = not isValid
        self.ui.body.enabled = isValid
        if self.parameters is not None:
            self.update()

    def onClick(self, button: Any, action: Callable[[], None]) -> None:
        """Run the action when the button is clicked; what goes wrong is shown in the panel."""

        def clicked() -> None:
            with self.services.errorsShown():
                action()

        button.clicked.connect(clicked)

    def cleanup(self) -> None:
        """Take leave: timers, processes, observers."""


class Choice:
    """A combo box over a text parameter whose values are known only at run time."""

    def __init__(self, box: Any, changed: Callable[[str], None]) -> None:
        self._box = box
        self._changed = changed
        self._filling = False
        box.currentIndexChanged.connect(self._onChanged)

    def fill(self, entries: list[tuple[str, str, str]], value: str) -> None:
        """Offer these (value, title, tooltip) and show the one chosen, known or not."""
        if value and value not in [entry[0] for entry in entries]:
            entries = [*entries, (value, value, "")]
        self._filling = True
        self._box.clear()
        for number, (key, title, tip) in enumerate(entries):
            self._box.addItem(title, key)
            self._box.setItemData(number, tip, qt.Qt.ToolTipRole)
        self._box.setCurrentIndex(max(0, self._box.findData(value)))
        self._filling = False

    @property
    def value(self) -> str:
        return self._box.currentData or ""

    def _onChanged(self, index: int) -> None:
        if not self._filling and index >= 0:
            self._changed(self.value)
