"""``slicer.mrmlScene``, the module logics and file input and output, on slicer-core alone."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

STANDINS = Path(__file__).parent.parent / "standins"


def slicerPythonDir() -> Path:
    """Slicer's own Python files where ``SLICER_PYTHON_DIR`` names them, else the stand-ins."""
    return Path(os.environ.get("SLICER_PYTHON_DIR") or STANDINS)


def startScene() -> Any:
    """Give the ``slicer`` package of slicer-core a scene, logics and an application.

    Returns:
        The ``slicer`` module. Calling again returns the same, with the scene as it is.
    """
    import slicer

    if getattr(slicer, "mrmlScene", None) is not None:
        return slicer
    slicer.__path__.append(str(slicerPythonDir()))
    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    # Reading a .mrb unpacks it in the cache.
    cache, dataIO = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
    cache.SetRemoteCacheDirectory(tempfile.mkdtemp(prefix="SAMSemiSeg-cache-"))
    atexit.register(shutil.rmtree, cache.GetRemoteCacheDirectory(), ignore_errors=True)
    cache.SetMRMLScene(scene)
    dataIO.SetCacheManager(cache)
    scene.SetDataIOManager(dataIO)
    scene.SetCacheManager(cache)
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    color = slicer.vtkSlicerColorLogic()
    application.SetHomeDirectory("/")
    color.SetMRMLApplicationLogic(application)
    color.SetMRMLScene(scene)
    application.SetColorLogic(color)
    volumes = slicer.vtkSlicerVolumesLogic()
    segmentations = slicer.vtkSlicerSegmentationsModuleLogic()
    plots = slicer.vtkSlicerPlotsLogic()
    logics = {
        "volumes": volumes,
        "segmentations": segmentations,
        "plots": plots,
        "colors": color,
    }
    for name, logic in logics.items():
        logic.SetMRMLApplicationLogic(application)
        logic.SetMRMLScene(scene)
        application.SetModuleLogic(name.capitalize(), logic)
    slicer.modules = types.ModuleType("slicer.modules")
    sys.modules["slicer.modules"] = slicer.modules
    for name, logic in logics.items():
        module = types.SimpleNamespace(logic=lambda logic=logic: logic)
        setattr(slicer.modules, name, module)
    slicer.app = SceneApplication(slicer, application)
    slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
    return slicer


class SceneApplication:
    """The part of ``slicer.app`` that needs no windows."""

    def __init__(self, slicer: Any, applicationLogic: Any) -> None:
        self._slicer = slicer
        self._applicationLogic = applicationLogic
        self._io = CoreIOManager(slicer)
        self.temporaryPath = tempfile.gettempdir()
        self.startupCompleted: list[Any] = []

    def mrmlScene(self) -> Any:
        return self._slicer.mrmlScene

    def applicationLogic(self) -> Any:
        return self._applicationLogic

    def coreIOManager(self) -> Any:
        return self._io

    def layoutManager(self) -> Any:
        return None

    def testingEnabled(self) -> bool:
        return True

    def processEvents(self) -> None:
        pass

    def translate(self, context: str, text: str) -> str:
        return text

    def startupEnvironment(self) -> Any:
        return _Environment(os.environ)

    def connect(self, signal: str, slot: Any) -> None:
        if signal == "startupCompleted()":
            self.startupCompleted.append(slot)


class _Environment:
    """QProcessEnvironment's two functions that ``slicer.util.startupEnvironment`` calls."""

    def __init__(self, values: Any) -> None:
        self._values = dict(values)

    def keys(self) -> list[str]:
        return list(self._values)

    def value(self, name: str) -> str:
        return self._values[name]


class CoreIOManager:
    """Reads and writes volumes and segmentations as Slicer's readers do, by MRML's own logics."""

    def __init__(self, slicer: Any) -> None:
        self._slicer = slicer

    def fileType(self, path: str) -> str:
        return "SegmentationFile" if str(path).endswith((".seg.nrrd", ".seg.nii")) else "VolumeFile"

    def fileWriterFileType(self, node: Any) -> str:
        return "SegmentationFile" if node.IsA("vtkMRMLSegmentationNode") else "VolumeFile"

    def loadNodes(self, fileType: str, properties: Any, loaded: Any, messages: Any) -> bool:
        path = properties["fileName"]
        if not os.path.exists(path):
            return False
        name = properties.get("name") or Path(path).name.split(".")[0]
        if fileType == "SegmentationFile":
            node = self._slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
            node.CreateDefaultDisplayNodes()
            node.AddDefaultStorageNode()
            storage = node.GetStorageNode()
            storage.SetFileName(path)
            if not storage.ReadData(node):
                self._slicer.mrmlScene.RemoveNode(node)
                return False
        else:
            logic = self._slicer.modules.volumes.logic()
            labelMap, autoWindowLevel = 1, 8
            options = labelMap if properties.get("labelmap") else autoWindowLevel
            node = logic.AddArchetypeVolume(path, name, options)
            if node is None:
                return False
        loaded.AddItem(node)
        return True

    def saveNodes(self, fileType: str, properties: Any, messages: Any) -> bool:
        node = self._slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        node.AddDefaultStorageNode(properties["fileName"])
        storage = node.GetStorageNode()
        storage.SetFileName(properties["fileName"])
        if "useCompression" in properties:
            storage.SetUseCompression(int(properties["useCompression"]))
        return bool(storage.WriteData(node))
