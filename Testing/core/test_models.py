"""The list of models, what is on this machine, and import, verification and removal."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mri_deep_tools import models
from mri_deep_tools._files import git_blob_of
from mri_deep_tools._registry import REGISTRY_FORMAT
from mri_deep_tools.checkpoints.cache import cached_state, converted_dir, sha256_of
from mri_deep_tools.errors import OutputError, RequestError, WeightsError
from mri_deep_tools.progress import Progress

PUBLISHED = {  # name -> file, bytes, SHA-256; the second and fourth also in the specification
    "synthseg-1.0": ("synthseg_1.0.h5", 53_079_056, "7d2e32d298fe38dc51ea38e6a8e8fc5c665d56b63cddb409e8b199535f8b5298"),
    "synthseg-2.0": ("synthseg_2.0.h5", 53_079_152, "f190bfd742f450ef3ca2c9df9ed4d2e0232b3a74471da5e51b7770bacdf80c3e"),
    "synthseg-robust-2.0": (
        "synthseg_robust_2.0.h5",
        214_606_800,
        "7bc30bf5c3d204f20c4a6cb5a283aedbcab6af1de927cda783f59b67d19cb01c",
    ),
    "synthseg-parc-2.0": (
        "synthseg_parc_2.0.h5",
        53_090_840,
        "83bb1de76fb6f173c6dacacd433f81209fc6abb1dbc179a930ec06ecabbeb684",
    ),
    "synthseg-qc-2.0": (
        "synthseg_qc_2.0.h5",
        49_878_004,
        "fb92e37daa0842bdd8a03bc06a3b36b0d38810e31c714659cedd09119c0abfb7",
    ),
}
PARAMETERS = {  # of the published networks, all float32: the file is a little larger than its values
    "synthseg-1.0": 13_242_824,
    "synthseg-2.0": 13_242_849,
    "synthseg-robust-2.0": 13_242_149 + 27_086_501 + 13_246_089,
    "synthseg-parc-2.0": 13_245_045,
    "synthseg-qc-2.0": 12_450_663,
}
NET = b"\x89HDF\r\n\x1a\n" + np.random.default_rng(3).bytes(5000)
OTHER = NET[:-1] + bytes([NET[-1] ^ 1])


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """Give the test its own cache and no FreeSurfer; return the cache folder."""
    for name in ("FREESURFER_HOME", "MRI_DEEP_TOOLS_OFFLINE", "MRI_DEEP_TOOLS_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def register(clean, tmp_path, monkeypatch):
    """Return a function that adds models {name: [file entries]} to the list."""

    def declare(**entries):
        data = {
            "format": REGISTRY_FORMAT,
            "models": [entry(name.replace("_", "-"), files) for name, files in entries.items()],
        }
        (tmp_path / "registry.json").write_text(json.dumps(data))
        monkeypatch.setenv("MRI_DEEP_TOOLS_REGISTRY", str(tmp_path / "registry.json"))
        return clean / "models"

    return declare


def entry(name, files, **changes):
    return {
        "name": name,
        "task": "segment",
        "description": "for tests",
        "licence": "CC0-1.0",
        "citation": ["none"],
        "input_needs": {"dims": 3},
        "files": files,
    } | changes


def known_file(data=NET, name="net.h5", **changes):
    return {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()} | changes


def put(folder, name="net.h5", data=NET):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return folder


# --- the list itself -------------------------------------------------------------------------------------------------


def test_published_models_are_known_exactly(clean):
    listed = {model.name: model for model in models.list_models()}
    assert set(PUBLISHED) | {"synthseg-lite"} <= set(listed)
    for name, (file_name, size, sha256) in PUBLISHED.items():
        (file,) = listed[name].files
        assert (file.name, file.size, file.sha256) == (file_name, size, sha256)
        assert 0 < size - 4 * PARAMETERS[name] < 500_000
        assert len(file.sources) >= 2 and all(url.startswith("https://") for url in file.sources)
        assert not listed[name].bundled and "Apache-2.0" in listed[name].licence
        assert any("doi:10.10" in text for text in listed[name].citation)


def test_annex_addresses_agree_with_size_and_checksum(clean):
    """A git-annex address holds the key twice, and the key's MD5 gives the folders of a bare repository."""
    seen = 0
    for model in models.list_models():
        for file in model.files:
            addresses = [url for url in file.sources if "/annex/objects/" in url]
            for url in addresses:
                *_, first, second, key, again = url.split("/")
                assert key == again == f"SHA256E-s{file.size}--{file.sha256}.0.h5" and key in file.aliases
            if addresses:
                digest = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
                assert addresses[0].split("/")[-4:-2] == [digest[:3], digest[3:6]]
                assert re.fullmatch(r"[0-9A-Za-z]{2}/[0-9A-Za-z]{2}", f"{first}/{second}")
                seen += 1
    assert seen == 4


