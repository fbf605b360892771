"""Which network harmonizes: the published one by name, one of a folder, the bundled one where there is nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from mri_deep_tools import harmonize
from mri_deep_tools.cli import main
from mri_deep_tools.errors import RequestError, WeightsError
from mri_deep_tools.harmonize.model_choice import HarmonizeOptions, find_weights, template_path
from mri_deep_tools.harmonize.network import Generator, GeneratorSpec
from mri_deep_tools.harmonize.weights import load_generator, save_network
from mri_deep_tools.models import list_models


def entry(name: str, path: Path, **needs: object) -> dict[str, object]:
    """Return the entry of a model in a site's list."""
    file = {"name": path.name, "size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return {
        "name": name,
        "task": "harmonize",
        "description": "a model of this test",
        "bundled": False,
        "licence": "none",
        "citation": ["this test"],
        "input_needs": {"contrast": "T1w", "spacing": "1 mm", "dims": 3, **needs},
        "pages": [],
        "files": [{**file, "sources": [], "aliases": []}],
    }


@pytest.fixture
def site(weights_files, tmp_path, monkeypatch):
    """Return a function that puts models on the site's list and imports those that are to be installed."""
    published = weights_files["generator"]
    lite = save_network(Generator(GeneratorSpec(width=2)), tmp_path / "lite" / "model.safetensors")
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path / "cache"))
    files = {"iguane": published, "iguane-lite": lite}

    def install(*names: str) -> dict[str, Path]:
        models = [entry("iguane", published, age_years=[18, 80]), entry("iguane-lite", lite)]
        (tmp_path / "site.json").write_text(json.dumps({"format": 1, "models": models}))
        monkeypatch.setenv("MRI_DEEP_TOOLS_REGISTRY", str(tmp_path / "site.json"))
        for name in names:
            assert main(["models", "import", str(files[name]), "--model", name, "--quiet"]) == 0
        return files

    return install


def test_a_keras_file_is_imported_and_used_by_name(site, shared, golden):
    site("iguane")
    scan = shared("fixtures", "iguane", "inference_in.nii.gz")
    result = harmonize.harmonize(scan, model="iguane", preprocessed=True, device="cpu", age=85)
    np.testing.assert_allclose(result.image.data, golden("inference_expected.npz")["out"], rtol=0, atol=0.05)
    assert result.model == "iguane"
    assert "18 to 80 years" in result.warnings[0]
    assert harmonize.harmonize(scan, preprocessed=True, device="cpu", age=44).warnings == ()


def test_the_published_model_comes_first_and_the_small_one_says_what_it_is(site):
    site()
    with pytest.raises(WeightsError, match="models import"):
        find_weights(HarmonizeOptions())
    site("iguane-lite")
    choice = find_weights(HarmonizeOptions())
    assert choice.model == "iguane-lite" and "iguane is not installed" in choice.note
    assert find_weights(HarmonizeOptions(model="iguane-lite")).note == ""
    site("iguane")
    assert (find_weights(HarmonizeOptions()).model, find_weights(HarmonizeOptions()).note) == ("iguane", "")


def test_a_folder_of_a_model_and_its_sizes(tmp_path):
    import torch

    torch.manual_seed(0)
    for width, levels in ((2, 2), (6, 3), (12, 4)):
        network = Generator(GeneratorSpec(width=width, levels=levels)).eval()
        save_network(network, tmp_path / f"m{width}" / "model.safetensors")
        choice = find_weights(HarmonizeOptions(weights=tmp_path / f"m{width}"))
        loaded = load_generator(choice.path)
        assert loaded.spec == network.spec
        image = torch.rand(1, 1, 16, 16, 16)
        with torch.no_grad():
            torch.testing.assert_close(loaded(image), network(image))
    with pytest.raises(WeightsError, match="does not exist"):
        find_weights(HarmonizeOptions(weights=tmp_path))


@pytest.mark.skipif(all(m.name != "iguane-lite" for m in list_models("harmonize")), reason="iguane-lite is not bundled")
@pytest.mark.slow
def test_the_bundled_model_changes_a_brain_a_little(template):
    scan = template.with_data(template.data * (500 / np.median(template.data[template.data > 0])))
    result = harmonize.harmonize(scan, model="iguane-lite", preprocessed=True)
    assert result.figures.correlation > 0.8 and np.isfinite(result.image.data).all()


def test_ages_and_templates_that_cannot_be(monkeypatch, tmp_path):
    with pytest.raises(RequestError, match="an age of -3"):
        HarmonizeOptions(age=-3)
    monkeypatch.delenv("FSLDIR", raising=False)
    with pytest.raises(RequestError, match="FSLDIR is not set"):
        template_path("fsl")
    monkeypatch.setenv("FSLDIR", str(tmp_path))
    with pytest.raises(RequestError, match="holds no MNI152"):
        template_path("fsl")
    file = tmp_path / "data" / "standard" / "MNI152_T1_1mm_brain.nii.gz"
    file.parent.mkdir(parents=True)
    file.touch()
    assert template_path("fsl") == file
    assert template_path(None) is None and template_path("own.nii") == Path("own.nii")
