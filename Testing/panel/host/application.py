"""Starts the host: Qt, scene and widgets together, and the module inside them."""

from __future__ import annotations

import importlib
import os
import sys
import types
from pathlib import Path
from typing import Any

from host.pythonqt import installQt

MODULE_FOLDER = Path(__file__).resolve().parents[3] / "SAMSemiSeg"


class Application:
    """``slicer.app`` with windows: adds what the panel asks for to the scene's application."""

    def __init__(self, base: Any, qt: Any) -> None:
        self._base = base
        self._qt = qt
        self._qApplication = qt.QApplication.instance() or qt.QApplication([])
        self.aboutToQuit: list[Any] = []
        self._modules = _ModuleManager()
        self.restarted = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)

    def processEvents(self) -> None:
        self._qApplication.processEvents()

    def connect(self, signal: str, slot: Any) -> None:
        if signal == "aboutToQuit()":
            self.aboutToQuit.append(slot)
        else:
            self._base.connect(signal, slot)

    def disconnect(self, signal: str, slot: Any) -> None:
        if signal == "aboutToQuit()" and slot in self.aboutToQuit:
            self.aboutToQuit.remove(slot)

    def quit(self) -> None:
        """What closing Slicer tells the modules."""
        for slot in list(self.aboutToQuit):
            slot()

    def topLevelWidgets(self) -> list[Any]:
        return self._qApplication.topLevelWidgets()

    def moduleManager(self) -> Any:
        return self._modules

    def setOverrideCursor(self, cursor: Any) -> None:
        self._qt.QApplication.setOverrideCursor(cursor)

    def restoreOverrideCursor(self) -> None:
        self._qt.QApplication.restoreOverrideCursor()

    def clipboard(self) -> Any:
        return self._qt.QApplication.clipboard()

    def restart(self) -> None:
        self.restarted = True


class _ModuleManager:
    def __init__(self) -> None:
        self.unloadSlots: list[Any] = []

    def connect(self, signal: str, slot: Any) -> None:
        self.unloadSlots.append(slot)

    def disconnect(self, signal: str, slot: Any) -> None:
        self.unloadSlots.remove(slot)


def startHost() -> Any:
    """The ``slicer`` module with scene, application and widgets; the same at each call."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    qt = installQt()
    if "slicer" in sys.modules and isinstance(
        getattr(sys.modules["slicer"], "app", None), Application
    ):
        return sys.modules["slicer"]
    qt.qInstallMessageHandler(_printUnlessExpected)
    qt.QCoreApplication.setOrganizationName("SAMSemiSegTest")
    qt.QCoreApplication.setApplicationName("Host")
    from host.scene import startScene

    slicer = startScene()
    slicer.app = Application(slicer.app, qt)
    from host.ctk import installCtk
    from host.sample_data import installSampleData
    from host.widgets import installWidgets

    installCtk()
    installSampleData()
    installWidgets(slicer)
    if str(MODULE_FOLDER) not in sys.path:
        sys.path.insert(0, str(MODULE_FOLDER))
    return slicer


def _printUnlessExpected(kind: Any, context: Any, message: str) -> None:
    # .ui files connect C++ signals that the stand-ins pass on by themselves.
    expected = ("QObject::connect", "propagateSizeHints")
    if not any(text in message for text in expected):
        print(message, file=sys.stderr)


def openModule(name: str = "SAMSemiSeg") -> Any:
    """Load the module as Slicer does, build its panel, and enter it.

    Returns:
        The module's widget.
    """
    import slicer

    qt = sys.modules["qt"]
    path = MODULE_FOLDER / f"{name}.py"
    setattr(slicer.modules, name.lower(), types.SimpleNamespace(path=str(path)))
    parent = types.SimpleNamespace(path=str(path), icon=None)
    code = importlib.import_module(name)
    getattr(code, name)(parent)
    for slot in slicer.app.startupCompleted:
        slot()
    panel = slicer.qMRMLWidget()
    panel.setLayout(qt.QVBoxLayout())
    panel.setMRMLScene(slicer.mrmlScene)
    widget = getattr(code, f"{name}Widget")(panel)
    widget.setup()
    panel.isEntered = True
    widget.enter()
    return widget


def closeModule(widget: Any) -> None:
    """Leave the module and take its panel down, as a reload does."""
    import slicer

    widget.parent.isEntered = False
    widget.exit()
    for slot in list(slicer.app.moduleManager().unloadSlots):
        slot(widget.moduleName)
    widget.parent.deleteLater()
    slicer.app.processEvents()
    # Without a running event loop Qt would keep the panel for ever, observers and all.
    qt = sys.modules["qt"]
    qt.QCoreApplication.sendPostedEvents(None, qt.QEvent.DeferredDelete.value)


def isAlive(widget: Any) -> bool:
    """Whether Qt still has the widget."""
    from shiboken6 import isValid

    return bool(isValid(widget))