def test_every_model_says_what_it_needs(clean):
    for model in models.list_models():
        assert model.task in {
            *("segment", "parcellate", "quality", "harmonize", "superresolve", "upsample-dmri", "translate", "template")
        }
        assert {"contrast", "spacing", "dims"} <= set(model.input_needs) and model.description
        assert model.bundled or model.files[0].can_be_fetched or not model.files[0].sources
    assert [model.name for model in models.list_models("parcellate")] == ["synthseg-parc-2.0"]
    assert models.list_models("cooking") == []
    lite = models.get_model("synthseg-lite")
    assert lite.bundled and [file.name for file in lite.files] == ["model.safetensors", "config.json", "README.md"]


def test_models_do_not_change(clean):
    model = models.get_model("synthseg-2.0")
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.name = "other"
    assert len({model, models.get_model("synthseg-2.0")}) == 1


def test_unknown_names(clean):
    with pytest.raises(RequestError, match=r"no model called synthseg-2; did you mean synthseg-2\.0\?"):
        models.get_model("synthseg-2")
    with pytest.raises(RequestError, match=r"choose one of synthseg-1\.0, "):
        models.get_model("xyz")
    with pytest.raises(RequestError, match=r"has no file called a\.h5; it has synthseg_2\.0\.h5"):
        models.model_path("synthseg-2.0", "a.h5")


def test_package_is_light():
    code = (
        "import sys, mri_deep_tools.models as m; m.list_models();"
        "print(sorted(set(sys.modules) & {'torch', 'h5py', 'numpy', 'scipy', 'safetensors'}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert run.stdout.strip() == "[]"


BAD_ENTRIES = {
    "name": ({"name": "Bad Name"}, "is not a model name"),
    "no licence": ({"licence": ""}, "'licence' must be a text"),
    "no citation": ({"citation": []}, "citation must not be empty"),
    "unknown key": ({"author": "me"}, "unknown key 'author'"),
    "no files": ({"files": []}, "at least one file"),
    "needs": ({"input_needs": {}}, "input_needs"),
    "bundled": ({"bundled": "yes"}, "bundled must be true or false"),
    "folder in a name": ({"files": [known_file(name="../net.h5")]}, "is not a plain file name"),
    "reserved suffix": ({"files": [known_file(name="net.part")]}, "is not a plain file name"),
    "short hash": ({"files": [known_file(sha256="abc")]}, "sha256 must be 64"),
    "negative size": ({"files": [known_file(size=-1)]}, "positive number of bytes"),
    "true size": ({"files": [known_file(size=True)]}, "positive number of bytes"),
    "size unknown": ({"files": [known_file(size=None, sources=["https://a.org/b"])]}, "needs its size"),
    "file key": ({"files": [known_file(md5="x")]}, "unknown key 'md5'"),
    "twice": ({"files": [known_file(), known_file()]}, "no file name twice"),
    "http": ({"files": [known_file(sources=["http://a.org/b"])]}, "plain http is allowed for this machine only"),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_bad_lists_are_refused(tmp_path, case):
    changes, expected = BAD_ENTRIES[case]
    data = {"format": REGISTRY_FORMAT, "models": [entry("net", [known_file()]) | changes]}
    (tmp_path / "mine.json").write_text(json.dumps(data))
    with pytest.raises(RequestError, match=expected) as caught:
        models.load_registry(tmp_path / "mine.json")
    assert caught.value.message.startswith("mine.json is not a usable list of models: ")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2, "models": []}', '{"format": 1}', '{"format": 1, "models": [3]}']
)
def test_files_that_are_no_lists(tmp_path, text):
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(RequestError, match="not a usable list"):
        models.load_registry(tmp_path / "mine.json")


