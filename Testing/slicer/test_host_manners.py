"""The host refuses what Slicer's Python binding refuses, and writes down what Slicer swallows."""

from __future__ import annotations

import gc

import pytest


def test_properties_are_attributes(host):
    import qt

    button = qt.QPushButton("Go")
    assert button.text == "Go"
    assert button.enabled
    assert button.isEnabled()
    with pytest.raises(TypeError, match="not callable"):
        button.text()
    button.text = 5
    button.enabled = False
    assert (button.text, button.isEnabled()) == ("5", False)
    spin = qt.QSpinBox()
    spin.value = 3.7
    assert spin.value == 3
    assert button.name == button.objectName == ""
    button.name = "goButton"
    assert button.objectName == "goButton"
    with pytest.raises(AttributeError):
        spin.sizeHint = qt.QSize(1, 1)


@pytest.mark.parametrize("make", ["QPushButton", "ctkCollapsibleButton", "qMRMLNodeComboBox"])
def test_unknown_attribute_cannot_be_set(host, make):
    import ctk
    import qt
    import slicer

    cls = next(getattr(m, make) for m in (qt, ctk, slicer) if hasattr(m, make))
    widget = cls()
    with host.findings.expected("unknown attribute set"), pytest.raises(AttributeError):
        widget.colour = "red"
    with pytest.raises(AttributeError):
        _ = widget.colour


def test_python_subclass_may_have_attributes(host):
    import qt

    class Panel(qt.QWidget):
        def __init__(self):
            super().__init__()
            self.colour = "red"

    panel = Panel()
    panel.more = 1
    assert (panel.colour, panel.more) == ("red", 1)


@pytest.mark.parametrize("signature", ["pushed()", "clicked(int)", "clicked", "currentNodeChanged(PyObject)"])
def test_connect_with_unknown_signature(host, signature):
    import qt

    with host.findings.expected("connect failed on QPushButton"):
        assert qt.QPushButton().connect(signature, print) is False


def test_connect_to_a_slot_that_is_not_there(host):
    import qt

    label = qt.QLabel()
    with host.findings.expected("QLabel has no slot go"):
        assert qt.QPushButton().connect("clicked()", label, "go()") is False


def test_slots_get_what_they_take(host):
    import qt

    button, got = qt.QPushButton(), []
    assert button.connect("clicked(bool)", lambda: got.append("none"))
    assert button.connect("clicked(bool)", lambda checked: got.append(checked))
    assert button.clicked.connect(lambda *everything: got.append(everything))
    button.click()
    assert got == ["none", False, (False,)]


def test_disconnect(host):
    import qt

    class Listener:
        count = 0

        def heard(self):
            self.count += 1

    button, listener = qt.QPushButton(), Listener()
    button.connect("clicked(bool)", listener.heard)
    button.clicked.connect(listener.heard)
    button.click()
    assert button.disconnect("clicked(bool)", listener.heard)
    assert button.clicked.disconnect(listener.heard)
    assert button.disconnect("clicked(bool)", listener.heard) is False
    button.click()
    assert listener.count == 2


def fail():
    raise RuntimeError("on purpose")


def test_exception_in_a_slot_is_swallowed_and_found(host):
    import qt

    button = qt.QPushButton()
    button.connect("clicked()", fail)
    with host.findings.expected("exception in slot fail .*RuntimeError: on purpose"):
        button.click()
    line = qt.QLineEdit()
    line.textChanged.connect(fail)
    with host.findings.expected("exception in slot fail of QLineEdit.textChanged"):
        line.text = "x"


def test_exceptions_in_timers_observers_and_threads_are_found(host):
    import threading

    import qt
    import slicer

    with host.findings.expected("exception in timer fail: RuntimeError: on purpose"):
        qt.QTimer.singleShot(0, fail)
        host.pump(0.05)
    tag = slicer.mrmlScene.AddObserver(slicer.mrmlScene.NodeAddedEvent, lambda caller, event: fail())
    with host.findings.expected("RuntimeError: on purpose"):
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode")
    slicer.mrmlScene.RemoveObserver(tag)
    with host.findings.expected("exception in thread .*RuntimeError: on purpose"):
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()


def test_errors_of_vtk_are_found(host):
    import vtk

    with host.findings.expected("VTK error: .*vtkNIFTIImageReader"):
        reader = vtk.vtkNIFTIImageReader()
        reader.SetFileName("/nowhere.nii")
        reader.Update()


