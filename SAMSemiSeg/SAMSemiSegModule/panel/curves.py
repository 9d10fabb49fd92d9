"""The curves of the run that is followed, in the panel's own plot view."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from SAMSemiSegModule.process.progress import RunProgress
from SAMSemiSegModule.scene.plots import CurvePlot

TAG = "SAMSemiSeg"


class Curves:
    """Drawn where there is something to draw.

    Args:
        widget: a ``qMRMLPlotWidget``.
    """

    def __init__(self, widget: Any) -> None:
        self._widget = widget
        self._plot: CurvePlot | None = None
        widget.visible = False

    def show(self, progress: RunProgress) -> None:
        """Draw the curves as they are now."""
        if self._plot is None:
            self._plot = CurvePlot(_("Training"), _("step"), _("value"))
            view = self._view()
            view.SetPlotChartNodeID(self._plot.chartNode.GetID())
            self._widget.setMRMLPlotViewNode(view)
            self._widget.visible = True
        self._plot.chartNode.SetTitle(progress.titleOf(progress.curvesOf))
        self._plot.update(progress.shownCurves)
        self._widget.update()

    def forget(self) -> None:
        """Another run begins, or the scene is closed and its plot nodes go with it."""
        if self._plot is not None:
            self._plot.remove()
            self._plot = None
        self._widget.visible = False

    @staticmethod
    def _view() -> Any:
        node = slicer.mrmlScene.GetSingletonNode(TAG, "vtkMRMLPlotViewNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLPlotViewNode")
            node.UnRegister(None)
            node.SetSingletonTag(TAG)
            node.SetSaveWithScene(False)
            node = slicer.mrmlScene.AddNode(node)
        return node
