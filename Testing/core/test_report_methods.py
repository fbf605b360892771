"""What a page says was done and cites: exactly what ran, with versions, as sentences, text and BibTeX."""

from __future__ import annotations

import re

import pytest
from mri_deep_tools._registry import registry
from mri_deep_tools.citations import bibtex, find_reference, reference, software_reference
from mri_deep_tools.methods import methods_of, methods_paragraph, references_of

SHA = "ab" * 32


def record(command, **more):
    base = {
        "GeneratedBy": [{"Name": "mri-deep-tools", "Version": "1.2.3", "Command": command}],
        "Models": [{"Name": "iguane", "Source": "https://example.org", "SHA256": SHA, "Citation": []}],
        "Software": {"Python": "3.11.7", "torch": "2.3.0", "SimpleITK": "2.5.0"},
        "Device": {"Name": "cpu", "Precision": "fp32", "Threads": 1},
        "Options": {},
    }
    return base | more


def stages(**more):
    base = {"brain mask": "given", "bias field": "skipped", "registration": "skipped", "intensities": "median 3 to 500"}
    return base | {name.replace("_", " "): value for name, value in more.items()}


def keys(found):
    return {item.key for item in references_of(found)}


@pytest.mark.parametrize(
    ("more", "cited", "words"),
    [
        ({}, set(), "A brain mask was given."),
        ({"bias_field": "N4"}, {"tustison2010n4", "lowekamp2013sitk"}, "corrected with N4 in SimpleITK 2.5.0"),
        ({"brain_mask": "HD-BET 2.0.1"}, {"isensee2019hdbet"}, "extracted with HD-BET 2.0.1"),
        ({"registration": "rigid"}, {"fonov2011icbm", "lowekamp2013sitk"}, "registered rigidly to the ICBM 152"),
        ({"brain_mask": "synthseg-2.0"}, {"billot2023synthseg", "billot2023robust"}, "segmentation with synthseg-2.0"),
        ({"brain_mask": "voxels above 0"}, set(), "skull-stripped before"),
    ],
)
def test_a_step_is_cited_when_it_ran_and_only_then(more, cited, words):
    found = record("harmonize", Stages=stages(**more), Change={}, TissueVolumes=None)
    assert keys(found) == {"roca2025iguane", "mrideeptools"} | cited
    assert words in methods_paragraph(found)
    assert ("N4" in methods_paragraph(found)) == ("bias_field" in more)
    assert ("HD-BET" in methods_paragraph(found)) == (more.get("brain_mask", "").startswith("HD-BET"))


def test_a_template_of_ones_own_is_not_cited_as_the_shipped_one():
    found = record("harmonize", Stages=stages(registration="rigid"), Options={"template": "own.nii.gz"})
    assert "fonov2011icbm" not in keys(found)
    assert "template of our own" in methods_paragraph(found)


def test_prepared_scans_have_no_steps():
    found = record("harmonize", Stages=dict.fromkeys(stages(), "done before"))
    assert keys(found) == {"roca2025iguane", "mrideeptools"}
    assert "prepared before" in methods_paragraph(found)


def test_a_segmentation_cites_its_networks():
    models = [
        {"Name": entry.name, "Source": "x", "SHA256": SHA, "Citation": list(entry.citation)}
        for entry in registry()
        if entry.name in ("synthseg-2.0", "synthseg-parc-2.0")
    ]
    text = methods_paragraph(record("segment", Models=models))
    assert "segmented with the network synthseg-2.0, SHA-256 abababababab" in text
    assert "parcels with the network synthseg-parc-2.0" in text
    assert keys(record("segment", Models=models[:1])) >= {"billot2023synthseg"}


@pytest.mark.parametrize(
    ("more", "cited"),
    [
        ({"Alignment": None, "Honesty": None}, set()),
        ({"Alignment": {"Registered": "given"}, "Honesty": None}, set()),
        ({"Alignment": {"Registered": "rigid, by this program"}}, {"mattes2003", "lowekamp2013sitk"}),
    ],
)
def test_registration_of_a_pair_is_cited_when_it_ran(more, cited):
    assert keys(record("superresolve", **more)) == {"lennartsson_babyai", "mrideeptools"} | cited


def test_diffusion_cites_what_it_used():
    rcnn = record("upsample-dmri", Options={"method": "rcnn", "directions": 6, "shell": 1000}, Mask="otsu", Outputs=[])
    assert keys(rcnn) == {"lyon2022rcnn", "jones1999", "garyfallidis2014dipy", "mrideeptools"}
    plain = record("upsample-dmri", Options={"method": "sh", "sh_order": 4, "shell": 1000}, Mask="given", Models=[])
    assert keys(plain) == {"descoteaux2006sh", "mrideeptools"}
    assert "order 4" in methods_paragraph(plain)
    fitted = plain | {"Outputs": [{"Role": "fa"}]}
    assert keys(fitted) - keys(plain) == {"basser1994dti", "garyfallidis2014dipy"}


def test_versions_and_device_are_told():
    last = methods_of(record("segment"))[-1].text
    libraries = "Python 3.11.7, PyTorch 2.3.0, SimpleITK 2.5.0"
    assert last == f"All steps were run with MRI Deep Tools 1.2.3 on cpu in fp32 ({libraries})."


@pytest.mark.parametrize("model", registry(), ids=lambda model: model.name)
def test_every_citation_of_a_model_is_an_entry_of_its_own(model):
    for text in model.citation:
        found = find_reference(text)
        assert (
            found.key in ("mrideeptools-" + model.name,)
            or "note" in found.fields
            or found.fields.keys() & {"doi", "eprint"}
        )


def test_bibtex_is_well_formed():
    entries = [reference("billot2023synthseg"), reference("tustison2010n4"), software_reference("1.0")]
    text = bibtex([*entries, entries[0]])
    assert text.count("@") == 3  # each once
    assert text.count("{") == text.count("}")
    assert "{SynthSeg}" in text and "{N4ITK}" in text and "doi = {10.1109/TMI.2010.2046908}" in text
    for block in text.split("\n\n"):
        assert re.fullmatch(r"@\w+\{[\w-]+,\n(  \w+ = \{.*\},?\n)+\}", block), block


def test_an_unknown_citation_is_kept_as_it_is():
    found = find_reference("Doe, A method of ours, 2024")
    assert found.text == "Doe, A method of ours, 2024"
    assert "Doe, A method" in found.bibtex
