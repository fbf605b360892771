"""``slicer.app.coreIOManager()``: reading and writing of nodes by the wheel's own storage nodes and logics."""

# ruff: noqa: N802 - the names are those of Qt, CTK and Slicer

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
import vtk

_EXTENSIONS = {
    ".nii.gz": "VolumeFile", ".nii": "VolumeFile", ".nrrd": "VolumeFile", ".nhdr": "VolumeFile", ".mha": "VolumeFile",
    ".mhd": "VolumeFile", ".mgz": "VolumeFile", ".seg.nrrd": "SegmentationFile", ".seq.nrrd": "SequenceFile",
    ".csv": "TableFile", ".tsv": "TableFile", ".vtk": "ModelFile", ".vtp": "ModelFile", ".stl": "ModelFile",
    ".h5": "TransformFile", ".tfm": "TransformFile", ".mat": "TransformFile", ".mrml": "SceneFile", ".mrb": "SceneFile",
    ".txt": "TextFile", ".ctbl": "ColorTableFile", ".json": "MarkupsFile", ".fcsv": "MarkupsFile",
}  # fmt: skip
_WRITERS = {
    "vtkMRMLSegmentationNode": ("Segmentation (.seg.nrrd)", "Segmentation (.nrrd)", "NIfTI (.nii.gz)", "NIfTI (.nii)"),
    "vtkMRMLVolumeNode": ("NRRD (.nrrd)", "NRRD (.nhdr)", "NIfTI (.nii.gz)", "NIfTI (.nii)", "MetaImage (.mha)"),
    "vtkMRMLTableNode": ("Table (.tsv)", "Table (.csv)"),
    "vtkMRMLModelNode": ("Poly Data (.vtk)", "XML Poly Data (.vtp)", "STL (.stl)"),
    "vtkMRMLTransformNode": ("Transform (.h5)", "Transform (.tfm)", "Text (.txt)"),
    "vtkMRMLSequenceNode": ("Volume Sequence (.seq.nrrd)", "MRML Sequence Bundle (.mrb)"),
    "vtkMRMLTextNode": ("Text (.txt)",),
    "vtkMRMLColorNode": ("Color (.ctbl)",),
}
_STORAGE = {
    "TableFile": ("vtkMRMLTableNode", "vtkMRMLTableStorageNode"),
    "SegmentationFile": ("vtkMRMLSegmentationNode", "vtkMRMLSegmentationStorageNode"),
    "ModelFile": ("vtkMRMLModelNode", "vtkMRMLModelStorageNode"),
    "TextFile": ("vtkMRMLTextNode", "vtkMRMLTextStorageNode"),
    "ColorTableFile": ("vtkMRMLColorTableNode", "vtkMRMLColorTableStorageNode"),
    "MarkupsFile": ("vtkMRMLMarkupsFiducialNode", "vtkMRMLMarkupsJsonStorageNode"),
}


