"""What a record says was done, as sentences with references: for the report, and to copy into a methods section.

Only what ran is told and cited: N4 when the bias field was corrected, HD-BET when it found the brain, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .citations import Reference, find_reference, reference, software_reference

__all__ = ["Method", "methods_of", "methods_paragraph", "references_of"]

Record = Mapping[str, Any]

_ICBM = "the ICBM 152 template (2009a)"
_PRINTED = ("Python", "torch", "numpy", "scipy", "SimpleITK", "nibabel", "dipy")
_NAMES = {"torch": "PyTorch", "numpy": "NumPy", "scipy": "SciPy", "nibabel": "NiBabel", "dipy": "DIPY"}


@dataclass(frozen=True)
class Method:
    """One thing that was done: a sentence without its full stop, and what to cite for it."""

    sentence: str
    references: tuple[Reference, ...] = ()

    @property
    def text(self) -> str:
        """The sentence with its references in brackets."""
        labels = "; ".join(filter(None, (item.label for item in self.references)))
        return f"{self.sentence} ({labels})." if labels else f"{self.sentence}."


def methods_of(record: Record) -> list[Method]:
    """Return what a record says was done, in order; the last tells program, versions and device."""
    steps = _COMMANDS.get(command_of(record), _other)(record)
    return [*steps, _program(record)]


def methods_paragraph(record: Record) -> str:
    """Return the paragraph for a methods section."""
    return " ".join(method.text for method in methods_of(record))


def references_of(record: Record) -> list[Reference]:
    """Return all references of what was done, each once, in order."""
    return list(dict.fromkeys(item for method in methods_of(record) for item in method.references))


def command_of(record: Record) -> str:
    """Return the command that made a record; empty where it does not say."""
    return str((record.get("GeneratedBy") or [{}])[0].get("Command", ""))


def _program(record: Record) -> Method:
    version = str((record.get("GeneratedBy") or [{}])[0].get("Version", ""))
    software, device = record.get("Software", {}), record.get("Device", {})
    versions = ", ".join(f"{_NAMES.get(name, name)} {software[name]}" for name in _PRINTED if name in software)
    sentence = f"All steps were run with MRI Deep Tools {version}"
    if device:
        sentence += f" on {device.get('Name')} in {device.get('Precision')}"
    return Method(f"{sentence} ({versions})" if versions else sentence, (software_reference(version),))


def _cited(model: Record) -> tuple[Reference, ...]:
    return tuple(find_reference(text) for text in model.get("Citation", ()))


def _registered(name: str) -> tuple[Reference, ...]:
    """Return what the list of models says to cite for a model."""
    from ._registry import registry

    found = [entry for entry in registry() if entry.name == name]
    return tuple(find_reference(text) for text in found[0].citation) if found else ()


def _told(model: Record) -> str:
    own = model.get("Source") == "file given by the user"
    check = f"SHA-256 {model['SHA256'][:12]}" if model.get("SHA256") else ""
    kind = "a network of our own" if own else f"the network {model['Name']}"
    return f"{kind}, {check}" if check else kind


def _task(name: str) -> str:
    from ._registry import registry

    return next((entry.task for entry in registry() if entry.name == name), "")


def _sitk(record: Record) -> str:
    version = record.get("Software", {}).get("SimpleITK")
    return f" in SimpleITK {version}" if version else " in SimpleITK"


# ------------------------------------------------------------------------------------------------------------- tasks


def _segment(record: Record) -> list[Method]:
    made, options = [], record.get("Options", {})
    for model in {item["Name"]: item for item in record.get("Models", ())}.values():
        words = {"parcellate": "The cortex was divided into parcels with", "quality": "Quality was predicted with"}
        sentence = words.get(_task(model["Name"]), "Brain structures were segmented with")
        made.append(Method(f"{sentence} {_told(model)}", _cited(model)))
    if options.get("fast"):
        made.append(Method("Results of the scan and of its mirror image were not averaged (fast mode)"))
    return made


def _prepared(stages: Mapping[str, str], record: Record) -> list[Method]:
    """Return the preparation of a T1w scan: brain, bias field, registration."""
    made: list[Method] = []
    mask, field, way = (stages.get(name, "") for name in ("brain mask", "bias field", "registration"))
    if "done before" in (stages.get("preparation"), mask):
        return [Method("Scans had been prepared before (brain, bias field, template space, intensities)")]
    if mask.startswith("HD-BET"):
        made.append(Method(f"The brain was extracted with {mask}", (reference("isensee2019hdbet"),)))
    elif mask == "given":
        made.append(Method("A brain mask was given"))
    elif mask == "voxels above 0":
        made.append(Method("Scans were skull-stripped before"))
    elif mask:
        made.append(Method(f"The brain mask was taken from a segmentation with {mask}", _registered(mask)))
    sitk = reference("lowekamp2013sitk")
    if field == "N4":
        made.append(Method(f"The bias field was corrected with N4{_sitk(record)}", (reference("tustison2010n4"), sitk)))
    own = bool(record.get("Options", {}).get("template"))
    template = "a template of our own" if own else _ICBM
    atlas = () if own else (reference("fonov2011icbm"),)
    if way == "rigid":
        sentence = f"Brains were registered rigidly to {template} by their correlation{_sitk(record)}"
        made.append(Method(sentence, (*atlas, sitk)))
    elif way == "given":
        made.append(Method(f"Brains were brought to {template} by a transform that was given", atlas))
    elif way == "skipped":
        made.append(Method("Brains lay in template space before"))
    if stages.get("intensities", "").startswith("median"):
        made.append(Method("Intensities were scaled to a brain median of 500"))
    return made


def _harmonize(record: Record) -> list[Method]:
    made = _prepared(record.get("Stages", {}), record)
    for model in record.get("Models", ()):
        cited = tuple(dict.fromkeys((reference("roca2025iguane"), *_cited(model))))
        made.append(Method(f"Intensities were harmonized with {_told(model)}, by the method IGUANe", cited))
    if record.get("TissueVolumes"):
        made.append(Method("Tissue volumes of both were compared by segmentation", (reference("billot2023synthseg"),)))
    if record.get("Change"):
        made.append(Method("The change was measured by structural similarity", (reference("wang2004ssim"),)))
    return made


def _predict(record: Record) -> list[Method]:
    stages: Mapping[str, str] = next((item for item in record.get("Stages", ()) if item), {})
    made = _prepared(stages, record)
    quantity = record.get("Prediction", {}).get("Quantity", "values")
    for index, model in enumerate(record.get("Models", ())):
        if index:
            cited = tuple(dict.fromkeys((reference("roca2025iguane"), *_cited(model))))
            made.append(Method(f"Intensities were harmonized with {_told(model)}, by the method IGUANe", cited))
    made += [Method(f"The {quantity} was computed by {_told(model)}", _cited(model)) for model in record["Models"][:1]]
    return made


def _superresolve(record: Record) -> list[Method]:
    made, found = [], record.get("Alignment")
    if found and found["Registered"] != "given":
        sentence = f"T2w and T1w scans were aligned rigidly by mutual information{_sitk(record)}"
        made.append(Method(sentence, (reference("mattes2003"), reference("lowekamp2013sitk"))))
    guide = " with the T1w scan of the same person" if found else ""
    for model in record.get("Models", ()):
        cited = tuple(dict.fromkeys((*_cited(model), reference("lennartsson_babyai"))))
        made.append(Method(f"T2w scans were brought to 1 mm isotropic voxels{guide} by {_told(model)}", cited))
    if record.get("Honesty"):
        made.append(Method("The result, averaged over the measured slices, was compared with these"))
    return made


def _upsample(record: Record) -> list[Method]:
    options, check = record.get("Options", {}), record.get("LeaveOut") or {}
    dipy, made = reference("garyfallidis2014dipy"), []
    mask = record.get("Mask")
    if mask == "otsu":
        made.append(Method("The brain mask was computed with median Otsu in DIPY", (dipy,)))
    elif mask == "synthseg":
        made.append(Method("The brain mask was taken from a segmentation", (reference("billot2023synthseg"),)))
    if options.get("directions"):
        sentence = f"{options['directions']} directions were spread evenly by electrostatic repulsion"
        made.append(Method(sentence, (reference("jones1999"),)))
    target = (
        f"Diffusion signals in further directions at b = {options.get('shell')} s/mm\N{SUPERSCRIPT TWO} were predicted"
    )
    sh = (reference("descoteaux2006sh"),)
    if options.get("method") == "sh":
        made.append(Method(f"{target} by a fit of spherical harmonics of order {options.get('sh_order')}", sh))
    for model in record.get("Models", ()):
        cited = tuple(dict.fromkeys((reference("lyon2022rcnn"), *_cited(model))))
        made.append(Method(f"{target} by {_told(model)}", cited))
    if options.get("method") != "sh" and "sh" in check.get("Errors", {}):
        made.append(Method("Errors on directions that were left out were compared with spherical harmonics", sh))
    if check.get("TensorsAgainstAllMeasured") or {"fa", "md"} & {
        item.get("Role") for item in record.get("Outputs", ())
    }:
        made.append(Method("Diffusion tensors were fitted with DIPY", (reference("basser1994dti"), dipy)))
    return made


def _translate(record: Record) -> list[Method]:
    return [
        Method(
            f"Contrasts were translated by {_told(model)}",
            tuple(dict.fromkeys((reference("ozbey2023syndiff"), *_cited(model)))),
        )
        for model in record.get("Models", ())
    ]


def _drawn(record: Record) -> list[Method]:
    return [Method("Scans were drawn from label maps by a generative model", (reference("billot2023synthseg"),))]


def _other(record: Record) -> list[Method]:
    models: Sequence[Record] = record.get("Models", ())
    return [Method(f"The command {command_of(record)} ran with {_told(model)}", _cited(model)) for model in models]


_COMMANDS: dict[str, Callable[[Record], list[Method]]] = {
    "segment": _segment,
    "harmonize": _harmonize,
    "predict": _predict,
    "superresolve": _superresolve,
    "upsample-dmri": _upsample,
    "translate": _translate,
    "simulate labels-to-image": _drawn,
}
