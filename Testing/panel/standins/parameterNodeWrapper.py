"""Stand-in for ``slicer.parameterNodeWrapper``: typed attributes kept in a parameter node.

Values live in the node as text, nodes as references, under the attribute's name; an attribute that
the node lacks gets its default. Reading a value of the wrong type fails as in Slicer. Widgets that
carry the dynamic property ``SlicerParameterName`` follow the value, and the value follows them.
"""

from __future__ import annotations

import ast
import typing
from dataclasses import dataclass
from typing import Annotated, Any

import ctk
import qt
import slicer
import vtk

__all__ = ["Choice", "Maximum", "Minimum", "WithinRange", "parameterNodeWrapper"]


class Validator:
    """Checks a value before it is written."""

    def validate(self, value: Any) -> None:
        raise NotImplementedError


@dataclass
class WithinRange(Validator):
    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be in [{self.minimum}, {self.maximum}], is {value}")


@dataclass
class Minimum(Validator):
    minimum: float

    def validate(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must be at least {self.minimum}, is {value}")


@dataclass
class Maximum(Validator):
    maximum: float

    def validate(self, value: Any) -> None:
        if value > self.maximum:
            raise ValueError(f"Value must be at most {self.maximum}, is {value}")


class Choice(Validator):
    def __init__(self, choices: list[Any]) -> None:
        self.choices = choices

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"Value {value} is none of {self.choices}")


class _Parameter:
    """One typed attribute: how it is written to a node and read back."""

    def __init__(self, name: str, annotated: Any, default: Any) -> None:
        self.name = name
        isAnnotated = typing.get_origin(annotated) is Annotated
        parts = typing.get_args(annotated) if isAnnotated else (annotated,)
        self.type, self.validators = parts[0], list(parts[1:])
        self.isNode = isinstance(self.type, type) and issubclass(self.type, slicer.vtkMRMLNode)
        if not self.isNode and self.type not in (int, float, str, bool):
            raise TypeError(f"Unable to create serializer for {self.type} member {name}")
        if default is None and not self.isNode:
            default = self.type()
        self.default = default

    def isIn(self, node: Any) -> bool:
        # A reference that is not there reads as None, which is the default of a node.
        return self.isNode or self.name in node.GetParameterNames()

    def write(self, node: Any, value: Any) -> None:
        if self.isNode:
            if value is not None and not isinstance(value, self.type):
                raise TypeError(f"'{self.name}' takes {self.type.__name__}, not {type(value)}")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            return
        isWholeFloat = self.type is float and type(value) is int
        if not isWholeFloat and not isinstance(value, self.type):
            raise TypeError(f"'{self.name}' takes {self.type.__name__}, not {type(value)}")
        for validator in self.validators:
            validator.validate(value)
        text = value if self.type is str else repr(self.type(value))
        node.SetParameter(self.name, text)

    def read(self, node: Any) -> Any:
        if self.isNode:
            return node.GetNodeReference(self.name)
        if not self.isIn(node):
            self.write(node, self.default)
        text = node.GetParameter(self.name)
        return text if self.type is str else self.type(ast.literal_eval(text))


def parameterNodeWrapper(classtype: type | None = None) -> Any:
    """Class decorator: annotated attributes become properties kept in the parameter node."""
    return _wrap if classtype is None else _wrap(classtype)


def _wrap(cls: type) -> type:
    hints = typing.get_type_hints(cls, include_extras=True)
    parameters = {
        name: _Parameter(name, hint, cls.__dict__.get(name)) for name, hint in hints.items()
    }
    for name, parameter in parameters.items():
        setattr(cls, name, _attribute(parameter))
    cls.allParameters = parameters
    for method in (connectGui, disconnectGui, AddObserver, RemoveObserver, StartModify, EndModify):
        setattr(cls, method.__name__, method)
    cls.Modified = lambda self: self.parameterNode.Modified()
    cls.__init__ = _init
    return cls


def _attribute(parameter: _Parameter) -> property:
    return property(
        lambda self: parameter.read(self.parameterNode),
        lambda self, value: parameter.write(self.parameterNode, value),
    )


