""".ui files and the MRML widgets on the real scene."""

from __future__ import annotations

import pytest

PANEL = """<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0"><class>Panel</class>
 <widget class="qMRMLWidget" name="Panel"><layout class="QVBoxLayout" name="layout1">{items}</layout></widget>
 <customwidgets>
  <customwidget><class>qMRMLWidget</class><extends>QWidget</extends><header>qMRMLWidget.h</header><container>1</container></customwidget>
  {custom}
 </customwidgets>
 <connections>{connections}</connections>
</ui>"""


def load(tmp_path, items, custom="", connections=""):
    import slicer

    path = tmp_path / "panel.ui"
    path.write_text(PANEL.format(items=items, custom=custom, connections=connections))
    return slicer.util.loadUI(str(path))


def item(class_name, name, *properties):
    return f'<item><widget class="{class_name}" name="{name}">{"".join(properties)}</widget></item>'


def declared(*names):
    return "".join(f"<customwidget><class>{n}</class><extends>QWidget</extends></customwidget>" for n in names)


def volumes(*names):
    import numpy as np
    import slicer

    return [slicer.util.addVolumeFromArray(np.zeros((2, 2, 2), np.int16), name=name) for name in names]


def selector(**settings):
    import slicer

    combo = slicer.qMRMLNodeComboBox()
    combo.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    for name, value in settings.items():
        setattr(combo, name, value)
    return combo


def test_properties_of_stand_ins_in_a_ui_file(host, tmp_path):
    import slicer

    panel = load(
        tmp_path,
        item(
            "qMRMLNodeComboBox",
            "selector",
            '<property name="nodeTypes"><stringlist><string>vtkMRMLTableNode</string></stringlist></property>',
            '<property name="noneEnabled"><bool>true</bool></property>',
            '<property name="toolTip"><string>Where the numbers go</string></property>',
            '<property name="SlicerParameterName" stdset="0"><string>table</string></property>',
        )
        + item(
            "ctkPathLineEdit",
            "path",
            '<property name="filters"><set>ctkPathLineEdit::Dirs|ctkPathLineEdit::Readable</set></property>',
        ),
        declared("qMRMLNodeComboBox", "ctkPathLineEdit"),
    )
    ui = slicer.util.childWidgetVariables(panel)
    assert ui.selector.nodeTypes == ["vtkMRMLTableNode"]
    assert ui.selector.noneEnabled is True
    assert ui.selector.toolTip == "Where the numbers go"
    assert ui.selector.property("SlicerParameterName") == "table"
    assert ui.path.filters == 17
    assert panel.selector is ui.selector, "children are found by name, as in PythonQt"
    assert ui.selector.className() == "qMRMLNodeComboBox"


def test_unknown_class_in_a_ui_file(host, tmp_path):
    with host.findings.expected("unknown class in the .ui file: qMRMLMagicWand 'wand'"):
        load(tmp_path, item("qMRMLMagicWand", "wand"), declared("qMRMLMagicWand"))


def test_custom_class_that_is_not_declared(host, tmp_path):
    with host.findings.expected("custom class not declared in <customwidgets>: ctkSearchBox"):
        load(tmp_path, item("ctkSearchBox", "search"))


def test_two_widgets_of_one_name(host, tmp_path):
    with host.findings.expected("two widgets of the .ui file have the name 'twice'"):
        load(tmp_path, item("QLabel", "twice") + item("QLabel", "twice"))


def test_property_that_does_not_exist(host, tmp_path):
    extra = '<property name="sparkle"><bool>true</bool></property>'
    with host.findings.expected("unknown property in the .ui file: sparkle of ctkSearchBox"):
        load(tmp_path, item("ctkSearchBox", "search", extra), declared("ctkSearchBox"))


def test_connection_with_unknown_signal(host, tmp_path):
    wrong = (
        "<connection><sender>Panel</sender><signal>sceneChanged()</signal>"
        "<receiver>selector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection>"
    )
    with host.findings.expected("connect failed on qMRMLWidget 'Panel'"):
        load(tmp_path, item("qMRMLNodeComboBox", "selector"), declared("qMRMLNodeComboBox"), wrong)


def test_selector_without_scene_is_disabled_and_empty(host):
    import slicer

    volumes("T1")
    combo = selector(enabled=True)
    assert not combo.enabled
    assert combo.currentNode() is None
    combo.setMRMLScene(slicer.mrmlScene)
    assert combo.enabled
    combo.enabled = False
    assert not combo.enabled


