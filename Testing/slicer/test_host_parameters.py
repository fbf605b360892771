"""The parameter node wrapper: types, defaults, validators, packs and binding to widgets."""

# ruff: noqa: UP007, UP045 - Slicer 5.8 knows Optional and Union only

import enum
import pathlib
from typing import Annotated, Optional, Union

import pytest


class Quality(enum.Enum):
    FAST = 1
    GOOD = 2

    @staticmethod
    def label(member):
        return {"FAST": "Fast", "GOOD": "Good"}[member.name]


@pytest.fixture
def wrapped(host):
    """Return a function that makes a wrapper class of annotations, and an instance on a new node."""
    import slicer
    from slicer.parameterNodeWrapper import parameterNodeWrapper

    def make(annotations, node=None, **defaults):
        cls = parameterNodeWrapper(type("Parameters", (), {"__annotations__": annotations, **defaults}))
        return cls(node or slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))

    return make


def test_implicit_defaults(wrapped):
    import slicer

    kinds = {
        "i": int, "f": float, "s": str, "b": bool, "node": slicer.vtkMRMLTableNode, "items": list[int],
        "maybe": Optional[str], "quality": Quality, "path": pathlib.Path, "table": dict[str, float],
    }  # fmt: skip
    p = wrapped(kinds)
    assert [p.i, p.f, p.s, p.b, p.node, p.maybe, p.quality] == [0, 0.0, "", False, None, None, Quality.FAST]
    assert list(p.items) == []
    assert dict(p.table) == {}
    assert p.path == pathlib.Path()


def test_values_come_back_with_their_type(wrapped):
    import slicer

    kinds = {
        "f": float, "b": bool, "node": slicer.vtkMRMLTableNode, "items": list[list[int]], "pair": tuple[int, str],
        "either": Union[int, str], "quality": Quality, "path": pathlib.Path, "table": dict[str, float],
        "maybe": Optional[slicer.vtkMRMLTableNode],
    }  # fmt: skip
    p = wrapped(kinds)
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    values = {
        "f": 0.1 + 0.2, "b": True, "node": table, "items": [[1], [2, 3]], "pair": (4, "x"), "either": "text",
        "quality": Quality.GOOD, "path": pathlib.Path("/a b/ü"), "table": {"x": 1.5}, "maybe": table,
    }  # fmt: skip
    for name, value in values.items():
        setattr(p, name, value)
    again = type(p)(p.parameterNode)
    for name, value in values.items():
        got = getattr(again, name)
        assert got == value or dict(got) == value
    again.either = 7
    assert p.either == 7
    p.maybe = None
    assert again.maybe is None


def test_containers_write_through(wrapped):
    p = wrapped({"items": list[int], "table": dict[str, int]})
    p.items = [1, 2, 3]
    p.items.append(4)
    del p.items[0]
    p.items += [5]
    p.table["x"] = 1
    assert p.items == [2, 3, 4, 5]
    assert dict(p.table) == {"x": 1}


def test_values_in_the_node_win_over_defaults(wrapped):
    p = wrapped({"threads": int}, threads=4)
    p.threads = 2
    assert wrapped({"threads": int}, p.parameterNode, threads=4).threads == 2


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [(int, 1.5), (int, "1"), (bool, 1), (str, None), (float, "x"), (list[int], [1.5]), (Quality, "FAST")],
)
def test_values_of_another_type_are_refused(wrapped, kind, wrong):
    p = wrapped({"value": kind})
    before = p.value
    with pytest.raises((TypeError, ValueError)):
        p.value = wrong
    assert p.value == before


def test_validators(wrapped):
    from slicer.parameterNodeWrapper import Choice, Default, Exclude, Maximum, Minimum, WithinRange

    p = wrapped(
        {
            "share": Annotated[float, WithinRange(0, 1)],
            "threads": Annotated[int, Minimum(1), Default(2)],
            "most": Annotated[int, Maximum(9)],
            "device": Annotated[str, Choice(["cpu", "cuda"]), Default("cuda")],
            "name": Annotated[str, Exclude(["?"])],
        }
    )
    assert (p.threads, p.device) == (2, "cuda")
    for name, wrong in {"share": 1.1, "threads": 0, "most": 10, "device": "tpu", "name": "?"}.items():
        with pytest.raises(ValueError):
            setattr(p, name, wrong)


def test_a_default_that_breaks_its_own_rule(wrapped):
    from slicer.parameterNodeWrapper import Minimum

    with pytest.raises(ValueError):
        wrapped({"threads": Annotated[int, Minimum(1)]})


def test_types_that_cannot_be_kept_and_reserved_names(wrapped):
    with pytest.raises(TypeError):
        wrapped({"value": object})
    with pytest.raises(ValueError, match="reserved"):
        wrapped({"setValue": int})


def test_packs(wrapped):
    from slicer.parameterNodeWrapper import parameterPack

    @parameterPack
    class Point:
        x: float
        y: float = 2.0

    @parameterPack
    class Box:
        corner: Point
        name: str = "box"

    p = wrapped({"box": Box})
    assert (p.box.corner.x, p.box.corner.y, p.box.name) == (0.0, 2.0, "box")
    p.box.name = "a"
    p.box.corner.x = 5.0
    assert type(p)(p.parameterNode).box.corner.x == 5.0
    assert p.getValue("box.name") == "a"
    p.setValue("box.corner.y", 7.0)
    assert p.box == Box(Point(5.0, 7.0), "a")
    with pytest.raises(ValueError, match="no parameter"):
        p.getValue("box.size")
    with pytest.raises(TypeError):
        Point(z=1)


