"""Stand-ins for Slicer's MRML widgets, bound to the real scene."""

from __future__ import annotations

import itertools
from typing import Any

from host.pythonqt import installQt, registerCustomWidget

qt = installQt()
from PySide6.QtCore import Property, Signal  # noqa: E402


class qMRMLWidget(qt.QWidget):
    """Passes the scene on to the MRML widgets below it, as the .ui file's connections do."""

    mrmlSceneChanged = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None
        self.isEntered = False

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene):
        self._scene = scene
        for child in self.findChildren(qt.QWidget):
            if hasattr(child, "setMRMLScene") and type(child) is not qMRMLWidget:
                child.setMRMLScene(scene)
        self.mrmlSceneChanged.emit(scene)


def _stored(kind, name, default):
    """A Qt property, so that .ui files can set it."""
    return Property(
        kind,
        lambda self: self.__dict__.get("_" + name, default),
        lambda self, value: self.__dict__.__setitem__("_" + name, value),
    )


class _NodeList:
    """The nodes of some classes, kept up to date by the scene's events."""

    def _observe(self, scene: Any) -> None:
        import slicer

        if self._scene is not None:
            return
        self._scene, self._tags = scene, []
        for event in (
            slicer.vtkMRMLScene.NodeAddedEvent,
            slicer.vtkMRMLScene.NodeRemovedEvent,
            slicer.vtkMRMLScene.EndCloseEvent,
            slicer.vtkMRMLScene.EndImportEvent,
        ):
            self._tags.append(scene.AddObserver(event, lambda *_: self._rebuild()))
        tags = self._tags
        self.destroyed.connect(lambda: [scene.RemoveObserver(tag) for tag in tags])
        self._rebuild()

    def _nodes(self) -> list[Any]:
        nodes = []
        for index in range(self._scene.GetNumberOfNodes()):
            node = self._scene.GetNthNode(index)
            if node.GetClassName() in self.nodeTypes and not node.GetHideFromEditors():
                nodes.append(node)
        return nodes


class qMRMLNodeComboBox(qt.QComboBox, _NodeList):
    """Chooses one node of the scene."""

    currentNodeChanged = Signal(object)
    nodeTypes = _stored("QStringList", "nodeTypes", [])
    noneEnabled = _stored(bool, "noneEnabled", False)
    addEnabled = _stored(bool, "addEnabled", True)
    removeEnabled = _stored(bool, "removeEnabled", True)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None
        self._building = False
        self.currentIndexChanged.connect(self._indexChanged)

    def setMRMLScene(self, scene):
        self._observe(scene)

    def currentNode(self):
        if self._scene is None or not self.currentData:
            return None
        return self._scene.GetNodeByID(self.currentData)

    def setCurrentNode(self, node):
        self._select(node.GetID() if node is not None else "")

    def _select(self, nodeId):
        index = self.findData(nodeId)
        if index >= 0 and index != self.currentIndex:
            self.currentIndex = index
        elif index < 0 and not nodeId:
            self.currentIndex = -1

    def _indexChanged(self, index):
        if not self._building:
            self.currentNodeChanged.emit(self.currentNode())

    def _rebuild(self):
        current = self.currentData or ""
        self._building = True
        self.clear()
        if self.noneEnabled:
            self.addItem("None", "")
        for node in self._nodes():
            self.addItem(node.GetName(), node.GetID())
        self._building = False
        index = self.findData(current)
        if index >= 0:
            self.currentIndex = index
        else:
            self.currentNodeChanged.emit(self.currentNode())


class qMRMLCheckableNodeComboBox(qt.QComboBox, _NodeList):
    """Chooses several nodes of the scene."""

    checkedNodesChanged = Signal()
    nodeTypes = _stored("QStringList", "nodeTypes", [])

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None
        self._checked: set[str] = set()

    def setMRMLScene(self, scene):
        self._observe(scene)

    def checkedNodes(self):
        return [node for node in self._nodes() if node.GetID() in self._checked]

    def setCheckState(self, node, state):
        change = self._checked.add if state == qt.Qt.Checked else self._checked.discard
        change(node.GetID())
        self._rebuild()
        self.checkedNodesChanged.emit()

    def _rebuild(self):
        self.clear()
        names = [node.GetName() for node in self.checkedNodes()]
        self.addItem(", ".join(names) or "None")


