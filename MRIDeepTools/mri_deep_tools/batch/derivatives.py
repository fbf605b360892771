"""BIDS derivatives: jobs of a data set, names of their results, and what describes the new data set.

A result keeps the entities of its scan and gains ``space-`` (the suffix of the scan whose grid it lies on, as in
``space-T1w``, or ``MNI152``), ``res-`` where it has a grid of its own, and ``desc-``. Sidecars name the scans as
``Sources``; further images of a scan are described by one sidecar per kind at the top, which all of them inherit. What
BIDS has no name for (reports, tables of one scan, transforms) is listed in ``.bidsignore``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from .. import __version__
from ..errors import RequestError
from .bids import IMAGES, BidsFile, Dataset, parse_name
from .jobs import Job
from .plan import Request, Subject, check_jobs, make_job
from .summary import OWN_COLUMNS
from .tasks import command_parser

__all__ = ["BIDS_VERSION", "describe_dataset", "jobs_of_bids", "result_name"]

BIDS_VERSION = "1.10.0"
_IGNORED = (
    ".batch/",
    "batch*",
    "*_report.html",
    "*_report.json",
    "*_errors.json",
    "*_maps.zip",
    "*.csv",
    "*_prediction.json",
    "*.b",
    "*.bval",
    "*.bvec",
    "*_xfm.*",
    "*_dwimap.*",
)
_AGE = "age"
_BEHIND_SPACE = ("recording", "chunk")
"""Entities of a scan that the standard puts behind ``space-``."""

_TEMPLATE = "https://www.bic.mni.mcgill.ca/ServicesAtlases/ICBM152NLin2009"
"""Whose frame ``space-MNI152`` is, where nobody names a template; scans are moved there rigidly."""

_MILLIMETRE = "1 mm isotropic"
_MAPS = ("dwimap", "xfm")
"""Suffixes of images and files that BIDS has no sidecars for."""


def jobs_of_bids(
    dataset: Dataset,
    request: Request,
    *,
    suffixes: Sequence[str] = (),
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    entities: Mapping[str, str] | None = None,
) -> list[Job]:
    """Return one job per scan of a data set that the task can work on.

    Raises
    ------
    RequestError : the output folder is the data set itself, or a suffix is not for this task.
    InputError : no scan is found, or one lacks the files that it needs.

    """
    task = request.task
    if request.folder.resolve() == dataset.root.resolve():
        raise RequestError("OUTPUT_DIR is the data set itself", "choose derivatives/NAME below it, or another folder")
    wrong = [suffix for suffix in suffixes if suffix not in task.bids]
    if wrong:
        raise RequestError(f"{task.name} does not take {wrong[0]}", f"use one of {', '.join(task.bids)}")
    wanted = tuple(suffixes) or task.bids[:1]
    scans = dataset.find(wanted, participants=participants, sessions=sessions, entities=entities)
    jobs = [make_job(request, _subject(dataset, scan, request)) for scan in scans]
    return check_jobs(jobs, [scan.path.name for scan in scans])


def result_name(scan: BidsFile, ending: str, *, space: str = "", resolution: str = "") -> str:
    """Return the path of a result below the derivatives' folder.

    Parameters
    ----------
    scan : what it was made from.
    ending : what follows the entities of the scan, with suffix and extension: ``_desc-synthseg_dseg.nii.gz``.
    space, resolution : labels put before ``desc``, unless the ending names a space of its own.

    """
    own = ending.partition("_desc-")[0] if ending.startswith("_space-") else ""
    spatial = own or ("" if "_from-" in ending or not space else f"_space-{space}")
    grid = f"_{resolution}" if spatial and not own and resolution else ""
    entities = [f"{key}-{value}" for key, value in scan.entities.items() if key not in _BEHIND_SPACE]
    behind = "".join(f"_{key}-{scan[key]}" for key in _BEHIND_SPACE if scan[key])
    folder = PurePosixPath(entities[0])
    if scan["ses"]:
        folder /= f"ses-{scan['ses']}"
    name = f"{'_'.join(entities)}{spatial}{behind}{grid}{ending.removeprefix(own)}"
    return (folder / scan.path.parent.name / name).as_posix()


def _subject(dataset: Dataset, scan: BidsFile, request: Request) -> Subject:
    task = request.task
    inputs = {task.scan: str(scan.path)}
    if "t1" in task.inputs and (guide := dataset.partner(scan, "T1w")) is not None:
        inputs["t1"] = str(guide.path)
    for name, extension in (("bvecs", ".bvec"), ("bvals", ".bval")):
        if name in task.inputs and (found := dataset.inherited(scan, extension)) is not None:
            inputs[name] = str(found)
    person = dataset.participants.get(scan.subject, {})
    own = _age_words(person, request)
    space, resolution = _grid(scan, request)
    names = {}
    for name in (task.result, *request.extras):
        ending = task.ending_of(name, (*request.options, *own))
        if not PurePosixPath(ending).suffix:
            ending += task.suffix if task.suffix and name == task.result else ".nii.gz"
        if "-" in ending.split(".")[0].rpartition("_")[2]:  # an image of the scan's own kind
            stem, dot, extension = ending.partition(".")
            ending = f"{stem}_{scan.suffix}{dot}{extension}"
        res = "res-1mm" if name == "resampled" else resolution if name not in ("save_mask",) else ""
        names[name] = result_name(scan, ending, space=space if name != "save_mask" else scan.suffix, resolution=res)
    extra: dict[str, Any] = {"sidecar": _sidecar(dataset, scan, inputs, request)}
    if (stripped := _stripped(request)) is not None:
        extra["sidecar"]["SkullStripped"] = stripped
    extra["columns"] = {"participant": scan.subject, "session": scan["ses"], **_person(person)}
    return Subject(inputs, names, tuple(own), scan.path.name, extra, _job_name(scan))


def _job_name(scan: BidsFile) -> str:
    return f"{scan.stem}_{scan.suffix}"[:120]


def _person(row: Mapping[str, str]) -> dict[str, str]:
    """Return what participants.tsv says of a person; a name that the summary uses itself (``model``) is prefixed."""
    return {
        f"participant_{name}" if name in OWN_COLUMNS else name: value
        for name, value in row.items()
        if name != "participant_id" and value.lower() != "n/a"
    }


def _age_words(person: Mapping[str, str], request: Request) -> list[str]:
    """Return ``--age`` from participants.tsv where the command has that option and the cell is a number."""
    from .plan import table_of_options

    text = person.get(_AGE, "")
    given = any(word.split("=")[0] == "--age" for word in request.options)
    if given or _AGE not in table_of_options(request.task):
        return []
    try:
        return [f"--age={float(text):g}"] if 0 <= float(text) <= 120 else []
    except ValueError:
        return []


def _grid(scan: BidsFile, request: Request) -> tuple[str, str]:
    """Return the labels of ``space`` and ``res`` of the results."""
    words = set(request.options)
    space = "MNI152" if "--space=template" in words else scan.suffix
    return space, "res-1mm" if "--grid=1mm" in words else request.task.entities


def _stripped(request: Request) -> bool | None:
    """Return whether the images of a task show the brain alone; None where that is the scan's affair."""
    if request.task.name == "upsample-dmri":  # the network predicts inside the mask, spherical harmonics everywhere
        return not {"--method=sh", "--compatible"} & set(request.options)
    return request.task.stripped and "--keep-head" not in request.options


