"""Section 1: the project and its cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from SAMSemiSegModule.panel.adding import Adding
from SAMSemiSegModule.panel.case_table import CaseTable, stateTitle
from SAMSemiSegModule.panel.drawing import mayLeave
from SAMSemiSegModule.panel.section import Section
from SAMSemiSegModule.panel.showing import showCase
from SAMSemiSegModule.panel.suggestion import Suggestion
from SAMSemiSegModule.scene.case_view import caseKey, isUnsaved, keysOf
from SAMSemiSegModule.scene.thumbnails import (
    canThumbnail,
    thumbnailPath,
    writeThumbnail,
    writeThumbnailOf,
)
from SAMSemiSegModule.store import STATES

RECENT = "SAMSemiSeg/RecentProjects"
MOST_RECENT = 8


class ProjectSection(Section):
    """New, open, recent; add cases; the table."""

    uiFile = "Project.ui"

    def setup(self) -> None:
        ui = self.ui
        self._table = CaseTable(ui.caseTable, self._openCase)
        self._adding = Adding(self.services, ui)
        self._suggestion = Suggestion(self.services, self._table.select)
        self._pictures: list[Any] = []
        self.reconnect: Callable[[], None] = lambda: None  # to a training of the project
        self._timer = qt.QTimer()
        self._timer.interval = 30
        self._timer.timeout.connect(self._drawOnePicture)
        self.onClick(ui.newProjectButton, self._newProject)
        self.onClick(ui.openProjectButton, self._openProject)
        self.onClick(ui.addSceneButton, self._adding.fromScene)
        self.onClick(ui.addFilesButton, self._adding.files)
        self.onClick(ui.addFolderButton, self._adding.folder)
        self.onClick(ui.addDicomButton, self._adding.fromDicom)
        self.onClick(ui.showCaseButton, self._showSelected)
        self.onClick(ui.suggestButton, self._suggestion.ask)
        self.onClick(ui.scoreOnlyButton, self._scoreOnly)
        self.onClick(ui.removeCaseButton, self._removeSelected)
        ui.recentBox.activated.connect(self._openRecent)
        ui.filterEdit.textChanged.connect(self._filter)
        ui.stateBox.currentIndexChanged.connect(self._filter)
        ui.stateBox.addItem(_("All states"), "")
        for state in STATES:
            ui.stateBox.addItem(stateTitle(state), state)
        self._showRecent()

    def refresh(self) -> None:
        """This section is always open; only what needs a project greys out."""
        hasProject, reason = self.store.isValid()
        self.ui.reasonLabel.text = reason
        self.ui.reasonLabel.visible = not hasProject
        self.ui.casesBody.enabled = hasProject
        labeled, unlabeled, scored = self.store.counts()
        self.ui.projectLabel.text = (
            _("{folder}\n{labeled} labeled, {unlabeled} unlabeled, {scored} only scored").format(
                folder=self.store.folder, labeled=labeled, unlabeled=unlabeled, scored=scored
            )
            if hasProject
            else ""
        )
        self.ui.projectLabel.visible = hasProject
        if self._table.show(self.store.cases, self.store.folder):
            self._queuePictures()

    def cleanup(self) -> None:
        self._timer.stop()
        self._suggestion.end()

    def openFolder(self, folder: Path) -> None:
        """Open the project of a folder, and remember it."""
        if mayLeave(self.services):
            wasOpen = self.store.project is not None
            self.store.open(folder)
            self._opened(wasOpen)

    def selectCase(self, caseId: str) -> None:
        """Select one case in the table, as a click on its row does."""
        self._table.select([caseId])

    def _newProject(self) -> None:
        folder = self.services.dialogs.pickFolder(_("Folder of the new project"))
        if folder is not None and mayLeave(self.services):
            wasOpen = self.store.project is not None
            self.store.create(folder)
            self._opened(wasOpen)

    def _openProject(self) -> None:
        folder = self.services.dialogs.pickFolder(_("Folder of the project"))
        if folder is not None:
            self.openFolder(folder)

    def _openRecent(self, index: int) -> None:
        folder = self.ui.recentBox.itemData(index)
        if folder:
            with self.services.errorsShown():
                self.openFolder(Path(folder))

    def _opened(self, wasOpen: bool) -> None:
        """``wasOpen``: another project was, so that unsaved drawings were asked about."""
        folder = str(self.store.folder)
        if self.parameters is not None:
            if wasOpen or not self._isOfProject(self.parameters):
                # The case on screen is another project's.
                self.services.view.leave(self.parameters, keepsUnsaved=not wasOpen)
            self.parameters.projectFolder = folder
        recent = [folder, *(other for other in self._recent() if other != folder)]
        qt.QSettings().setValue(RECENT, recent[:MOST_RECENT])
        self._showRecent()
        self.reconnect()
        self.services.changed()

    def _isOfProject(self, parameters: Any) -> bool:
        """Whether the case on screen is of the open project, whose folder may have been moved."""
        case, volume = self.store.case(parameters.caseId), parameters.caseVolume
        return None not in (case, volume) and caseKey(self.store, case) in keysOf(volume)

    @staticmethod
    def _recent() -> list[str]:
        stored = qt.QSettings().value(RECENT)
        found = [stored] if isinstance(stored, str) else list(stored or [])
        return [folder for folder in found if (Path(folder) / "project.json").is_file()]

    def _showRecent(self) -> None:
        self.ui.recentBox.clear()
        self.ui.recentBox.addItem(_("Recent projects"), "")
        for folder in self._recent():
            self.ui.recentBox.addItem(folder, folder)

    def _openCase(self, caseId: str) -> None:
        with self.services.errorsShown():
            if not mayLeave(self.services, caseId):
                return
            case = self.store.case(caseId)
            showCase(self.services, case)
            self._drawPictureOfShown(case)
            self.services.changed()

    def _showSelected(self) -> None:
        selected = self._table.selectedIds()
        if not selected:
            raise ValueError(_("Select a case in the table first."))
        self._openCase(selected[0])

    def _scoreOnly(self) -> None:
        selected = self._table.selectedIds()
        if not selected:
            raise ValueError(_("Select labeled cases in the table first."))
        self.store.keepForScoring(selected)
        self.services.changed()

    def _removeSelected(self) -> None:
        selected = self._table.selectedIds()
        if not selected:
            raise ValueError(_("Select cases in the table first."))
        question = _("Take {count} cases out of the project? Their files stay.").format(
            count=len(selected)
        )
        if self.parameters.caseId in selected and isUnsaved(self.parameters.caseSegmentation):
            question += " " + _("The drawing of '{case}' is not saved and will be lost.").format(
                case=self.parameters.caseId
            )
        if self.services.dialogs.confirm(question):
            if self.parameters.caseId in selected:
                self.services.view.leave(self.parameters)
            self.store.remove(selected)
            for caseId in selected:  # of another scan, perhaps, once the id is taken again
                thumbnailPath(self.store.folder, caseId).unlink(missing_ok=True)
            self.services.changed()

    def _filter(self, _value: Any = None) -> None:
        self._table.filter(self.ui.filterEdit.text, self.ui.stateBox.currentData or "")

    def _queuePictures(self) -> None:
        folder = self.store.folder
        self._pictures = [
            case for case in self.store.cases if not thumbnailPath(folder, case.id).is_file()
        ][::-1]
        if self._pictures:
            self._timer.start()

    def _drawOnePicture(self) -> None:
        """One at a time, between two events, so that the table can be used meanwhile."""
        if not self._pictures or self.store.folder is None:
            self._timer.stop()
            return
        case = self._pictures.pop()
        image, target = self.store.imagePath(case), thumbnailPath(self.store.folder, case.id)
        if canThumbnail(image) and not target.is_file():
            writeThumbnail(image, target)
            if target.is_file():
                self._table.setPicture(case.id, target)

    def _drawPictureOfShown(self, case: Any) -> None:
        """The voxels are at hand now, also those of a file too large to read for its picture."""
        target = thumbnailPath(self.store.folder, case.id)
        if not target.is_file():
            writeThumbnailOf(self.parameters.caseVolume, target)
        if target.is_file():
            self._table.setPicture(case.id, target)
