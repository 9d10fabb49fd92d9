"""The ways in: cases from the scene, from files, from folders, from Slicer's DICOM database."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from SAMSemiSegModule.panel.services import Services
from SAMSemiSegModule.scene.candidates import Candidate, candidates, labelsOf, ownDrawings
from SAMSemiSegModule.scene.case_view import caseKey, findNode, markAsCase, markAsSaved
from SAMSemiSegModule.scene.segmentations import ExportedLabels, exportLabels
from SAMSemiSegModule.scene.volumes import exportVolume

MOST_NOTES = 3


class Adding:
    """Adds cases; what cannot be added does not hold up the others, and is told at the end.

    Args:
        services: collaborators.
        ui: the widgets of ``UI/Project.ui``.
    """

    def __init__(self, services: Services, ui: Any) -> None:
        self._services = services
        self.ui = ui

    def fromScene(self) -> None:
        """Volumes of the scene, each with the segmentation drawn on it."""
        store, selector = self._services.store, self.ui.addVolumeSelector
        keys = {caseKey(store, case) for case in store.cases}
        found, notes = candidates(selector.checkedNodes(), keys)
        notes += self._notesOnDrawings(keys)
        if not found:
            nothing = _("The scene holds no volume that could be added; load one, or add files.")
            raise ValueError(_inShort(notes) or nothing)
        if not store.labels:
            drawn = next((c.segmentation for c in found if c.segmentation is not None), None)
            if drawn is not None:
                store.setLabels(labelsOf(drawn))
        self._addEach([(c.volume.GetName(), c) for c in found], self._addCandidate, notes)

    def files(self) -> None:
        """Image files, which stay where they are."""
        from SAMSemiSegLib.volumes.formats import PATTERNS

        paths = self._services.dialogs.pickFiles(_("Images to add"), PATTERNS)
        self._addEach([(path.name, path) for path in paths], self._addFile, [])

    def folder(self) -> None:
        """A folder of images; all of them are added, or none."""
        from SAMSemiSegLib.errors import InputError

        dialogs = self._services.dialogs
        images = dialogs.pickFolder(_("Folder of images"))
        if images is None:
            return
        beside = images.parent / "labels"
        labels = beside if images.name == "images" and beside.is_dir() else None
        question = _("Add the labels in '{folder}' too?").format(folder=beside)
        if labels is not None and not dialogs.confirm(question):
            labels = None
        with dialogs.progress(_("Adding cases")) as goOn:

            def goOnOrStop(done: int, count: int, name: str) -> None:
                if not goOn(done, count, name):
                    raise InputError(_("Stopped; none of the folder's images was added."))

            summary = self._services.store.addFolder(images, labels, goOnOrStop)
        self._services.changed()
        self._tell(summary.notes)

    def fromDicom(self) -> None:
        """Slicer's database loads; what it has loaded is then added from the scene."""
        # Said first: it is to be read when the panel is on screen again.
        self._services.tell(
            _("Load the series in the module 'DICOM', then come back and click 'Add from scene'.")
        )
        slicer.util.selectModule("DICOM")

    def _addEach(
        self,
        things: list[tuple[str, Any]],
        add: Callable[[Any], Iterable[str]],
        notes: list[str],
    ) -> None:
        from SAMSemiSegLib.errors import UserError

        try:
            with self._services.dialogs.progress(_("Adding cases")) as goOn:
                for number, (name, thing) in enumerate(things):
                    if not goOn(number, len(things), name):
                        left = len(things) - number
                        notes.insert(0, _("Stopped; {count} were not added.").format(count=left))
                        break
                    try:
                        notes += add(thing)
                    except (UserError, ValueError, OSError) as error:
                        notes.append(str(error))
        finally:
            self._services.changed()
        self._tell(notes)

    def _addFile(self, path: Path) -> list[str]:
        case = self._services.store.addFile(path)
        return [f"'{case.id}': {case.note}"] if case.note else []

    def _addCandidate(self, candidate: Candidate) -> list[str]:
        """Write volume and label into the project; where one fails, neither stays.

        Returns:
            What the user should know.
        """
        store, volume = self._services.store, candidate.volume
        caseId = store.newCaseId(volume.GetName())
        image = store.newFile("images", caseId, ".nrrd")
        label, notes = None, []
        exportVolume(volume, image)
        try:
            if candidate.segmentation is not None and self.ui.withLabelsBox.checked:
                label = store.newFile("labels", caseId, ".nrrd")
                account = exportLabels(candidate.segmentation, volume, store.labels, label)
                notes = _notesOn(caseId, account)
            case = store.addFile(image, label, caseId)
        except Exception:
            image.unlink(missing_ok=True)
            if label is not None:
                label.unlink(missing_ok=True)
            raise
        self.ui.addVolumeSelector.setCheckState(volume, qt.Qt.Unchecked)
        markAsCase(volume, caseKey(store, case))
        if label is not None:
            markAsCase(candidate.segmentation, caseKey(store, case))
            markAsSaved(candidate.segmentation, label)
        return notes

    def _notesOnDrawings(self, keys: set[str]) -> list[str]:
        """A sentence on each segmentation that is drawn on the scan of a case without a label."""
        store, notes = self._services.store, []
        for case in store.cases:
            if store.labelPath(case) is None:
                volume = findNode(caseKey(store, case), "vtkMRMLScalarVolumeNode")
                notes += [
                    _(
                        "'{segmentation}' is drawn on '{case}', which is in the project already: "
                        "double-click the case, click 'Label this case', and save it."
                    ).format(segmentation=node.GetName(), case=case.id)
                    for node in (ownDrawings(volume, keys) if volume is not None else [])
                ]
        return notes

    def _tell(self, notes: list[str]) -> None:
        if notes:
            self._services.tell(_inShort(notes))


def _inShort(notes: list[str]) -> str:
    """The first few of many sentences, and how many there are more."""
    more = len(notes) - MOST_NOTES
    rest = [_("({count} more of this kind.)").format(count=more)] if more > 0 else []
    return " ".join(notes[:MOST_NOTES] + rest)


def _notesOn(caseId: str, account: ExportedLabels) -> list[str]:
    notes = []
    if account.overlapping:
        notes.append(
            _(
                "{count} voxels of '{case}' lie in several segments; the label that stands "
                "later in the list was kept."
            ).format(count=account.overlapping, case=caseId)
        )
    if account.ignored:
        notes.append(
            _(
                "Segments of '{case}' that the label set does not name were left out: {names}."
            ).format(case=caseId, names=", ".join(account.ignored))
        )
    return notes