def test_site_list_adds_and_replaces(register, monkeypatch):
    before = len(models.list_models())
    register(synthseg_lab=[known_file()])
    assert len(models.list_models()) == before + 1
    data = {"format": 1, "models": [entry("synthseg-2.0", [known_file(OTHER, "synthseg_2.0.h5")])]}
    path = os.environ["MRI_DEEP_TOOLS_REGISTRY"]
    Path(path).write_text(json.dumps(data))
    os.utime(path, ns=(1, 1))  # another time stamp, whatever the clock's steps
    assert len(models.list_models()) == before
    assert models.get_model("synthseg-2.0").files[0].size == len(OTHER)
    monkeypatch.setenv("MRI_DEEP_TOOLS_REGISTRY", "/nowhere/list.json")
    with pytest.raises(RequestError, match=r"list\.json, named by MRI_DEEP_TOOLS_REGISTRY, cannot be read"):
        models.list_models()


# --- small things ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "unknown size"),
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (53_079_152, "53.1 MB"),
        (214_606_800, "214.6 MB"),
        (999_949, "999.9 kB"),
        (999_951, "1.0 MB"),
        (10**12, "1.0 TB"),
    ],
)
def test_sizes_for_people(size, text):
    assert models.human_size(size) == text


def test_checksums(tmp_path):
    path = tmp_path / "hello"
    path.write_bytes(b"hello\n")
    assert sha256_of(path) == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
    assert git_blob_of(path) == "ce013625030ba8dba906f756967f9e9ca394464a"
    os.utime(path, (1e9, 1e9))  # an old file: its checksum is remembered
    assert sha256_of(path) == sha256_of(str(path))
    path.write_bytes(b"hallo\n")
    assert sha256_of(path) == hashlib.sha256(b"hallo\n").hexdigest()
    with pytest.raises(WeightsError, match="none does not exist"):
        sha256_of(tmp_path / "none")
    with pytest.raises(WeightsError, match="cannot be read"):
        sha256_of(tmp_path)


