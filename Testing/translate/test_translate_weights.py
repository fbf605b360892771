"""Published files and model folders: what is read, what is refused with which sentence."""

from __future__ import annotations

import argparse
import json
import os
import pickle

import pytest
import torch
from mri_deep_tools.errors import RequestError, WeightsError
from mri_deep_tools.translate.checkpoint import load_generator, read_state, save_generator
from mri_deep_tools.translate.network import NCSNpp, NCSNppSpec
from mri_deep_tools.translate.weights import FACTS_FILE, ModelFacts, load_direction, load_facts, save_model

SPEC = NCSNppSpec(64, width=8, multipliers=(1, 2, 2), blocks=1, attention=(16,), latent=6, embedding=10)
FACTS = ModelFacts(
    ("T1w", "T2w"),
    rule="mean",
    constants={"T1w": 6.8, "T2w": 9.8},
    in_plane_spacing_mm=0.94,
    slice_axis="axial",
    licence="MIT",
)


@pytest.fixture(scope="module")
def network(awake):
    torch.manual_seed(0)
    return awake(NCSNpp(SPEC))


@pytest.fixture
def folder(tmp_path, network):
    """Return a folder as the published program leaves it, with model.json."""
    for number, epoch in ((1, 0), (1, 50), (1, 100), (2, 50)):
        published(network.state_dict(), tmp_path / f"gen_diffusive_{number}_{epoch}.pth")
    (tmp_path / FACTS_FILE).write_text(json.dumps({"contrasts": ["T1w", "T2w"], "steps": 2, "later": "ignored"}))
    return tmp_path


def published(state, path, prefix="module."):
    torch.save({prefix + name: value for name, value in state.items()}, path)
    return path


def same(first, second):
    states = first.state_dict(), second.state_dict()
    return list(states[0]) == list(states[1]) and all(torch.equal(states[0][key], states[1][key]) for key in states[0])


# -------------------------------------------------------------------------------------------------------- single files


@pytest.mark.parametrize("prefix", ["", "module.", "module.module.", "module.module.module."])
def test_any_number_of_prefixes(tmp_path, network, prefix):
    loaded = load_generator(published(network.state_dict(), tmp_path / "a.pth", prefix))
    assert same(loaded, network)
    assert loaded.spec == SPEC
    assert not loaded.training


def test_files_of_the_published_programs(golden_weights):
    assert load_generator(golden_weights("gen_diffusive_1_small.pth")).spec.multipliers == (1, 2, 2, 4)
    for name, what in (
        ("gen_non_diffusive_1to2.pth", "one-pass generator"),
        ("disc_diffusive_large.pth", "discriminator"),
        ("disc_diffusive_small.pth", "discriminator"),
        ("disc_non_diffusive_cycle1.pth", "discriminator"),
    ):
        with pytest.raises(WeightsError, match=f"{name} holds an? {what}"):
            load_generator(golden_weights(name))


def test_safetensors_say_their_numbers(tmp_path, network):
    several = NCSNpp(NCSNppSpec(64, width=8, multipliers=(1, 2, 2), blocks=1, attention=(16, 64), dropout=0.1))
    loaded = load_generator(save_generator(several, tmp_path / "a.safetensors"))
    assert loaded.spec == several.spec
    assert same(loaded, several)
    half = load_generator(save_generator(network, tmp_path / "b.safetensors", torch.float16))
    assert half.all_modules[2].weight.dtype == torch.float32
    assert (tmp_path / "b.safetensors").stat().st_size < 0.6 * 4 * sum(p.numel() for p in network.parameters())


def test_stated_image_size_places_attention(tmp_path, network):
    path = published(network.state_dict(), tmp_path / "a.pth")
    loaded = load_generator(path, image_size=128)
    assert loaded.spec.image_size == 128
    assert loaded.spec.attention == (32,)
    x, t, z = torch.rand(1, 2, 16, 24), torch.tensor([1]), torch.randn(1, 6)
    with torch.inference_mode():
        assert torch.equal(loaded(x, t, z), network(x, t, z))