def test_selector_takes_the_first_node_when_it_gets_the_scene(host):
    import slicer

    first, _ = volumes("T1", "T2")
    combo, with_none = selector(), selector(noneEnabled=True)
    for box in (combo, with_none):
        box.setMRMLScene(slicer.mrmlScene)
    assert combo.currentNode() is first
    assert with_none.currentNode() is None
    assert combo.currentNodeID == first.GetID()


@pytest.mark.parametrize("add_enabled", [True, False])
def test_a_node_added_later_is_taken_only_by_an_empty_list(host, add_enabled):
    import slicer

    combo = selector(addEnabled=add_enabled)
    combo.setMRMLScene(slicer.mrmlScene)
    (volume,) = volumes("T1")
    assert combo.nodeCount() == 1
    assert combo.currentNode() is (None if add_enabled else volume)


def test_signals_of_a_selector(host):
    import slicer

    heard = []
    combo = selector(noneEnabled=True)
    combo.setMRMLScene(slicer.mrmlScene)
    assert combo.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: heard.append(node))
    assert combo.connect("currentNodeChanged(bool)", lambda chosen: heard.append(chosen))
    (volume,) = volumes("T1")
    combo.setCurrentNode(volume)
    combo.setCurrentNode(None)
    assert heard == [volume, True, None, False]


def test_removal_of_the_chosen_node(host):
    import slicer

    first, second = volumes("T1", "T2")
    combo, with_none = selector(), selector(noneEnabled=True)
    for box in (combo, with_none):
        box.setMRMLScene(slicer.mrmlScene)
        box.setCurrentNode(first)
    slicer.mrmlScene.RemoveNode(first)
    assert combo.currentNode() is second
    assert with_none.currentNode() is None
    slicer.mrmlScene.Clear()
    assert combo.currentNode() is None


def test_filters_of_a_selector(host):
    import slicer

    volume, marked = volumes("T1", "marked")
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    marked.SetAttribute("Kind", "x")
    combo = selector()
    combo.setMRMLScene(slicer.mrmlScene)
    assert combo.nodes() == [volume, marked, labels], "a label map is a scalar volume as well"
    combo.showChildNodeTypes = False
    assert combo.nodes() == [volume, marked]
    combo.addAttribute("vtkMRMLScalarVolumeNode", "Kind", "x")
    assert combo.nodes() == [marked]


def test_create_new_entry(host):
    import slicer

    combo = selector(baseName="Result", noneEnabled=True)
    combo.setMRMLScene(slicer.mrmlScene)
    node = combo.addNode()
    assert combo.currentNode() is node
    assert node.GetName() == "Result"


def test_table_and_segments_show_what_is_in_the_nodes(host):
    import numpy as np
    import slicer

    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    slicer.util.updateTableFromArray(table, (np.array([1.5, 2.5]),), ["mm^3"])
    view = slicer.qMRMLTableView()
    view.setMRMLTableNode(table)
    assert (view.model().rowCount(), view.model().columnCount()) == (2, 1)
    assert view.model().index(1, 0).data() == "2.5"

    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.CreateDefaultDisplayNodes()
    segments = slicer.qMRMLSegmentsTableView()
    segments.setSegmentationNode(segmentation)
    segment_id = segmentation.GetSegmentation().AddEmptySegment("left-hippocampus", "Hippocampus", (0.9, 0.8, 0.1))
    assert segments.segmentCount == 1
    assert segments.displayedSegmentIDs() == [segment_id]
    segments.setSelectedSegmentIDs([segment_id])
    assert segments.selectedSegmentIDs() == [segment_id]
    with pytest.raises(ValueError, match="segmentation node"):
        segments.setSegmentationNode(table)


def test_collapsible_button_hides_its_children(host):
    import ctk
    import qt

    button, heard = ctk.ctkCollapsibleButton(), []
    layout = qt.QVBoxLayout(button)
    label = qt.QLabel("inside")
    layout.addWidget(label)
    button.show()
    button.connect("contentsCollapsed(bool)", heard.append)
    button.collapsed = True
    assert not label.isVisible()
    button.collapsed = False
    assert label.isVisible()
    assert heard == [True, False]


def test_slider_keeps_to_its_range(host):
    import ctk

    slider, heard = ctk.ctkSliderWidget(), []
    slider.minimum, slider.maximum, slider.singleStep = 0.5, 2.5, 0.25
    slider.connect("valueChanged(double)", heard.append)
    slider.value = 1.75
    slider.value = 9
    assert slider.value == 2.5
    assert heard == [1.75, 2.5]
    slider.setValue(1)
    assert slider.value == 1.0
