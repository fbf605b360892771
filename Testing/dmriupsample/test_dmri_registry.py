"""The published models in the list: their files against the published index files; import of TensorFlow's folders."""

from __future__ import annotations

import hashlib
import json
import re
import shutil

import pytest
from dmri_helpers import unpack
from mri_deep_tools import models
from mri_deep_tools.checkpoints.tf_bundle import read_bundle_index
from mri_deep_tools.cli import main

TASK = "upsample-dmri"
RECORDS = {
    "1d-b1000-q6": 6397440, "1d-b1000-q10": 6397460, "1d-b1000-q30": 6397466, "1d-b2000-q10": 6397470,
    "1d-b3000-q10": 6397476, "3d-b1000-q6": 6397318, "3d-b1000-q10": 6397392, "3d-b1000-q30": 6397405,
    "3d-b2000-q10": 6397413, "3d-b3000-q10": 6397422, "3d-all-q10": 6397221,
}  # fmt: skip


@pytest.fixture
def published(golden, tmp_path):
    return unpack(golden("published_index", "published_index.tar.xz"), tmp_path / "published")


def folder_of(name):
    dims, shell, count = re.fullmatch(r"(\d)d-(\w+)-q(\d+)", name).groups()
    return f"{dims}D_RCNN/{shell}_{count}in"


@pytest.mark.parametrize("name", RECORDS)
def test_published_files_have_their_records_sizes_and_checksums(published, name):
    model = models.get_model(f"dmri-rcnn-{name}")
    index, *shards = model.files
    data = (published / folder_of(name) / "weights.index").read_bytes()
    assert (index.size, index.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    entries = read_bundle_index(published / folder_of(name)).values()
    for number, shard in enumerate(shards):
        assert shard.name == f"weights.data-{number:05d}-of-{len(shards):05d}"
        assert shard.size == max(entry.offset + entry.size for entry in entries if entry.shard == number)
        assert re.fullmatch(r"[0-9a-f]{64}", shard.sha256)
    assert {entry.shard for entry in entries} == set(range(len(shards)))
    for file in model.files:
        assert file.sources[0] == f"https://zenodo.org/records/{RECORDS[name]}/files/{file.name}?download=1"
    needs = model.input_needs
    shell = "all" if needs["shell"] == "all" else f"b{needs['shell']}"
    assert f"{needs['kernel_dims']}d-{shell}-q{needs['directions']}" == name


def test_no_two_models_have_the_same_weights():
    listed = [model for model in models.list_models(TASK) if not model.bundled]
    assert len(listed) == 12
    last = [model.files[-1].sha256 for model in listed if model.files[-1].has_checksum]
    assert len(set(last)) == len(last) == 11


@pytest.fixture
def list_with(tmp_path, monkeypatch):
    """Return a function that lists golden checkpoints in place of the published ones, under their own checksums."""

    def register(**folders):
        entries = []
        for name, folder in folders.items():
            model = models.get_model(name := f"dmri-rcnn-{name.replace('_', '-')}")
            files = [
                {
                    "name": file.name,
                    "size": (path := folder / file.name).stat().st_size,
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                }
                for file in model.files
            ]
            facts = {key: getattr(model, key) for key in ("task", "licence", "description", "bundled")}
            needs = dict(model.input_needs)
            entries.append(
                {"name": name, **facts, "citation": list(model.citation), "input_needs": needs, "files": files}
            )
        (tmp_path / "list.json").write_text(json.dumps({"format": 1, "models": entries}))
        monkeypatch.setenv("MRI_DEEP_TOOLS_REGISTRY", str(tmp_path / "list.json"))
        monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path / "cache"))

    return register


def test_folders_of_equal_file_names_are_told_apart(list_with, weights, capsys):
    list_with(**{"1d_b1000_q6": weights(1, 6), "1d_b1000_q10": weights(1, 10), "1d_b1000_q30": weights(1, 30)})
    assert main(["models", "import", str(weights(1, 10))]) == 0
    told = capsys.readouterr().out
    assert told.count("copied") == 3 and told.count("dmri-rcnn-1d-b1000-q10") == 3
    assert models.model_status("dmri-rcnn-1d-b1000-q10") == "installed"
    assert {models.model_status(f"dmri-rcnn-1d-b1000-q{n}") for n in (6, 30)} == {"absent"}
    path = models.model_path("dmri-rcnn-1d-b1000-q10")
    from mri_deep_tools.dmriupsample.weights import load_network

    assert load_network(path).dims == 1


def test_a_part_that_models_share_goes_to_the_one_that_is_whole(list_with, weights, tmp_path, capsys):
    copies = {}
    for name, count in (("1d_b1000_q10", 10), ("1d_b1000_q30", 30)):
        copies[name] = shutil.copytree(weights(1, count), tmp_path / name)
        (copies[name] / "weights.data-00000-of-00002").write_bytes(b"the same in both")
    list_with(**copies)
    assert main(["models", "import", str(copies["1d_b1000_q30"])]) == 0
    told = capsys.readouterr().out
    assert told.count("dmri-rcnn-1d-b1000-q30") == 3 and "q10" not in told


def test_model_without_checksum_is_imported_by_name_and_checked(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path / "cache"))
    name = "dmri-rcnn-3d-all-norm-q10"
    assert main(["models", "import", str(weights(3, 10))]) == 2  # its names are those of others: it must be named
    assert "holds no file of a known model" in capsys.readouterr().err
    assert main(["models", "import", str(weights(1, 10)), "--model", name]) != 0
    assert "weights.index refused, weights.index belongs to another network" in capsys.readouterr().out
    assert models.model_status(name) == "absent"
    assert main(["models", "import", str(weights(3, 10)), "--model", name]) == 0
    assert "trusted on first use" in capsys.readouterr().out and models.model_status(name) == "installed"