def test_place_of_the_cache(clean, monkeypatch, tmp_path):
    assert models.cache_dir() == clean
    monkeypatch.delenv("MRI_DEEP_TOOLS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    if sys.platform.startswith("linux"):
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        assert models.cache_dir() == tmp_path / ".cache" / "mri-deep-tools"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the standard says to ignore it
        assert models.cache_dir() == tmp_path / ".cache" / "mri-deep-tools"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert models.cache_dir() == tmp_path / "xdg" / "mri-deep-tools"
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", "~/weights")
    assert models.cache_dir() == tmp_path / "weights"


@pytest.mark.parametrize(("text", "expected"), [("1", True), ("yes", True), ("0", False), ("", False), ("off", False)])
def test_offline_switch(monkeypatch, text, expected):
    monkeypatch.setenv("MRI_DEEP_TOOLS_OFFLINE", text)
    assert models.is_offline() is expected
    assert models.is_offline(True) and not models.is_offline(False)


# --- import ----------------------------------------------------------------------------------------------------------


def test_import_copies_what_it_knows(register, tmp_path):
    kept = register(net_a=[known_file()], net_b=[known_file(OTHER, "other.h5")])
    folder = put(tmp_path / "usb stick")
    (folder / "notes.txt").write_text("x")
    assert models.model_status("net-a") == "absent"
    events = []
    (result,) = models.import_models(folder, progress=Progress(events.append, [("import", 1)]))
    assert (result.model, result.file, result.status, result.size) == ("net-a", "net.h5", "copied", len(NET))
    assert (kept / "net-a" / "net.h5").read_bytes() == NET and not (kept / "net-a" / "net.h5").is_symlink()
    assert models.model_status("net-a") == "installed" and models.model_path("net-a") == kept / "net-a" / "net.h5"
    assert events[-1].fraction == 1
    assert [result.status for result in models.import_models(folder)] == ["present"]
    record = (kept / "net-a" / "net.h5.record.json").read_text()
    assert str(tmp_path) not in record and json.loads(record)["origin"] == "import"


def test_import_from_clone_single_file_and_other_names(register, tmp_path):
    kept = register(net_a=[known_file(aliases=["old name.h5"])])
    clone = tmp_path / "SynthSeg"
    put(clone / "models")
    for source in (clone, clone / "models", clone / "models" / "net.h5", put(tmp_path / "b", "old name.h5")):
        assert [result.status for result in models.import_models(source)] == ["copied"]
        assert models.remove("net-a") > 0
    renamed = put(tmp_path / "downloads", "net (1).h5")  # told by size and checksum
    assert [result.file for result in models.import_models(renamed)] == ["net.h5"]
    assert (kept / "net-a" / "net.h5").read_bytes() == NET
    models.remove("net-a")
    both = put(put(tmp_path / "both", data=OTHER), "good.h5")  # a wrong file under the right name does not hide it
    assert [result.status for result in models.import_models(both)] == ["copied"]


def test_import_by_link(register, tmp_path):
    kept = register(net_a=[known_file()])
    folder = put(tmp_path / "store")
    assert [result.status for result in models.import_models(folder, link=True)] == ["linked"]
    target = kept / "net-a" / "net.h5"
    assert target.is_symlink() and models.model_path("net-a") == target
    assert models.remove("net-a") < 1000 and (folder / "net.h5").exists()  # the link goes, the file stays
    models.import_models(folder, link=True)
    (folder / "net.h5").unlink()
    assert models.model_status("net-a") == "absent"
    with pytest.raises(WeightsError, match="the model net-a is not on this machine"):
        models.model_path("net-a")


def test_import_refuses_what_differs(register, tmp_path):
    kept = register(net_a=[known_file()], net_b=[known_file(OTHER, "other.h5")])
    wrong = put(tmp_path / "wrong", data=OTHER[:-1] + b"?")
    with pytest.raises(WeightsError, match=r"net\.h5 was refused: its SHA-256 is not the published one") as caught:
        models.import_models(wrong)
    assert "--weights FILE" in caught.value.hint
    pointer = put(tmp_path / "pointer", data=b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5008\n")
    with pytest.raises(WeightsError, match="it is a Git LFS pointer"):
        models.import_models(pointer)
    cut = put(tmp_path / "cut", data=NET[:2000])
    with pytest.raises(WeightsError, match=r"it has 2,000 bytes instead of 5,008"):
        models.import_models(cut)
    put(cut, "other.h5", OTHER)
    assert [(r.file, r.status) for r in models.import_models(cut)] == [("net.h5", "refused"), ("other.h5", "copied")]
    assert not (kept / "net-a" / "net.h5").exists()


def test_import_finds_nothing(register, tmp_path):
    register(net_a=[known_file()])
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        WeightsError, match=r"empty holds no file of a known model; it should hold one of synthseg_1\.0"
    ):
        models.import_models(tmp_path / "empty")
    with pytest.raises(WeightsError, match=r"it should hold one of net\.h5\.$"):
        models.import_models(tmp_path / "empty", ["net-a"])
    with pytest.raises(RequestError, match="nowhere does not exist"):
        models.import_models(tmp_path / "nowhere")
    with pytest.raises(RequestError, match="FREESURFER_HOME does not name"):
        models.import_models()
    with pytest.raises(RequestError, match="no model called net-z"):
        models.import_models(tmp_path, ["net-z"])


def test_trust_on_first_use(register, tmp_path):
    kept = register(net_a=[{"name": "net.h5"}])
    folder = put(tmp_path / "store")
    with pytest.raises(WeightsError, match="no checksum of it is published and its structure was not checked"):
        models.import_models(folder)

    def unfit(model, path):
        raise WeightsError(f"{path.name} is not a {model.name}")

    with pytest.raises(WeightsError, match=r"net\.h5 was refused: net\.h5 is not a net-a"):
        models.import_models(folder, check=unfit)
    seen = []
    (result,) = models.import_models(folder, check=lambda model, path: seen.append((model.name, path.name)))
    assert seen == [("net-a", "net.h5")]
    assert result.status == "copied" and "recorded, not published" in result.detail
    (verdict,) = models.verify("net-a")
    assert (verdict.status, verdict.against) == ("ok", "SHA-256 recorded at import (none is published)")
    path = models.model_path("net-a")
    path.write_bytes(OTHER)
    assert models.verify("net-a")[0].status == "damaged"
    with pytest.raises(WeightsError, match="it changed since it was imported"):
        models.model_path("net-a")
    (kept / "net-a" / "net.h5.record.json").write_text("nonsense")
    assert models.verify("net-a")[0].status == "unknown"
    with pytest.raises(WeightsError, match="is not to be trusted: import it again"):
        models.model_path("net-a")


def test_import_into_a_cache_that_cannot_be_written(register, tmp_path, monkeypatch):
    register(net_a=[known_file()])
    folder = put(tmp_path / "store")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError, match=r"net\.h5 cannot be written into the model cache"):
        models.import_models(folder)