def test_one_change_is_one_event(wrapped):
    import slicer
    import vtk

    p, events = wrapped({"a": int, "items": list[int]}), []
    p.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: events.append(event))
    p.items = [1, 2, 3]
    assert len(events) == 1
    with slicer.util.NodeModify(p):
        p.a, p.items = 5, [1]
    assert len(events) == 2


def bound(p, **widgets):
    return p.connectParametersToGui(widgets)


@pytest.mark.parametrize(
    ("widget_name", "kind", "attribute", "value"),
    [
        ("QCheckBox", bool, "checked", True),
        ("ctkCheckBox", bool, "checked", True),
        ("QPushButton", bool, "checked", True),
        ("QSpinBox", int, "value", -5),
        ("QDoubleSpinBox", float, "value", 2.5),
        ("ctkDoubleSpinBox", float, "value", -4444.4),
        ("ctkDoubleSlider", float, "value", -4444.4),
        ("QLineEdit", str, "text", "note"),
        ("QTextEdit", str, "plainText", "note"),
        ("ctkPathLineEdit", pathlib.Path, "currentPath", pathlib.Path("/tmp")),
        ("ctkDirectoryButton", pathlib.Path, "directory", pathlib.Path("/tmp")),
    ],
)
def test_both_ways(wrapped, widget_name, kind, attribute, value):
    import ctk
    import qt

    widget = getattr(ctk if widget_name.startswith("ctk") else qt, widget_name)()
    p = wrapped({"value": kind})
    other = p.value
    tag = bound(p, value=widget)
    setattr(widget, attribute, value)
    assert p.value == value
    p.value = other
    shown = getattr(widget, attribute)
    assert shown == other or kind(shown) == other
    p.disconnectGui(tag)
    setattr(widget, attribute, value)
    assert p.value == other


def test_sliders_need_bounds_and_get_them(wrapped):
    import ctk
    import qt
    import slicer
    from slicer.parameterNodeWrapper import Decimals, SingleStep, WithinRange

    p = wrapped(
        {"free": float, "count": int, "share": Annotated[float, WithinRange(0, 1), Decimals(3), SingleStep(0.1)]}
    )
    for name, widget in (
        ("free", ctk.ctkSliderWidget()),
        ("free", slicer.qMRMLSliderWidget()),
        ("count", qt.QSlider()),
    ):
        with pytest.raises(RuntimeError, match="needs WithinRange"):
            bound(p, **{name: widget})
    slider = ctk.ctkSliderWidget()
    bound(p, share=slider)
    assert (slider.minimum, slider.maximum, slider.decimals, slider.singleStep) == (0, 1, 3, 0.1)


def test_combo_boxes_are_refilled(wrapped):
    import qt
    from slicer.parameterNodeWrapper import Choice

    p = wrapped({"device": Annotated[str, Choice(["cpu", "cuda"])], "quality": Quality}, device="cuda")
    device, quality = qt.QComboBox(), qt.QComboBox()
    device.addItem("from the .ui file")
    bound(p, device=device, quality=quality)
    assert [device.itemText(i) for i in range(device.count)] == ["cpu", "cuda"]
    assert (device.currentText, quality.currentText) == ("cuda", "Fast")
    quality.currentIndex = 1
    assert p.quality is Quality.GOOD
    with pytest.raises(RuntimeError, match="Choice"):
        bound(wrapped({"free": str}), free=qt.QComboBox())


def test_exact_class_of_the_widget_counts(wrapped):
    import qt

    class Box(qt.QCheckBox):
        pass

    p = wrapped({"robust": bool})
    for widget in (Box(), qt.QRadioButton(), qt.QPlainTextEdit()):
        with pytest.raises(RuntimeError, match="no connector"):
            bound(p, robust=widget)


def test_node_selectors(wrapped):
    import slicer

    p = wrapped({"table": Optional[slicer.vtkMRMLTableNode]})
    selector = slicer.qMRMLNodeComboBox()
    selector.noneEnabled = True
    selector.setMRMLScene(slicer.mrmlScene)
    bound(p, table=selector)
    assert selector.nodeTypes == ["vtkMRMLTableNode"]
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    selector.setCurrentNode(table)
    assert p.table is table
    slicer.mrmlScene.RemoveNode(table)
    assert p.table is None
    assert selector.currentNode() is None


def test_unknown_parameter_name(wrapped):
    import qt

    with pytest.raises(ValueError, match="no parameter 'typo'"):
        bound(wrapped({"robust": bool}), typo=qt.QCheckBox())


def test_a_widget_that_breaks_a_rule_is_found(host, wrapped):
    import qt
    from slicer.parameterNodeWrapper import Exclude

    p = wrapped({"name": Annotated[str, Exclude(["?"])]})
    line = qt.QLineEdit()
    bound(p, name=line)
    with host.findings.expected("exception in slot .*Exclude"):
        line.text = "?"


def test_float_range(wrapped):
    import ctk
    from slicer.parameterNodeWrapper import Default, FloatRange, RangeBounds

    p = wrapped({"window": Annotated[FloatRange, RangeBounds(0, 100), Default(FloatRange(10, 20))]})
    widget = ctk.ctkRangeWidget()
    bound(p, window=widget)
    assert (widget.minimumValue, widget.maximumValue) == (10, 20)
    widget.maximumValue = 30
    assert p.window == FloatRange(10, 30)
    with pytest.raises(ValueError):
        p.window = FloatRange(10, 200)
    with pytest.raises(ValueError):
        FloatRange(2, 1)