def test_check_lists_the_findings(host):
    host.findings.record("something odd")
    with pytest.raises(AssertionError, match="something odd"):
        host.check()
    host.findings.clear()
    host.check()
    with pytest.raises(AssertionError, match="expected a finding"), host.findings.expected("never"):
        pass


def test_enums_compare_with_integers(host):
    import qt

    assert qt.Qt.Checked == 2
    assert qt.QMessageBox.Ok == 0x400
    assert qt.QProcess().state() == qt.QProcess.NotRunning == 0
    assert qt.QProcess().Running == 2
    assert {qt.Qt.Checked: "yes"}[2] == "yes"


def test_dialogs_are_recorded_and_answered(host):
    import qt
    import slicer

    host.dialogs.answer(True, False)
    assert slicer.util.confirmOkCancelDisplay("Install PyTorch?") is True
    assert slicer.util.confirmYesNoDisplay("Really?") is False
    slicer.util.errorDisplay("It failed", detailedText="line 5")
    kinds = [(dialog.kind, dialog.text, dialog.details) for dialog in host.dialogs.shown]
    assert kinds == [
        ("ctkMessageBox", t, d) for t, d in (("Install PyTorch?", ""), ("Really?", ""), ("It failed", "line 5"))
    ]
    host.dialogs.answer("/data/weights")
    assert qt.QFileDialog.getExistingDirectory(None, "Folder of weights", "") == "/data/weights"
    host.dialogs.answer(False)
    assert qt.QFileDialog.getOpenFileName(None, "Open", "") == ""
    assert [dialog.title for dialog in host.dialogs.shown[-2:]] == ["Folder of weights", "Open"]


def test_dialog_button_chosen_by_its_text(host):
    import qt

    box = qt.QMessageBox()
    box.addButton(qt.QMessageBox.Cancel)
    repeat = box.addButton("Repeat on CPU", qt.QMessageBox.ActionRole)
    host.dialogs.answer("Repeat on CPU")
    box.exec_()
    assert box.clickedButton() is repeat


def test_testing_mode_shows_nothing(host):
    import slicer

    host.set_testing(True)
    slicer.util.errorDisplay("It failed")
    assert slicer.util.confirmOkCancelDisplay("Go on?") is False, "as in Slicer 5.8 to 5.13"
    assert host.dialogs.shown == []


def test_settings_are_of_this_test_only(host):
    import qt
    import slicer

    assert slicer.app.settings().value("MRIDeepTools/Device") is None
    slicer.app.settings().setValue("MRIDeepTools/Offline", True)
    assert qt.QSettings().value("MRIDeepTools/Offline") is True
    assert slicer.app.temporaryPath in slicer.util.tempDirectory()


def test_main_window_or_none(host):
    import slicer

    assert slicer.util.mainWindow().statusBar()
    assert set(slicer.app.layoutManager().sliceViewNames()) == {"Red", "Yellow", "Green"}
    host.set_main_window(False)
    assert slicer.util.mainWindow() is None
    assert slicer.app.layoutManager() is None
    slicer.util.setSliceViewerLayers(background=None, fit=True)
    slicer.util.showStatusMessage("nobody sees this")


def test_process_by_strings(host):
    import sys

    import qt

    process, ended = qt.QProcess(), []
    process.connect("finished(int,QProcess::ExitStatus)", lambda code, status: ended.append((code, status == 0)))
    process.connect("errorOccurred(QProcess::ProcessError)", lambda error: ended.append(error == 0))
    process.start(sys.executable, ["-c", "print('äöü')"])
    assert host.wait_until(lambda: ended, 20)
    assert ended == [(0, True)]
    assert process.readAllStandardOutput().data().decode().strip() == "äöü"
    process.start("/no/such/program", [])
    assert host.wait_until(lambda: len(ended) > 1, 20)
    assert ended[1] is True


def test_observer_of_a_node_survives_the_garbage_collector(host):
    import slicer

    heard = []

    def observe():
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
        node.AddObserver("ModifiedEvent", lambda caller, event, holds=[]: (holds.append(node), heard.append(event)))
        return node.GetID()

    node_id = observe()
    gc.collect()
    slicer.mrmlScene.GetNodeByID(node_id).Modified()
    assert heard == ["ModifiedEvent"]


def test_functions_of_util_are_not_on_the_package(host):
    import slicer

    assert not hasattr(slicer, "getNode")
    assert slicer.util.getNode
    assert slicer.vtkMRMLScene