def test_golden_files_can_be_imported(register, shared, tmp_path):
    """The narrow golden networks stand for the published ones, under their own checksums."""
    folder = tmp_path / "golden"
    folder.mkdir()
    for name in ("synthseg_2.0.h5", "synthseg_qc_2.0.h5"):
        packed = shared("fixtures", "synthseg", "weights", f"{name}.gz").read_bytes()
        (folder / name).write_bytes(gzip.decompress(packed))
    with pytest.raises(WeightsError, match="bytes instead of 53,079,152"):
        models.import_models(folder)
    register(
        **{
            "synthseg-2.0": [known_file((folder / "synthseg_2.0.h5").read_bytes(), "synthseg_2.0.h5")],
            "synthseg-qc-2.0": [known_file((folder / "synthseg_qc_2.0.h5").read_bytes(), "synthseg_qc_2.0.h5")],
        }
    )
    assert {result.model for result in models.import_models(folder)} == {"synthseg-2.0", "synthseg-qc-2.0"}
    model, file = models.identify(folder / "synthseg_qc_2.0.h5")
    assert (model.name, file.name) == ("synthseg-qc-2.0", "synthseg_qc_2.0.h5")
    assert models.identify(tmp_path / "none") is None


# --- FreeSurfer ------------------------------------------------------------------------------------------------------


def test_freesurfer_files_are_used_where_they_are(register, tmp_path, monkeypatch):
    kept = register(net_a=[known_file()])
    put(tmp_path / "freesurfer" / "models")
    monkeypatch.setenv("FREESURFER_HOME", str(tmp_path / "freesurfer"))
    assert models.model_status("net-a") == "installed"
    assert models.model_path("net-a") == tmp_path / "freesurfer" / "models" / "net.h5"
    assert models.describe("net-a")["files"][0]["where"] == "freesurfer"
    assert [check.where for check in models.verify("net-a")] == ["freesurfer"]
    assert models.remove("net-a") == 0 and models.model_status("net-a") == "installed"
    assert [result.status for result in models.import_models()] == ["copied"]
    assert models.model_path("net-a") == kept / "net-a" / "net.h5"
    (kept / "net-a" / "net.h5").write_bytes(OTHER)  # a damaged copy does not hide a good file
    assert models.model_path("net-a") == tmp_path / "freesurfer" / "models" / "net.h5"