class qMRMLSegmentEditorWidget(qt.QFrame):
    """The segment editor's frame: what it edits is real, its tools are a picture."""

    segmentationNodeChanged = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._segmentation = self._volume = self._editorNode = self._scene = None
        self.effect, self.observesViews, self.hasShortcuts = "", False, False
        layout = qt.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._title = qt.QLabel("")
        self._table = qt.QTableWidget(0, 2)
        self._table.setHorizontalHeaderLabels(["", "Name"])
        self._table.horizontalHeader().setStretchLastSection(True)
        self._table.setColumnWidth(0, 30)
        self._table.setMaximumHeight(90)
        effects = qt.QGridLayout()
        for index, name in enumerate(
            ("Threshold", "Paint", "Draw", "Erase", "Level tracing", "Grow", "Islands", "Smooth")
        ):
            button = qt.QToolButton()
            button.text = name
            button.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
            effects.addWidget(button, index // 4, index % 4)
        layout.addWidget(self._title)
        layout.addWidget(self._table)
        layout.addLayout(effects)

    def setMRMLScene(self, scene):
        self._scene = scene

    def setMRMLSegmentEditorNode(self, node):
        self._editorNode = node

    def mrmlSegmentEditorNode(self):
        return self._editorNode

    def segmentationNode(self):
        return self._segmentation

    def setSegmentationNode(self, node):
        self._segmentation = node
        self._refresh()

    def sourceVolumeNode(self):
        return self._volume

    def setSourceVolumeNode(self, node):
        self._volume = node
        self._refresh()

    def setSwitchToSegmentationsButtonVisible(self, visible):
        pass

    def setSegmentationNodeSelectorVisible(self, visible):
        pass

    def setSourceVolumeNodeSelectorVisible(self, visible):
        pass

    def setMaximumNumberOfUndoStates(self, count):
        pass

    def setActiveEffectByName(self, name):
        self.effect = name

    def setupViewObservations(self):
        self.observesViews = True

    def removeViewObservations(self):
        self.observesViews = False

    def installKeyboardShortcuts(self):
        self.hasShortcuts = True

    def uninstallKeyboardShortcuts(self):
        self.hasShortcuts = False

    def _refresh(self):
        volume = self._volume.GetName() if self._volume else "None"
        self._title.text = f"Source volume: {volume}"
        self._table.setRowCount(0)
        if self._segmentation is None:
            return
        segmentation = self._segmentation.GetSegmentation()
        for row, segmentId in enumerate(segmentation.GetSegmentIDs()):
            segment = segmentation.GetSegment(segmentId)
            self._table.insertRow(row)
            color = qt.QTableWidgetItem()
            color.setBackground(qt.QColor.fromRgbF(*segment.GetColor()))
            self._table.setItem(row, 0, color)
            self._table.setItem(row, 1, qt.QTableWidgetItem(segment.GetName()))


class qMRMLPlotWidget(qt.QFrame):
    """Draws the plot chart of its view node, by VTK as Slicer does."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._viewNode = None
        self._scene = None

    def setMRMLScene(self, scene):
        self._scene = scene

    def setMRMLPlotViewNode(self, node):
        self._viewNode = node

    def paintEvent(self, event):
        chart = self._viewNode.GetPlotChartNode() if self._viewNode is not None else None
        painter = qt.QPainter(self)
        painter.fillRect(self.rect, qt.QColor("white"))
        if chart is not None:
            area = self.rect.adjusted(48, 22, -12, -22)
            painter.setPen(qt.QColor("black"))
            painter.drawText(qt.QRect(0, 2, self.rect.width(), 18), 4, chart.GetTitle())
            title = chart.GetXAxisTitle() or ""
            painter.drawText(area.center().x(), area.bottom() + 15, title)
            painter.drawRect(area)
            self._drawCurves(painter, chart, area)
        painter.end()

    def _drawCurves(self, painter, chart, area):
        curves = []
        for index in range(chart.GetNumberOfPlotSeriesNodes()):
            series = chart.GetNthPlotSeriesNode(index)
            table = series.GetTableNode().GetTable()
            xs, ys = table.GetColumn(0), table.GetColumn(1)
            points = [(xs.GetValue(i), ys.GetValue(i)) for i in range(table.GetNumberOfRows())]
            curves.append((series, points))
        every = [p for _, points in curves for p in points]
        if not every:
            return
        left, right = min(x for x, _ in every), max(x for x, _ in every)
        low, high = min(0, *(y for _, y in every)), max(y for _, y in every)
        painter.drawText(4, area.top() + 10, f"{high:.2f}")
        painter.drawText(4, area.bottom(), f"{low:.2f}")
        painter.drawText(area.right() - 30, area.bottom() + 14, f"{right:.0f}")
        # The first curve, the whole loss, is drawn last: its parts may lie under it.
        for number, (series, points) in reversed(list(enumerate(curves))):
            painter.setPen(qt.QPen(qt.QColor.fromRgbF(*series.GetColor()), 1.5))
            painter.drawText(area.right() - 110, area.top() + 16 + 15 * number, series.GetName())
            shown = [
                qt.QPointF(
                    area.left() + area.width() * (x - left) / max(right - left, 1e-9),
                    area.bottom() - area.height() * (y - low) / max(high - low, 1e-9),
                )
                for x, y in points
            ]
            for a, b in itertools.pairwise(shown):
                painter.drawLine(a, b)


WIDGETS = (
    qMRMLWidget,
    qMRMLNodeComboBox,
    qMRMLCheckableNodeComboBox,
    qMRMLSegmentEditorWidget,
    qMRMLPlotWidget,
)


def installWidgets(slicer: Any) -> None:
    """Make the widgets known to .ui files and to ``slicer``."""
    for widget in WIDGETS:
        setattr(slicer, widget.__name__, widget)
        registerCustomWidget(widget.__name__, widget)
    for name in ("qMRMLSliderWidget", "qMRMLSpinBox", "qMRMLRangeWidget"):
        setattr(slicer, name, type(name, (qt.QWidget,), {}))