def _reference(request: Request) -> str:
    """Return whose frame ``space-MNI152`` is."""
    return "orig" if any(word.startswith("--template=") for word in request.options) else _TEMPLATE


def _sidecar(dataset: Dataset, scan: BidsFile, inputs: Mapping[str, str], request: Request) -> dict[str, Any]:
    """Return the keys that BIDS wants in the sidecar of a derivative beside those of the program's own record."""
    sources = [dataset.uri(Path(path)) for path in dict.fromkeys(inputs.values())]
    space, resolution = _grid(scan, request)
    reference = _reference(request) if space == "MNI152" else dataset.uri(scan.path)
    added: dict[str, Any] = {"Sources": sources, "SpatialReference": reference}
    if resolution:
        added["Resolution"] = _MILLIMETRE
    return added


def _shared_sidecars(request: Request, jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
    """Return sidecars for the top of the derivatives, by name: one per kind of further image, for all subjects."""
    found: dict[str, dict[str, Any]] = {}
    helps = {action.dest: action.help for action in command_parser(request.task.name)._actions}
    for job in jobs:
        for option in request.extras:
            file = parse_name(Path(job.outputs[option]))
            if file is None or file.extension not in IMAGES or file.suffix in _MAPS:
                continue
            template = f"space-{file['space']}_" if file["space"] == "MNI152" else ""
            facts: dict[str, Any] = {
                "SpatialReference": _reference(request) if template else "orig",
                "Description": helps[option],
            }
            if file["res"]:
                facts["Resolution"] = _MILLIMETRE
            if file.suffix == "mask":
                if "--method=sh" in request.options:
                    continue  # spherical harmonics need no mask, and none is written
                facts["Type"] = "Brain"
            elif file.suffix != "probseg":
                facts["SkullStripped"] = bool(_stripped(request))
            found[f"{template}desc-{file['desc']}_{file.suffix}.json"] = facts
    return found


def describe_dataset(dataset: Dataset, request: Request, jobs: Sequence[Job] = ()) -> None:
    """Write what describes the folder of the derivatives: ``dataset_description.json``, README, ``.bidsignore``, and
    the sidecars that further images of ``jobs`` inherit.

    Raises
    ------
    RequestError : the folder holds a data set that is not a derivative.
    OutputError : it cannot be written to.

    """
    from ..provenance import DISCLAIMER, write_sidecar
    from ..volume import atomic_path

    path = request.folder / "dataset_description.json"
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError):
            before = None
        if not isinstance(before, dict) or before.get("DatasetType") != "derivative":
            raise RequestError("OUTPUT_DIR holds a data set that is not a derivative", "choose another folder")
    name = dataset.description.get("Name") or dataset.root.resolve().name
    source: dict[str, Any] = {"URL": _link(dataset.root, request.folder)}
    if dataset.description.get("DatasetDOI"):
        source = {"DOI": dataset.description["DatasetDOI"]}
    made_by = {
        "Name": "mri-deep-tools",
        "Version": __version__,
        "Description": f"mri-deep-tools batch {request.task.name}",
    }
    write_sidecar(
        path,
        {
            "Name": f"{name}: mri-deep-tools {request.task.name}",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [made_by],
            "SourceDatasets": [source],
            "DatasetLinks": {"raw": _link(dataset.root, request.folder)},
        },
    )
    texts = {
        ".bidsignore": "\n".join([*_IGNORED, ""]),
        "README": f"Made by mri-deep-tools {__version__} (batch {request.task.name}).\n{DISCLAIMER}\n",
    }
    for file, text in texts.items():
        with atomic_path(request.folder / file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    for file, facts in _shared_sidecars(request, jobs).items():
        write_sidecar(request.folder / file, facts)


def _link(root: Path, folder: Path) -> str:
    """Return the data set's place as seen from the derivatives: no folder of this machine is told."""
    try:
        return Path(os.path.relpath(root.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return root.resolve().name
