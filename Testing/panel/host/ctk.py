"""Stand-ins for the CTK widgets that the panel uses, with the properties of the real ones."""

from __future__ import annotations

import sys
import types

from host.pythonqt import installQt, registerCustomWidget

qt = installQt()
from PySide6.QtCore import Property, Signal  # noqa: E402 - allowed to stand-ins, not to modules


class ctkCollapsibleButton(qt.QWidget):
    """A header that folds its contents away."""

    contentsCollapsed = Signal(bool)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._text = ""
        self._collapsed = False
        self.setContentsMargins(0, 24, 0, 0)

    def paintEvent(self, event):
        painter = qt.QPainter(self)
        option = qt.QStyleOptionButton()
        option.rect = qt.QRect(0, 0, qt.QWidget.width.fget(self), 22)
        option.state = qt.QStyle.State_Enabled if self.enabled else qt.QStyle.State_None
        qt.QApplication.style().drawControl(qt.QStyle.CE_PushButtonBevel, option, painter)
        arrow = "\u25b8" if self._collapsed else "\u25be"
        painter.drawText(
            option.rect.adjusted(8, 0, 0, 0), qt.Qt.AlignVCenter, f"{arrow}  {self._text}"
        )
        painter.end()

    def mousePressEvent(self, event):
        if event.position().y() < 24:
            self.collapsed = not self._collapsed

    def _setText(self, text):
        self._text = text
        self.update()

    def _setCollapsed(self, collapsed):
        self._collapsed = bool(collapsed)
        for child in self.children():
            if isinstance(child, qt.QWidget):
                child.visible = not self._collapsed
        self.setMaximumHeight(24 if self._collapsed else 16777215)
        self.contentsCollapsed.emit(self._collapsed)
        self.update()

    def childEvent(self, event):
        # The .ui loader sets the property before it adds the contents.
        super().childEvent(event)
        if event.added() and self._collapsed and isinstance(event.child(), qt.QWidget):
            event.child().setVisible(False)

    text = Property(str, lambda self: self._text, _setText)
    collapsed = Property(bool, lambda self: self._collapsed, _setCollapsed)


class ctkSliderWidget(qt.QWidget):
    """A slider with a number field."""

    valueChanged = Signal(float)

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider = qt.QSlider(qt.Qt.Horizontal)
        self._slider.setRange(0, 1000)
        self._box = qt.QDoubleSpinBox()
        layout.addWidget(self._slider)
        layout.addWidget(self._box)
        self._slider.valueChanged.connect(self._fromSlider)
        self._box.valueChanged.connect(self._fromBox)

    def _fromSlider(self, position):
        span = self._box.maximum - self._box.minimum
        self._box.setValue(self._box.minimum + span * position / 1000)

    def _fromBox(self, value):
        span = self._box.maximum - self._box.minimum
        self._slider.blockSignals(True)
        self._slider.setValue(round(1000 * (value - self._box.minimum) / span) if span else 0)
        self._slider.blockSignals(False)
        self.valueChanged.emit(value)

    value = Property(float, lambda self: self._box.value, lambda self, v: self._box.setValue(v))
    minimum = Property(
        float, lambda self: self._box.minimum, lambda self, v: self._box.setMinimum(v)
    )
    maximum = Property(
        float, lambda self: self._box.maximum, lambda self, v: self._box.setMaximum(v)
    )
    decimals = Property(
        int, lambda self: self._box.decimals, lambda self, v: self._box.setDecimals(v)
    )
    singleStep = Property(
        float, lambda self: self._box.singleStep, lambda self, v: self._box.setSingleStep(v)
    )


def installCtk() -> types.ModuleType:
    """Put a module named ``ctk`` into ``sys.modules``."""
    module = types.ModuleType("ctk", __doc__)
    for widget in (ctkCollapsibleButton, ctkSliderWidget):
        setattr(module, widget.__name__, widget)
        registerCustomWidget(widget.__name__, widget)
    for name in (  # named by Slicer's own parameterNodeWrapper, never built here
        "ctkCheckBox",
        "ctkComboBox",
        "ctkCheckablePushButton",
        "ctkColorPickerButton",
        "ctkDirectoryButton",
        "ctkDoubleRangeSlider",
        "ctkDoubleSlider",
        "ctkDoubleSpinBox",
        "ctkPathLineEdit",
        "ctkRangeWidget",
    ):
        setattr(module, name, type(name, (qt.QWidget,), {}))
    sys.modules["ctk"] = module
    return module
