"""SAMSemiSeg: label a few scans, train, review, export. The module as Slicer loads it."""

from __future__ import annotations

import os
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class SAMSemiSeg(ScriptedLoadableModule):
    """Title, category, help."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "SAMSemiSeg"
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "SegmentEditor", "Plots"]
        parent.contributors = ["The SAMSemiSeg developers"]
        parent.helpText = _(
            "Label a few scans, let a foundation model and semi-supervised training do the rest, "
            "review what it is unsure of, and export a 3D network."
        )
        parent.acknowledgementText = _("Methods and their sources are in the documentation.")
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Add the tutorial's scans to the Sample Data module."""
    from SAMSemiSegModule.sample_data import register

    register(Path(__file__).parent / "Resources" / "Icons")


class SAMSemiSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Builds the panel and keeps it on the scene's parameter node."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        from SAMSemiSegModule.assembly import buildPanel

        self.logic = SAMSemiSegLogic()
        self.panel = buildPanel(self.layout, self.resourcePath)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndClose)
        slicer.app.connect("aboutToQuit()", self.onAboutToQuit)
        self.panel.setParameters(self.logic.getParameterNode())

    def enter(self):
        if self.panel.services.parameters is None:
            self.panel.setParameters(self.logic.getParameterNode())
        self.panel.enter()

    def exit(self):
        self.panel.exit()

    def cleanup(self):
        self.removeObservers()
        slicer.app.disconnect("aboutToQuit()", self.onAboutToQuit)
        if self.panel is not None:
            self.panel.cleanup()

    def onSceneStartClose(self, caller, event):
        self.panel.setParameters(None)

    def onSceneEndClose(self, caller, event):
        self.panel.setParameters(self.logic.getParameterNode())

    def onAboutToQuit(self):
        self.panel.endWithSlicer()


class SAMSemiSegLogic(ScriptedLoadableModuleLogic):
    """Hands out the typed parameter node."""

    def getParameterNode(self):
        from SAMSemiSegModule.parameters import SAMSemiSegParameters

        return SAMSemiSegParameters(super().getParameterNode())


class SAMSemiSegTest(ScriptedLoadableModuleTest):
    """The story of Testing/slicer/story.py, run inside Slicer."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_story()

    def test_story(self):
        from SAMSemiSegModule.story import runStory

        self.delayDisplay("Project, labels, training, review, model")
        runStory(slicer.util.getModuleWidget("SAMSemiSeg"), os.environ.get("SAMSEMISEG_DATA"))
        self.delayDisplay("Done")