class CoreIOManager:
    """Loads, saves and exports; each function answers whether it went well and says why not in *messages*."""

    def fileType(self, filename: Any) -> str:
        """Return the type of a file by its longest known suffix; "NoFile" where it is unknown."""
        name = str(filename).lower()
        known = sorted((e for e in _EXTENSIONS if name.endswith(e)), key=len)
        return _EXTENSIONS[known[-1]] if known else "NoFile"

    def registeredFileReaderCount(self, file_type: str) -> int:
        return 1

    # --- reading ---

    def loadNodes(self, file_type: str, properties: dict, loaded: Any = None, messages: Any = None) -> bool:
        """Read the file ``properties["fileName"]`` into the scene."""
        path = str(properties["fileName"])
        if not Path(path).exists():
            return _fail(messages, f"File does not exist: {path}")
        reader = getattr(self, f"_load_{file_type}", None)
        node = reader(path, properties, messages) if reader else self._load_by_storage(file_type, path, messages)
        if node is None:
            return False
        if file_type != "SceneFile":
            if properties.get("name"):
                node.SetName(slicer.mrmlScene.GenerateUniqueName(properties["name"]))
            if loaded is not None:
                loaded.AddItem(node)
        return True

    def _load_VolumeFile(self, path: str, properties: dict, messages: Any) -> Any:
        flags = ("labelmap", "center", "singleFile", "autoWindowLevel", "discardOrientation")
        defaults = {"autoWindowLevel": True}
        options = sum(1 << bit for bit, flag in enumerate(flags) if properties.get(flag, defaults.get(flag)))
        name = properties.get("name") or _base_name(path)
        node = slicer.modules.volumes.logic().AddArchetypeVolume(path, name, options)
        if node is None:
            _fail(messages, f"Failed to read volume: {path}")
            return None
        if properties.get("show", True):
            _show(node)
        return node

    def _load_SequenceFile(self, path: str, properties: dict, messages: Any) -> Any:
        node = slicer.modules.sequences.logic().AddSequence(path, messages)
        if node is None:
            return None
        browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", node.GetName() + " browser")
        browser.SetAndObserveMasterSequenceNodeID(node.GetID())
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
        proxy = browser.GetProxyNode(node)
        if proxy is not None and proxy.IsA("vtkMRMLVolumeNode") and properties.get("show", True):
            _show(proxy)
        return node

    def _load_TransformFile(self, path: str, properties: dict, messages: Any) -> Any:
        return slicer.modules.transforms.logic().AddTransform(path, slicer.mrmlScene)

    def _load_SceneFile(self, path: str, properties: dict, messages: Any) -> Any:
        scene = slicer.mrmlScene
        clear = bool(properties.get("clear", False))
        if path.lower().endswith(".mrb"):
            done = scene.ReadFromMRB(path, clear)
        else:
            scene.SetURL(path)
            done = scene.Connect() if clear else scene.Import()
        return scene if done else None

    def _load_by_storage(self, file_type: str, path: str, messages: Any) -> Any:
        if file_type not in _STORAGE:
            _fail(messages, f"No reader for {path} ({file_type})")
            return None
        node_class, storage_class = _STORAGE[file_type]
        scene = slicer.mrmlScene
        node = scene.AddNewNodeByClass(node_class, scene.GenerateUniqueName(_base_name(path)))
        storage = scene.AddNewNodeByClass(storage_class)
        storage.SetFileName(path)
        if not storage.ReadData(node):
            _fail(messages, f"Failed to read {path}")
            scene.RemoveNode(storage)
            scene.RemoveNode(node)
            return None
        node.SetAndObserveStorageNodeID(storage.GetID())
        if node.IsA("vtkMRMLDisplayableNode"):
            node.CreateDefaultDisplayNodes()
        return node

    # --- writing ---

    def fileWriterFileType(self, node: Any) -> str:
        kinds = {
            "vtkMRMLSegmentationNode": "SegmentationFile", "vtkMRMLVolumeNode": "VolumeFile",
            "vtkMRMLTableNode": "TableFile", "vtkMRMLModelNode": "ModelFile", "vtkMRMLTransformNode": "TransformFile",
            "vtkMRMLSequenceNode": "SequenceFile", "vtkMRMLTextNode": "TextFile",
        }  # fmt: skip
        return next((kind for name, kind in kinds.items() if node.IsA(name)), "NoFile")

    def fileWriterExtensions(self, node: Any) -> tuple[str, ...]:
        return next((formats for name, formats in _WRITERS.items() if node.IsA(name)), ())

    def extractKnownExtension(self, filename: str, node: Any) -> str:
        """Return the longest suffix of the file name that a writer of the node knows."""
        known = [f[f.index("(") + 1 : -1] for f in self.fileWriterExtensions(node)]
        fitting = sorted((e for e in known if str(filename).lower().endswith(e)), key=len)
        return fitting[-1] if fitting else Path(str(filename)).suffix

    def saveNodes(self, file_type: str, properties: dict, messages: Any = None) -> bool:
        """Write a node by its own storage node, or the scene for the type "SceneFile"."""
        path = str(properties["fileName"])
        if file_type == "SceneFile":
            return self._save_scene(path)
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        if node is None:
            return _fail(messages, f"no node {properties['nodeID']}")
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode(path)
        storage = node.GetStorageNode()
        storage.SetFileName(path)
        if "useCompression" in properties:
            storage.SetUseCompression(int(properties["useCompression"]))
        return bool(storage.WriteData(node))

    def saveScene(self, path: str, image: Any = None) -> bool:
        return self._save_scene(str(path))

    def _save_scene(self, path: str) -> bool:
        scene = slicer.mrmlScene
        if path.lower().endswith(".mrb"):
            return bool(scene.WriteToMRB(path, None))
        if path.lower().endswith(".mrml"):
            scene.SetURL(path)
            return bool(scene.Commit(path))
        Path(path).mkdir(parents=True, exist_ok=True)
        return bool(scene.SaveSceneToSlicerDataBundleDirectory(path, None))

    def exportNodes(
        self, node_ids: list, file_names: list, properties: Any, harden: bool, messages: Any = None
    ) -> bool:
        """Write nodes without touching their storage nodes; *harden* applies the parent transform first."""
        done = True
        for node_id, file_name in zip(node_ids, file_names, strict=True):
            done = self._export(slicer.mrmlScene.GetNodeByID(node_id), str(file_name), properties, harden) and done
        return done

    def _export(self, node: Any, path: str, properties: dict, harden: bool) -> bool:
        scene = slicer.vtkMRMLScene()
        copy = scene.AddNewNodeByClass(node.GetClassName(), node.GetName())
        copy.CopyContent(node)
        if harden and node.IsA("vtkMRMLTransformableNode") and node.GetParentTransformNode() is not None:
            transform = scene.AddNewNodeByClass("vtkMRMLTransformNode")
            to_world = vtk.vtkGeneralTransform()
            node.GetParentTransformNode().GetTransformToWorld(to_world)
            transform.SetAndObserveTransformToParent(to_world)
            copy.SetAndObserveTransformNodeID(transform.GetID())
            copy.HardenTransform()
        storage = copy.CreateDefaultStorageNode()
        storage.UnRegister(None)
        scene.AddNode(storage)
        storage.SetFileName(path)
        if "useCompression" in properties:
            storage.SetUseCompression(int(properties["useCompression"]))
        return bool(storage.WriteData(copy))


def _fail(messages: Any, text: str) -> bool:
    if messages is not None:
        messages.AddMessage(vtk.vtkCommand.ErrorEvent, text)
    return False


def _base_name(path: str) -> str:
    name = Path(path).name
    known = sorted((e for e in _EXTENSIONS if name.lower().endswith(e)), key=len)
    return name[: -len(known[-1])] if known else Path(path).stem


def _show(node: Any) -> None:
    selection = slicer.app.applicationLogic().GetSelectionNode()
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        selection.SetActiveLabelVolumeID(node.GetID())
    else:
        selection.SetActiveVolumeID(node.GetID())
    slicer.app.applicationLogic().PropagateVolumeSelection()
