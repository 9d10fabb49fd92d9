"""Loss and score curves as Slicer plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import slicer
import vtk

COLORS = (
    (0.12, 0.47, 0.71),
    (1.0, 0.5, 0.05),
    (0.17, 0.63, 0.17),
    (0.84, 0.15, 0.16),
    (0.58, 0.4, 0.74),
    (0.55, 0.34, 0.29),
)


class CurvePlot:
    """One chart; each named curve is a table of its own. The nodes are not saved with the scene."""

    def __init__(self, title: str, xTitle: str, yTitle: str) -> None:
        self.chartNode = self._newNode("vtkMRMLPlotChartNode", title)
        self.chartNode.SetTitle(title)
        self.chartNode.SetXAxisTitle(xTitle)
        self.chartNode.SetYAxisTitle(yTitle)
        self._tables: dict[str, object] = {}
        self._series: dict[str, object] = {}

    def update(self, curves: Mapping[str, Sequence[tuple[float, float]]]) -> None:
        """Show these curves and no others: points (x, y) by name."""
        for name in set(self._tables) - set(curves):
            self._removeCurve(name)
        for name, points in curves.items():
            table = self._tables.get(name) or self._addCurve(name)
            xs, ys = vtk.vtkDoubleArray(), vtk.vtkDoubleArray()
            xs.SetName("x")
            ys.SetName("y")
            for x, y in points:
                xs.InsertNextValue(x)
                ys.InsertNextValue(y)
            vtkTable = vtk.vtkTable()
            vtkTable.AddColumn(xs)
            vtkTable.AddColumn(ys)
            table.SetAndObserveTable(vtkTable)

    def remove(self) -> None:
        """Take all nodes out of the scene."""
        for name in list(self._tables):
            self._removeCurve(name)
        slicer.mrmlScene.RemoveNode(self.chartNode)

    def _removeCurve(self, name: str) -> None:
        series = self._series.pop(name)
        self.chartNode.RemovePlotSeriesNodeID(series.GetID())
        slicer.mrmlScene.RemoveNode(series)
        slicer.mrmlScene.RemoveNode(self._tables.pop(name))

    def _addCurve(self, name: str):
        table = self._newNode("vtkMRMLTableNode", name)
        series = self._newNode("vtkMRMLPlotSeriesNode", name)
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName("x")
        series.SetYColumnName("y")
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
        series.SetColor(*COLORS[len(self._series) % len(COLORS)])
        self.chartNode.AddAndObservePlotSeriesNodeID(series.GetID())
        self._tables[name] = table
        self._series[name] = series
        return table

    @staticmethod
    def _newNode(className: str, name: str):
        node = slicer.mrmlScene.CreateNodeByClass(className)
        node.UnRegister(None)
        node.SetName(name)
        node.SetSaveWithScene(False)
        node.SetHideFromEditors(True)
        return slicer.mrmlScene.AddNode(node)
