"""Section 2: what is to be segmented, and drawing it."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from SAMSemiSegModule.panel.drawing import checkInScene, saveDrawing, takeOwnDrawing
from SAMSemiSegModule.panel.section import Section
from SAMSemiSegModule.panel.showing import showCase
from SAMSemiSegModule.scene.candidates import labelsOf
from SAMSemiSegModule.scene.case_view import renameLabel
from SAMSemiSegModule.scene.content import emptySegments

COLOR, NAME, VALUE, TERMINOLOGY = 0, 1, 2, 3


class LabelsSection(Section):
    """The label set, and the segment editor on the case on screen."""

    uiFile = "Labels.ui"

    def setup(self) -> None:
        ui = self.ui
        self._filling = False
        ui.labelTable.setColumnWidth(COLOR, 34)
        ui.labelTable.setColumnWidth(VALUE, 44)
        ui.labelTable.horizontalHeader().setStretchLastSection(True)
        self.onClick(ui.addLabelButton, self._addLabel)
        self.onClick(ui.removeLabelButton, self._removeLabel)
        self.onClick(ui.takeSegmentsButton, self._takeSegments)
        self.onClick(ui.labelCaseButton, self.editCase)
        self.onClick(ui.saveLabelButton, self.saveLabel)
        ui.labelTable.itemChanged.connect(self._onEdited)
        ui.labelTable.cellDoubleClicked.connect(self._onDoubleClicked)
        self._editorNode = None
        ui.editor.visible = False

    def isValid(self) -> tuple[bool, str]:
        return self.store.isValid()

    def update(self) -> None:
        self._showLabels()
        parameters = self.parameters
        case = self.store.case(parameters.caseId)
        canLabel = case is not None and bool(self.store.labels)
        self.ui.labelCaseButton.enabled = canLabel
        self.ui.saveLabelButton.enabled = canLabel and parameters.caseSegmentation is not None
        if not self.store.labels:
            text = _("Add a label, or take the segments of a segmentation as labels.")
        elif case is None:
            text = _("Double-click a case in the table above to label it.")
        else:
            text = _("Case '{case}' is on screen.").format(case=case.id)
        self.ui.labelStatusLabel.text = text
        if self.ui.editor.segmentationNode() is not parameters.caseSegmentation:
            self.leaveEditor()

    def editCase(self) -> None:
        """Open the segment editor on the case on screen; review comes here too, to correct."""
        self.button.collapsed = False
        parameters = self.parameters
        checkInScene(parameters)
        case = self.store.case(parameters.caseId)
        if parameters.caseSegmentation is None and self.store.labelPath(case) is not None:
            # It came while the case was on screen, or its node was deleted.
            showCase(self.services, case)
        takeOwnDrawing(self.services)
        segmentation = self.services.view.editable(self.store, parameters)
        editor = self.ui.editor
        editor.setMRMLSegmentEditorNode(self._singleEditorNode())
        editor.setSegmentationNode(segmentation)
        editor.setSourceVolumeNode(parameters.caseVolume)
        editor.visible = True
        self.enter()
        self.services.changed()

    def saveLabel(self) -> None:
        """Make what is drawn the project's label: only this button does, and it trains nothing."""
        if saveDrawing(self.services):
            self.services.changed()

    def enter(self) -> None:
        """The module comes on screen: the editor, where it is open, takes mouse and keys again."""
        editor = self.ui.editor
        if editor.segmentationNode() is not None:  # "visible" is false in a folded section
            editor.setupViewObservations()
            editor.installKeyboardShortcuts()

    def exit(self) -> None:
        """The module leaves the screen: mouse and keys are other modules'. What is drawn stays."""
        editor = self.ui.editor
        editor.setActiveEffectByName("")
        editor.uninstallKeyboardShortcuts()
        editor.removeViewObservations()

    def leaveEditor(self) -> None:
        """Close the editor."""
        editor = self.ui.editor
        if editor.visible or editor.segmentationNode() is not None:
            self.exit()
            editor.setSegmentationNode(None)
            editor.visible = False

    def cleanup(self) -> None:
        self.leaveEditor()

    def _singleEditorNode(self) -> Any:
        # One of our own: Slicer's Segment Editor module keeps its state in another.
        tag = "SAMSemiSeg"
        node = slicer.mrmlScene.GetSingletonNode(tag, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            node.UnRegister(None)
            node.SetSingletonTag(tag)
            node = slicer.mrmlScene.AddNode(node)
        return node

    def _entries(self) -> list[dict[str, Any]]:
        return [
            {
                "name": label.name,
                "value": label.value,
                "color": tuple(label.color),
                "terminology": label.terminology,
            }
            for label in self.store.labels
        ]

    def _setEntries(self, entries: list[dict[str, Any]]) -> None:
        self.store.setLabels(entries)
        self.services.changed()

    def _addLabel(self) -> None:
        from SAMSemiSegLib.project.label_set import PALETTE

        entries = self._entries()
        value = max((entry["value"] for entry in entries), default=0) + 1
        color = PALETTE[len(entries) % len(PALETTE)]
        name = _("label {number}").format(number=value)
        entries.append({"name": name, "value": value, "color": color, "terminology": None})
        self._setEntries(entries)

    def _removeLabel(self) -> None:
        row = self.ui.labelTable.currentRow()
        entries = self._entries()
        if not 0 <= row < len(entries):
            raise ValueError(_("Select a label in the table first."))
        if held := self.store.caseWithValue(entries[row]["value"]):
            raise ValueError(
                _(
                    "'{label}' stays: the label of '{case}' holds it, and perhaps others. Leave it "
                    "out in a new project, before a case is labeled."
                ).format(label=entries[row]["name"], case=held)
            )
        del entries[row]
        self._setEntries(entries)

    def _takeSegments(self) -> None:
        segmentation = self.parameters.caseSegmentation or slicer.mrmlScene.GetFirstNodeByClass(
            "vtkMRMLSegmentationNode"
        )
        if segmentation is None or not segmentation.GetSegmentation().GetNumberOfSegments():
            raise ValueError(_("The scene holds no segmentation with segments; load one first."))
        entries = self._entries()
        known = {entry["name"] for entry in entries}
        first = max((entry["value"] for entry in entries), default=0) + 1
        new = [e for e in labelsOf(segmentation) if e["name"] not in known]
        for number, entry in enumerate(new):
            entries.append({**entry, "value": first + number})
        self._setEntries(entries)
        named = {entry["name"] for entry in entries}
        if empty := [name for name in emptySegments(segmentation) if name not in named]:
            self.services.tell(
                _(
                    "Segments that hold no voxel became no labels: {names}. Draw in them first, or "
                    "click 'Add label'."
                ).format(names=", ".join(empty))
            )

    def _showLabels(self) -> None:
        table = self.ui.labelTable
        self._filling = True
        table.setRowCount(0)
        for row, label in enumerate(self.store.labels):
            table.insertRow(row)
            color = qt.QTableWidgetItem()
            color.setBackground(qt.QBrush(qt.QColor(*label.color)))
            color.setFlags(qt.Qt.ItemIsEnabled)
            color.setToolTip(_("Double-click to choose another color."))
            value = qt.QTableWidgetItem(str(label.value))
            value.setToolTip(_("Value of the label in files."))
            words = terminologyInWords(label.terminology)
            terminology = qt.QTableWidgetItem(words)
            terminology.setFlags(qt.Qt.ItemIsEnabled)
            terminology.setToolTip(_("Set it in the segment editor, then take the segments over."))
            for column, item in enumerate(
                (color, qt.QTableWidgetItem(label.name), value, terminology)
            ):
                table.setItem(row, column, item)
        self._filling = False

    def _onEdited(self, item: Any) -> None:
        if self._filling:
            return
        with self.services.errorsShown():
            try:
                if item.column() == NAME:
                    self._rename(item.row(), item.text().strip())
                elif item.column() == VALUE:
                    self._setValue(item.row(), item.text().strip())
            except Exception:
                self._showLabels()
                raise

    def _rename(self, row: int, name: str) -> None:
        entries = self._entries()
        before, entries[row]["name"] = entries[row]["name"], name
        self._setEntries(entries)
        renameLabel(self.store, before, name)

    def _setValue(self, row: int, value: str) -> None:
        entries = self._entries()
        if not value.isdigit() or int(value) == 0:
            raise ValueError(_("The value of a label is a whole number above 0."))
        if self._hasLabelFiles():
            raise ValueError(
                _(
                    "The values of the labels stay as they are: the label files of the cases hold "
                    "them. Change them in a new project, before a case is labeled."
                )
            )
        entries[row]["value"] = int(value)
        self._setEntries(entries)

    def _hasLabelFiles(self) -> bool:
        return any(self.store.labelPath(case) is not None for case in self.store.cases)

    def _onDoubleClicked(self, row: int, column: int) -> None:
        if column == COLOR:
            entries = self._entries()
            chosen = self.services.dialogs.pickColor(entries[row]["color"])
            if chosen is not None:
                entries[row]["color"] = chosen
                with self.services.errorsShown():
                    self._setEntries(entries)


def terminologyInWords(entry: str | None) -> str:
    """The type that a terminology entry names: ``...~SCT^10200004^Liver~...`` is "Liver"."""
    parts = (entry or "").split("~")
    return parts[2].split("^")[-1] if len(parts) > 2 else ""
