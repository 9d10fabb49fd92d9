"""Questions to the user, behind a Protocol so that tests can answer them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from slicer.i18n import tr as _

GoOn = Callable[[int, int, str], bool]
"""Told what is done, of how many, and what comes next; says whether to go on."""


class Dialogs(Protocol):
    """All windows that the panel opens."""

    def pickFolder(self, title: str) -> Path | None: ...

    def pickFiles(self, title: str, kinds: str) -> list[Path]: ...

    def pickColor(self, color: tuple[int, int, int]) -> tuple[int, int, int] | None: ...

    def confirm(self, question: str) -> bool: ...

    def saveDrawing(self, question: str) -> bool | None: ...

    def goOnAfterSlicer(self) -> bool: ...

    def progress(self, title: str) -> AbstractContextManager[GoOn]: ...


class QtDialogs:
    """Qt's own dialogs."""

    def pickFolder(self, title: str) -> Path | None:
        import qt

        folder = qt.QFileDialog.getExistingDirectory(None, title)
        return Path(folder) if folder else None

    def pickFiles(self, title: str, kinds: str) -> list[Path]:
        import qt

        files = qt.QFileDialog.getOpenFileNames(None, title, "", kinds)
        return [Path(file) for file in files]

    def pickColor(self, color: tuple[int, int, int]) -> tuple[int, int, int] | None:
        import qt

        chosen = qt.QColorDialog.getColor(qt.QColor(*color))
        if not chosen.isValid():
            return None
        return chosen.red(), chosen.green(), chosen.blue()

    def confirm(self, question: str) -> bool:
        import slicer

        return slicer.util.confirmOkCancelDisplay(question)

    def saveDrawing(self, question: str) -> bool | None:
        """Whether a drawing shall be saved; False: lose it, None: stay with it."""
        import qt
        import slicer

        box = qt.QMessageBox
        answer = slicer.util.messageBox(
            question,
            windowTitle=_("Drawing not saved"),
            icon=box.Question,
            standardButtons=box.Save | box.Discard | box.Cancel,
        )
        if answer == box.Save:
            return True
        return False if answer == box.Discard else None

    def goOnAfterSlicer(self) -> bool:
        """Whether a training shall go on when Slicer closes; False: stop it."""
        import slicer

        return slicer.util.confirmYesNoDisplay(
            _(
                "A training is running. Let it go on after Slicer has closed?\n\nYes: it goes on; "
                "open the project again to follow it.\nNo: it stops now and can be continued later."
            )
        )

    @contextmanager
    def progress(self, title: str) -> Iterator[GoOn]:
        """Show how far a work of seconds is; it can be stopped between two of its parts."""
        import qt
        import slicer

        window = slicer.util.createProgressDialog(
            windowTitle=title, labelText=title, windowModality=qt.Qt.WindowModal, autoReset=False
        )

        def goOn(done: int, count: int, name: str) -> bool:
            window.maximum = count
            window.labelText = name
            window.value = done
            slicer.app.processEvents()
            return not window.wasCanceled

        try:
            yield goOn
        finally:
            window.close()
            window.deleteLater()
