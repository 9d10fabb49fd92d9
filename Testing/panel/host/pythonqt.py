"""PySide6 made to behave as PythonQt does, strictly: what PythonQt refuses is refused here.

PythonQt, the binding inside Slicer, shows every Qt property as a Python attribute: ``button.text``
reads and ``button.text = "x"`` writes, while ``button.text()`` fails, since a string cannot be
called. Custom signals do not exist, a dialog runs by ``exec_()``, and a misspelled attribute
should not pass in silence. Only what differs is changed; all else is Qt itself.
"""

from __future__ import annotations

import ctypes
import sys
import types
from collections.abc import Callable
from typing import Any

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

# Qt asks a Python subclass for these virtual functions by name: they must remain functions.
_VIRTUAL = {"sizeHint", "minimumSizeHint"}
_PYSIDE_ONLY = {"Signal", "Slot", "Property", "ClassInfo", "QEnum", "QFlag", "SIGNAL", "SLOT"}
_GONE_IN_QT6 = {"QRegExp", "QDesktopWidget", "QTextCodec", "QStringListModel_"}

# PySide 6.12 gives back references to None and the like that it never took, as if they were
# immortal, which they are from Python 3.12 on; before, the interpreter dies of it after a while.
if sys.version_info < (3, 12):
    for constant in (None, True, False, "", (), *range(-5, 257)):
        ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 40

_customWidgets: dict[str, Callable[[Any], Any]] = {}


def installQt() -> types.ModuleType:
    """Put a module named ``qt`` into ``sys.modules`` and return it."""
    if "qt" in sys.modules:
        return sys.modules["qt"]
    module = types.ModuleType("qt", __doc__)
    for source in (QtCore, QtGui, QtWidgets):
        for name in getattr(source, "__all__", dir(source)):
            if name.startswith("_") or name in _PYSIDE_ONLY or name in _GONE_IN_QT6:
                continue
            setattr(module, name, getattr(source, name))
    for entry in list(vars(module).values()):
        if isinstance(entry, type) and issubclass(entry, QtCore.QObject):
            _turnGettersIntoProperties(entry)
            entry.__setattr__ = _strictSetattr  # PySide looks on the object's own type only
    QtCore.QObject.name = property(
        lambda self: self.objectName, lambda self, value: self.setObjectName(value)
    )
    QtCore.QObject.className = lambda self: self.metaObject().className()
    QtWidgets.QDialog.exec_ = QtWidgets.QDialog.exec
    QtWidgets.QMenu.exec_ = QtWidgets.QMenu.exec
    module.QUiLoader = _UiLoader
    sys.modules["qt"] = module
    return module


def registerCustomWidget(name: str, factory: Callable[[Any], Any]) -> None:
    """Let .ui files use the class ``name``, made by ``factory(parent)``."""
    _customWidgets[name] = factory


def _turnGettersIntoProperties(cls: type) -> None:
    meta = cls.staticMetaObject
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        name = meta.property(index).name()
        if name in _VIRTUAL:
            continue
        capital = name[0].upper() + name[1:]
        getter = _function(cls, name) or _function(cls, "is" + capital)
        setter = _function(cls, "set" + capital)
        setattr(cls, name, _property(name, getter, setter))


def _function(cls: type, name: str) -> Any:
    function = cls.__dict__.get(name)
    return None if isinstance(function, property) else function


def _property(name: str, getter: Any, setter: Any) -> property:
    def read(self: Any) -> Any:
        return getter(self) if getter is not None else QtCore.QObject.property(self, name)

    def write(self: Any, value: Any) -> None:
        if setter is not None:
            setter(self, value)
        elif not QtCore.QObject.setProperty(self, name, value):
            raise AttributeError(f"the Qt property '{name}' is read-only")

    return property(read, write)


def _strictSetattr(self: Any, name: str, value: Any) -> None:
    descriptor = getattr(type(self), name, None)
    if isinstance(descriptor, QtCore.Property):
        QtCore.QObject.setProperty(self, name, value)
    elif hasattr(type(descriptor), "__set__"):
        descriptor.__set__(self, value)
    elif descriptor is None and type(self).__module__.startswith("PySide6"):
        raise AttributeError(f"{type(self).__name__} has no Qt property named '{name}'")
    else:
        self.__dict__[name] = value


class _UiLoader(QtUiTools.QUiLoader):
    """Builds the stand-ins of Slicer's and CTK's widgets where a .ui file names them."""

    def createWidget(self, className: str, parent: Any = None, name: str = "") -> Any:
        factory = _customWidgets.get(className)
        if factory is None:
            if className.startswith(("ctk", "q")):
                raise RuntimeError(f"no stand-in for the widget class '{className}'")
            return super().createWidget(className, parent, name)
        widget = factory(parent)
        widget.setObjectName(name)
        return widget