def _init(self: Any, parameterNode: Any, prefix: str | None = None) -> None:
    self.parameterNode = parameterNode
    self._connections = {}
    self._updating = False
    for parameter in self.allParameters.values():
        if not parameter.isIn(parameterNode):
            parameter.write(parameterNode, parameter.default)


def AddObserver(self: Any, event: Any, callback: Any, priority: float = 0.0) -> int:
    return self.parameterNode.AddObserver(event, callback, priority)


def RemoveObserver(self: Any, tag: int) -> None:
    self.parameterNode.RemoveObserver(tag)


def StartModify(self: Any) -> Any:
    return self.parameterNode.StartModify()


def EndModify(self: Any, wasModified: Any) -> Any:
    return self.parameterNode.EndModify(wasModified)


def connectGui(self: Any, gui: Any) -> int:
    """Bind every widget that names a parameter; returns a tag for ``disconnectGui``."""
    connectors = {}
    for widget in vars(gui).values():
        name = widget.property("SlicerParameterName")
        if not name:
            continue
        if name not in self.allParameters:
            raise ValueError(f"Cannot find a param with the given name: {name}")
        connectors[name] = _Connector(self.allParameters[name], widget)

    def toGui(caller: Any = None, event: Any = None) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for name, connector in connectors.items():
                connector.write(getattr(self, name))
        finally:
            self._updating = False

    def toNode(name: str) -> Any:
        def changed() -> None:
            if not self._updating:
                setattr(self, name, connectors[name].read())

        return changed

    toGui()
    for name, connector in connectors.items():
        connector.connect(toNode(name))
    tag = self.AddObserver(vtk.vtkCommand.ModifiedEvent, toGui)
    self._connections[tag] = connectors
    return tag


def disconnectGui(self: Any, tag: int) -> None:
    for connector in self._connections.pop(tag, {}).values():
        connector.disconnect()
    self.RemoveObserver(tag)


class _Connector:
    """One widget's way to read, write and report its value, by exact type as in Slicer."""

    def __init__(self, parameter: _Parameter, widget: Any) -> None:
        self.widget = widget
        self._slot: Any = None
        choice = next((v for v in parameter.validators if isinstance(v, Choice)), None)
        bounds = next((v for v in parameter.validators if isinstance(v, WithinRange)), None)
        kinds = {
            (qt.QCheckBox, bool): ("checked", "stateChanged"),
            (qt.QSpinBox, int): ("value", "valueChanged"),
            (qt.QDoubleSpinBox, float): ("value", "valueChanged"),
            (ctk.ctkSliderWidget, float): ("value", "valueChanged"),
            (qt.QLineEdit, str): ("text", "textChanged"),
        }
        self.choices = choice.choices if choice else None
        if type(widget) is slicer.qMRMLNodeComboBox and parameter.isNode:
            self.kind, self.signal = "node", widget.currentNodeChanged
        elif type(widget) is qt.QComboBox and self.choices is not None:
            self.kind, self.signal = "choice", widget.currentIndexChanged
            widget.clear()
            for entry in self.choices:
                widget.addItem(str(entry))
        elif (type(widget), parameter.type) in kinds:
            self.kind, signal = kinds[type(widget), parameter.type]
            self.signal = getattr(widget, signal)
        else:
            raise RuntimeError(
                f"Unable to create GUI connector from datatype '{parameter.type}' to widget type "
                f"'{type(widget)}'."
            )
        if bounds is not None:
            widget.minimum, widget.maximum = bounds.minimum, bounds.maximum

    def read(self) -> Any:
        if self.kind == "node":
            return self.widget.currentNode()
        if self.kind == "choice":
            return self.choices[self.widget.currentIndex]
        return getattr(self.widget, self.kind)

    def write(self, value: Any) -> None:
        if self.kind == "node":
            self.widget.setCurrentNode(value)
        elif self.kind == "choice":
            self.widget.currentIndex = self.choices.index(value)
        elif getattr(self.widget, self.kind) != value:
            setattr(self.widget, self.kind, value)

    def connect(self, changed: Any) -> None:
        self._slot = lambda _value=None: changed()
        self.signal.connect(self._slot)

    def disconnect(self) -> None:
        self.signal.disconnect(self._slot)