def test_freesurfer_files_of_another_version(register, tmp_path, monkeypatch):
    register(net_a=[known_file()], net_b=[{"name": "open.h5"}])
    put(tmp_path / "models", data=OTHER)
    put(tmp_path / "models", "open.h5")
    monkeypatch.setenv("FREESURFER_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"net\.h5 in FreeSurfer's models folder is not to be trusted: its SHA-256"):
        models.model_path("net-a")
    put(tmp_path / "models", data=NET[:-1])
    with pytest.raises(WeightsError, match="the model net-a is not on this machine"):
        models.model_path("net-a")
    assert models.model_status("net-b") == "absent"  # nothing published to compare with: import decides
    monkeypatch.setenv("FREESURFER_HOME", str(tmp_path / "gone"))
    assert models.model_status("net-a") == "absent"


# --- use, verify, remove, describe -----------------------------------------------------------------------------------


def test_absent_model_says_how_to_get_it(register):
    with pytest.raises(WeightsError) as caught:
        models.model_path("synthseg-2.0")
    assert caught.value.message == "the model synthseg-2.0 is not on this machine"
    assert "'mri-deep-tools models download synthseg-2.0'" in caught.value.hint
    assert "'mri-deep-tools models import FOLDER' with a folder that holds synthseg_2.0.h5" in caught.value.hint
    register(net_a=[known_file()])  # without sources: no word of a download
    with pytest.raises(WeightsError) as caught:
        models.model_path("net-a")
    assert "download" not in caught.value.hint


def test_damage_is_seen_on_use_and_by_verify(register, tmp_path):
    kept = register(net_a=[known_file()])
    models.import_models(put(tmp_path / "store"))
    found = [(check.status, check.against) for check in models.verify() if check.model == "net-a"]
    assert found == [("ok", "published SHA-256")]
    (kept / "net-a" / "net.h5").write_bytes(OTHER)
    with pytest.raises(WeightsError, match=r"net\.h5 in the model cache is not to be trusted: its SHA-256 is not"):
        models.model_path("net-a")
    (kept / "net-a" / "net.h5").write_bytes(NET[:77])
    (check,) = models.verify("net-a")
    assert (check.status, check.detail) == ("damaged", "it has 77 bytes instead of 5,008")
    assert models.model_status("net-a") == "absent"
    models.remove("net-a")
    assert [check.status for check in models.verify("net-a")] == ["absent"]
    assert all(check.model != "net-a" for check in models.verify())


def test_remove_frees_converted_copies_too(register, tmp_path):
    kept = register(net_a=[known_file()])
    models.import_models(put(tmp_path / "store"))
    target = models.model_path("net-a")
    cached_state(target, lambda path: {"w": np.zeros(1000, np.float32)}, kind="test")
    (kept / "net-a" / "net.h5.part").write_bytes(b"123")
    assert len(list(converted_dir().iterdir())) == 1
    assert models.remove("net-a") > len(NET) + 4000
    assert not list(converted_dir().iterdir())
    assert not [path for path in (kept / "net-a").iterdir() if not path.name.endswith(".lock")]
    assert models.remove("net-a") == 0
    with pytest.raises(RequestError, match="synthseg-lite is part of the package"):
        models.remove("synthseg-lite")


def test_description_is_plain_data(clean):
    described = [models.describe(model) for model in models.list_models()]
    assert json.loads(json.dumps(described)) == described
    two = next(entry for entry in described if entry["name"] == "synthseg-2.0")
    assert (two["status"], two["size_text"], two["files"][0]["where"]) == ("absent", "53.1 MB", None)
    assert two["files"][0]["sha256"].startswith("f190bfd7") and two["input_needs"]["dims"] == 3


def test_bundled_model(clean):
    lite = models.get_model("synthseg-lite")
    if models.model_status(lite) == "absent":
        with pytest.raises(WeightsError, match=r"of the bundled model synthseg-lite is missing"):
            models.model_path("synthseg-lite", "README.md")
        pytest.skip("this copy of the package has no bundled weights")
    assert models.model_status(lite) == "bundled"
    assert models.model_path("synthseg-lite").name == "model.safetensors"
    assert [path.name for path in models.download("synthseg-lite", offline=True)] == [file.name for file in lite.files]
    assert {check.where for check in models.verify("synthseg-lite")} == {"package"}
    assert not clean.exists()