class Trap:
    """What runs a command where it is unpickled without care."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_files_with_code_run_nothing(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "trap.pth"
    torch.save({"a": Trap(marker)}, path)
    with pytest.raises(WeightsError, match=r"trap\.pth holds Python objects .*mkdir"):
        load_generator(path)
    path.write_bytes(pickle.dumps({"a": Trap(marker)}, protocol=2))
    with pytest.raises(WeightsError, match=r"trap\.pth cannot be read"):
        load_generator(path)
    assert not marker.exists()


def test_the_state_of_a_training_is_not_a_generator(tmp_path):
    path = tmp_path / "content.pth"
    torch.save({"args": argparse.Namespace(a=1), "gen_diffusive_1_dict": {}}, path)
    with pytest.raises(WeightsError, match=r"content\.pth holds Python objects"):
        load_generator(path)
    torch.save({"epoch": 3, "gen_diffusive_1_dict": {}}, path)
    with pytest.raises(WeightsError, match="state of a training"):
        load_generator(path)


def test_broken_files(tmp_path, network):
    whole = published(network.state_dict(), tmp_path / "whole.pth").read_bytes()
    cases = {
        "cut.pth": (whole[: len(whole) // 2], "cut short"),
        "empty.pth": (b"", "an empty file"),
        "page.pth": (b"<!doctype html><html>Sign in</html>", "a web page"),
        "pointer.pth": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        "text.pth": (b"hello", "a text file"),
        "cut.safetensors": (b"\x10\0\0\0\0\0\0\0{", "not a complete safetensors file"),
    }
    for name, (content, sentence) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=sentence):
            load_generator(tmp_path / name)
    with pytest.raises(WeightsError, match="does not exist"):
        load_generator(tmp_path / "absent.pth")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("all_modules.4.Conv_0.bias"), "lacks the tensor all_modules.4.Conv_0.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "a tensor too many, extra"),
        (lambda s: s.update({"all_modules.1.bias": torch.zeros(3)}), r"has the shape \(3,\), not \(32,\)"),
        (lambda s: s.update({"all_modules.1.bias": torch.full((32,), torch.nan)}), "not finite"),
        (lambda s: s.update({"all_modules.1.bias": torch.zeros(32, dtype=torch.int64)}), "the type torch.int64"),
        (lambda s: s.update({"z_transform.1.weight": torch.zeros(3)}), "z_transform.1.weight has the shape"),
        (lambda s: s.update(epoch=3), "no dictionary of tensors"),
        (lambda s: s.clear(), "no dictionary of tensors"),
    ],
)
def test_every_name_shape_and_value_is_checked(tmp_path, network, change, sentence):
    state = dict(network.state_dict())
    change(state)
    with pytest.raises(WeightsError, match=sentence):
        load_generator(published(state, tmp_path / "a.pth", "") if state else _saved({}, tmp_path / "a.pth"))


def _saved(content, path):
    torch.save(content, path)
    return path


# ------------------------------------------------------------------------------------------------------- model folders


def test_a_published_folder_with_its_facts(folder, network):
    direction = load_direction(folder, "t2W")
    assert (direction.source, direction.target) == ("T1w", "T2w")
    assert direction.schedule.steps == 2
    assert same(direction.network, network)
    assert direction.info["image_size"] == 64
    assert direction.info["file_epoch"] == 50
    back = load_direction(folder, "T1w")
    assert (back.source, back.target, back.path.name) == ("T2w", "T1w", "gen_diffusive_1_100.pth")
    assert load_direction(folder, "T1w", epoch=50).info["file"] == "gen_diffusive_1_50.pth"
    facts = json.loads((folder / FACTS_FILE).read_text()) | {"epoch": 0}
    (folder / FACTS_FILE).write_text(json.dumps(facts))
    assert load_direction(folder, "T1w").info["file_epoch"] == 0


def test_files_without_an_epoch_have_none_to_choose(tmp_path, network):
    made = save_model(tmp_path / "made", {2: network}, FACTS)
    assert load_direction(made, "T2w").info["file_epoch"] is None
    with pytest.raises(WeightsError, match=r"gen_diffusive_2.safetensors of made has no epoch .* 3 cannot be chosen"):
        load_direction(made, "T2w", epoch=3)
    facts = json.loads((made / FACTS_FILE).read_text()) | {"epoch": 50}
    (made / FACTS_FILE).write_text(json.dumps(facts))
    assert load_direction(made, "T2w").path == load_direction(made, "T2w", epoch=50).path
    with pytest.raises(WeightsError, match="epoch 3 cannot be chosen"):
        load_direction(made, "T2w", epoch=3)


def test_what_a_folder_lacks(folder):
    with pytest.raises(WeightsError, match="no epoch 40 of T2w to T1w; use one of 0, 50, 100"):
        load_direction(folder, "T1w", epoch=40)
    with pytest.raises(RequestError, match=r"FLAIR.*use T1w or T2w"):
        load_direction(folder, "FLAIR")
    (folder / "gen_diffusive_2_50.pth").unlink()
    with pytest.raises(WeightsError, match="cannot translate T1w to T2w: no gen_diffusive_2"):
        load_direction(folder, "T2w")
    (folder / FACTS_FILE).unlink()
    with pytest.raises(WeightsError, match=r"has no model\.json; it holds gen_diffusive_1_0\.pth"):
        load_direction(folder, "T1w")


def test_names_that_are_no_model_folder(tmp_path, folder):
    with pytest.raises(RequestError, match="neither a model folder nor a model's name"):
        load_direction(tmp_path / "absent", "T1w")
    with pytest.raises(RequestError, match="is a file, not a model folder"):
        load_direction(folder / FACTS_FILE, "T1w")
    with pytest.raises(RequestError, match=r"synthseg-2\.0 does not translate"):
        load_direction("synthseg-2.0", "T1w")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read"),
        ("[]", "no contrasts"),
        ('{"contrasts": ["T1w"]}', "name two different ones"),
        ('{"contrasts": ["T1w", "t1W"]}', "name two different ones"),
        ('{"contrasts": ["a", "b"], "steps": 0}', "a diffusion of 0 steps"),
        ('{"contrasts": ["a", "b"], "steps": "x"}', "cannot be read"),
        ('{"contrasts": ["a", "b"], "rule": "z"}', "unknown intensity rule"),
        ('{"contrasts": ["a", "b"], "slice_axis": "top"}', "unknown slice axis"),
        ('{"contrasts": ["a", "b"], "constants": {"a": -1}}', "use positive numbers"),
        ('{"contrasts": ["T1", "T2"], "constants": {"PD": 6.8}}', "a constant of 'PD', which is no contrast"),
        ('{"contrasts": ["a", "b"], "in_plane_spacing_mm": 0}', "use positive numbers"),
    ],
)
def test_facts_that_contradict_themselves(tmp_path, text, sentence):
    (tmp_path / FACTS_FILE).write_text(text)
    with pytest.raises(WeightsError, match=sentence):
        load_facts(tmp_path)


def test_conversion_to_a_model_folder(tmp_path, folder, network):
    made = save_model(tmp_path / "made", {1: folder / "gen_diffusive_1_50.pth", 2: network}, FACTS, epoch=50)
    assert sorted(path.name for path in made.iterdir()) == [
        "gen_diffusive_1_50.safetensors",
        "gen_diffusive_2_50.safetensors",
        FACTS_FILE,
    ]
    direction = load_direction(made, "T1w")
    assert same(direction.network, network)
    assert direction.info["constants"] == {"T1w": 6.8, "T2w": 9.8}
    assert direction.info["slice_axis"] == "axial"
    assert load_facts(made) == ModelFacts(**{**vars(FACTS), "image_size": 64})
    with pytest.raises(RequestError, match="exists already"):
        save_model(made, {1: network}, FACTS, epoch=50)
    save_model(made, {1: network}, FACTS, epoch=50, overwrite=True)
    with pytest.raises(RequestError, match="needs a generator"):
        save_model(tmp_path / "none", {}, FACTS)
    with pytest.raises(WeightsError):
        save_model(tmp_path / "none", {1: made / FACTS_FILE}, FACTS)
    assert not (tmp_path / "none").exists()


def test_safetensors_are_preferred_to_what_they_were_made_of(folder, network):
    save_generator(network, folder / "gen_diffusive_1_100.safetensors")
    assert load_direction(folder, "T1w").path.suffix == ".safetensors"


def test_tensors_are_read_without_their_prefix(tmp_path, network):
    state = read_state(published(network.state_dict(), tmp_path / "a.pth", "module."))
    assert list(state) == list(network.state_dict())
