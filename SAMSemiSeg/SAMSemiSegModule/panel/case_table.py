"""The table of cases: picture, name, state, confidence; filtered and sorted by Qt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from SAMSemiSegModule.scene.thumbnails import thumbnailPath

NAME, STATE, CONFIDENCE = 0, 1, 2
ID_ROLE = qt.Qt.UserRole
SORT_ROLE = qt.Qt.UserRole + 1


def stateTitle(state: str) -> str:
    """A case's state in words."""
    return {
        "unlabeled": _("unlabeled"),
        "labeled": _("labeled"),
        "pseudo": _("to review"),
        "corrected": _("corrected"),
        "accepted": _("accepted"),
        "rejected": _("rejected"),
    }.get(state, state)


class CaseTable:
    """Shows cases in a table view.

    Two proxies, one for the name and one for the state, filter without any Python code running
    for each row.
    """

    def __init__(self, view: Any, opened: Callable[[str], None]) -> None:
        self._view = view
        self._opened = opened
        self._shown: list[tuple[Any, ...]] = []
        self._folder: Path | None = None
        self._model = qt.QStandardItemModel(0, 3)
        self._model.setHorizontalHeaderLabels([_("Case"), _("State"), _("Confidence")])
        self._byName = self._proxy(self._model, NAME)
        self._byState = self._proxy(self._byName, STATE)
        self._byState.setSortRole(SORT_ROLE)
        view.setModel(self._byState)
        view.setIconSize(qt.QSize(32, 32))
        view.sortByColumn(NAME, qt.Qt.AscendingOrder)
        view.horizontalHeader().setSectionResizeMode(NAME, qt.QHeaderView.Stretch)
        view.verticalHeader().setDefaultSectionSize(34)
        view.doubleClicked.connect(self._onDoubleClicked)

    def show(self, cases: list[Any], folder: Path | None) -> bool:
        """Show these cases.

        Returns:
            Whether they were not shown already.
        """
        shown = [(case.id, case.status, case.confidence, case.role) for case in cases]
        if shown == self._shown and folder == self._folder:
            return False
        self._shown, self._folder = shown, folder
        selected = self.selectedIds()
        self._model.setRowCount(0)
        for case in cases:
            self._model.appendRow(self._items(case, folder))
        self.select(selected)
        return True

    def setPicture(self, caseId: str, picture: Path) -> None:
        """Show a picture that has been made meanwhile."""
        for row, entry in enumerate(self._shown):
            if entry[0] == caseId:
                self._model.item(row, NAME).setIcon(qt.QIcon(str(picture)))

    def filter(self, text: str, state: str) -> None:
        """Show only cases whose name holds the text and that are in the state ("" is any)."""
        self._byName.setFilterFixedString(text)
        # The whole word: "labeled" is part of "unlabeled".
        pattern = qt.QRegularExpression.escape(stateTitle(state)) if state else ".*"
        self._byState.setFilterRegularExpression(qt.QRegularExpression(f"^{pattern}$"))

    def selectedIds(self) -> list[str]:
        """Ids of the selected rows."""
        rows = self._view.selectionModel().selectedRows()
        return [index.data(ID_ROLE) for index in rows]

    def select(self, caseIds: list[str]) -> None:
        """Select the rows of these cases."""
        self._view.clearSelection()
        for row in range(self._byState.rowCount()):
            index = self._byState.index(row, NAME)
            if index.data(ID_ROLE) in caseIds:
                mode = qt.QItemSelectionModel.Select | qt.QItemSelectionModel.Rows
                self._view.selectionModel().select(index, mode)

    def visibleIds(self) -> list[str]:
        """Ids in the order shown, without those filtered away."""
        rows = range(self._byState.rowCount())
        return [self._byState.index(row, NAME).data(ID_ROLE) for row in rows]

    def _items(self, case: Any, folder: Path | None) -> list[Any]:
        role = _(" (scored only)") if case.role == "evaluation" else ""
        confidence = "" if case.confidence is None else f"{case.confidence:.2f}"
        texts = (case.id + role, stateTitle(case.status), confidence)
        keys = (case.id, case.status, -1.0 if case.confidence is None else case.confidence)
        items = []
        for text, key in zip(texts, keys, strict=True):
            item = qt.QStandardItem(text)
            item.setEditable(False)
            item.setData(case.id, ID_ROLE)
            item.setData(key, SORT_ROLE)
            items.append(item)
        if folder is not None:
            picture = thumbnailPath(folder, case.id)
            if picture.is_file():
                items[NAME].setIcon(qt.QIcon(str(picture)))
        items[NAME].setToolTip(case.note or case.image)
        return items

    def _proxy(self, source: Any, column: int) -> Any:
        proxy = qt.QSortFilterProxyModel()
        proxy.setSourceModel(source)
        proxy.setFilterKeyColumn(column)
        proxy.setFilterCaseSensitivity(qt.Qt.CaseInsensitive)
        return proxy

    def _onDoubleClicked(self, index: Any) -> None:
        self._opened(index.data(ID_ROLE))
