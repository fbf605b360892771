"""Stand-ins for the CTK widgets that hold numbers: sliders, spin boxes, ranges, coordinates."""

# ruff: noqa: N802, N815 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

import math
from typing import Any

from PySide6 import QtWidgets
from PySide6.QtCore import Qt, Signal

from .standins import Prop, stand_in

_INFINITE = 1e9


@stand_in({"valueChanged(double)": "valueChanged", "valueIsChanging(double)": "valueIsChanging"})
class ctkSliderWidget(QtWidgets.QWidget):  # noqa: N801
    """A slider and a spin box that show one number."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    value = Prop(0.0, float, "_s_value_changed")
    minimum = Prop(0.0, float, "_s_range_changed")
    maximum = Prop(99.0, float, "_s_range_changed")
    singleStep = Prop(1.0, float, "_s_range_changed")
    pageStep = Prop(10.0, float)
    decimals = Prop(2, int, "_s_range_changed")
    suffix = Prop("", str, "_s_range_changed")
    prefix = Prop("", str, "_s_range_changed")
    tracking = Prop(True, bool)
    spinBoxVisible = Prop(True, bool, "_s_range_changed")
    tickInterval = Prop(0.0, float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._s_slider = QtWidgets.QSlider(Qt.Horizontal, self)
        self._s_spin = QtWidgets.QDoubleSpinBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._s_slider)
        layout.addWidget(self._s_spin)
        self._s_range_changed()
        self._s_slider.connect("valueChanged(int)", self._s_slider_moved)
        self._s_spin.connect("valueChanged(double)", lambda value: setattr(self, "value", value))

    def _s_slider_moved(self, position: int) -> None:
        self.value = self.minimum + position * (self.singleStep or 1)

    def _s_range_changed(self) -> None:
        value = self.value
        spin, slider = self._s_spin, self._s_slider
        slider.blockSignals(True)
        spin.blockSignals(True)
        spin.setDecimals(self.decimals)
        spin.setRange(max(self.minimum, -_INFINITE), min(self.maximum, _INFINITE))
        spin.setSingleStep(self.singleStep)
        spin.setSuffix(self.suffix)
        spin.setPrefix(self.prefix)
        spin.setVisible(self.spinBoxVisible)
        slider.setRange(0, self._s_steps(self.maximum))
        slider.blockSignals(False)
        spin.blockSignals(False)
        self.value = min(max(value, self.minimum), self.maximum)
        self._s_show()

    def _s_show(self) -> None:
        for widget, value in ((self._s_spin, self.value), (self._s_slider, self._s_steps(self.value))):
            widget.blockSignals(True)
            widget.setValue(value)
            widget.blockSignals(False)

    def _s_steps(self, value: float) -> int:
        """Return the position of the handle for a value; without bounds there is no such place."""
        steps = (value - self.minimum) / (self.singleStep or 1)
        return round(min(steps, 2**30)) if math.isfinite(self.minimum) else 0

    def _s_value_changed(self) -> None:
        bounded = min(max(self.value, self.minimum), self.maximum)
        if bounded != self.value:
            self.value = bounded
            return
        self._s_show()
        self.valueChanged.emit(self.value)

    def setRange(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def reset(self) -> None:
        self.value = self.minimum


@stand_in()
class ctkDoubleSlider(ctkSliderWidget):  # noqa: N801
    """A slider of real numbers, without the spin box."""

    spinBoxVisible = Prop(False, bool, "_s_range_changed")
    orientation = Prop(Qt.Horizontal)


@stand_in()
class ctkDoubleSpinBox(ctkSliderWidget):  # noqa: N801
    """A spin box of real numbers."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._s_slider.hide()


@stand_in(
    {
        "valuesChanged(double,double)": "valuesChanged",
        "minimumValueChanged(double)": "minimumValueChanged",
        "maximumValueChanged(double)": "maximumValueChanged",
        "rangeChanged(double,double)": "rangeChanged",
    }
)
class ctkRangeWidget(QtWidgets.QWidget):  # noqa: N801
    """Two spin boxes that hold a range of values."""

    valuesChanged = Signal(float, float)
    minimumValueChanged = Signal(float)
    maximumValueChanged = Signal(float)
    rangeChanged = Signal(float, float)
    minimumValue = Prop(0.0, float, "_s_values_changed")
    maximumValue = Prop(99.0, float, "_s_values_changed")
    minimum = Prop(0.0, float, "_s_range_changed")
    maximum = Prop(99.0, float, "_s_range_changed")
    singleStep = Prop(1.0, float, "_s_range_changed")
    decimals = Prop(2, int, "_s_range_changed")
    suffix = Prop("", str, "_s_range_changed")

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._s_low, self._s_high = QtWidgets.QDoubleSpinBox(self), QtWidgets.QDoubleSpinBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._s_low)
        layout.addWidget(self._s_high)
        self._s_range_changed()
        self._s_low.connect("valueChanged(double)", lambda value: setattr(self, "minimumValue", value))
        self._s_high.connect("valueChanged(double)", lambda value: setattr(self, "maximumValue", value))

    def _s_boxes(self) -> tuple[tuple[Any, float], ...]:
        return (self._s_low, self.minimumValue), (self._s_high, self.maximumValue)

    def _s_range_changed(self) -> None:
        for box, value in self._s_boxes():
            box.blockSignals(True)
            box.setDecimals(self.decimals)
            box.setRange(max(self.minimum, -_INFINITE), min(self.maximum, _INFINITE))
            box.setSingleStep(self.singleStep)
            box.setSuffix(self.suffix)
            box.setValue(value)
            box.blockSignals(False)
        self.setValues(
            min(max(self.minimumValue, self.minimum), self.maximum),
            min(max(self.maximumValue, self.minimum), self.maximum),
        )
        self.rangeChanged.emit(self.minimum, self.maximum)

    def _s_values_changed(self) -> None:
        for box, value in self._s_boxes():
            box.blockSignals(True)
            box.setValue(value)
            box.blockSignals(False)
        self.minimumValueChanged.emit(self.minimumValue)
        self.maximumValueChanged.emit(self.maximumValue)
        self.valuesChanged.emit(self.minimumValue, self.maximumValue)

    def setValues(self, low: float, high: float) -> None:
        self.minimumValue, self.maximumValue = low, high

    def setRange(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum


@stand_in()
class ctkDoubleRangeSlider(ctkRangeWidget):  # noqa: N801
    """A slider with two handles."""


@stand_in({"coordinatesChanged(double*)": "coordinatesChanged"})
class ctkCoordinatesWidget(QtWidgets.QWidget):  # noqa: N801
    """Several numbers in a row."""

    coordinatesChanged = Signal(object)
    coordinates = Prop("0,0,0", str, "_s_coordinates_changed")
    dimension = Prop(3, int)
    decimals = Prop(3, int)
    minimum = Prop(-100000.0, float)
    maximum = Prop(100000.0, float)
    singleStep = Prop(1.0, float)
    normalized = Prop(False, bool)

    def _s_coordinates_changed(self) -> None:
        self.coordinatesChanged.emit([float(v) for v in self.coordinates.split(",")])
