"""HD-BET as the maker of a brain mask: the program ``hd-bet`` of this machine, called as a process of its own.

Isensee et al., Human Brain Mapping 40 (2019), doi:10.1002/hbm.24750. It is not part of this package. Versions 1 and 2
have other options and other networks; which one is there is read off its help text. As the published chain of IGUANe
does, version 1 runs one network without mirroring on a CPU and five with mirroring on a GPU.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import DependencyError, InputError
from ..progress import Progress
from ..volume import Volume, read_volume, write_volume

__all__ = ["hd_bet_mask"]

_INTERVAL_S = 0.2
_USUAL_S = 180.0  # only for the bar
_PATIENCE_S = 120  # for the help text: importing torch takes its time
_VERSION_CODE = "import importlib.metadata as m; print(m.version('hd-bet'))"


def hd_bet_mask(volume: Volume, *, device: str, progress: Progress) -> tuple[np.ndarray, str]:
    """Return HD-BET's brain mask, (X, Y, Z) bool, and what made it, with the version where it can be told.

    Parameters
    ----------
    volume : (X, Y, Z) in the storage order of the MNI templates, which HD-BET expects.
    device : ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    progress : is told that time passes; an exception that it raises ends HD-BET too.

    Raises
    ------
    DependencyError : HD-BET is not installed. InputError : it failed or made no mask.

    """
    program = shutil.which("hd-bet")
    if program is None:
        raise DependencyError(
            "HD-BET is not installed: there is no program hd-bet on the search path",
            "install it with 'pip install hd-bet', give a mask (--mask), or leave --hd-bet out",
        )
    second = "--save_bet_mask" in _help(program)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "scan.nii.gz"), Path(folder, "brain.nii.gz")
        write_volume(volume.with_data(volume.data.astype(np.float32)), source)
        mask = target.with_name("brain_bet.nii.gz" if second else "brain_mask.nii.gz")
        words = _second(device) if second else _first(device)
        _run([program, "-i", str(source), "-o", str(target), *words], progress)
        if not mask.is_file():
            raise InputError("HD-BET ended without a brain mask", "run hd-bet by hand to see why, or use --mask")
        made = read_volume(mask)
    if made.shape3 != volume.shape3:
        raise InputError("HD-BET made a mask of another size than the scan", "use --mask with a mask of your own")
    return made.data > 0, f"HD-BET {_version(program) or ('2' if second else '1') + ' (exact version unknown)'}"


def _first(device: str) -> list[str]:
    if device == "cpu":
        return ["-mode", "fast", "-tta", "0", "-device", "cpu", "-pp", "0"]
    return ["-mode", "accurate", "-tta", "1", "-device", device.partition(":")[2] or "0", "-pp", "0"]


def _second(device: str) -> list[str]:
    faster = ["--disable_tta"] if device == "cpu" else []
    return ["-device", device, *faster, "--save_bet_mask", "--no_bet_image"]


def _help(program: str) -> str:
    try:
        done = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DependencyError("hd-bet cannot be started", "install HD-BET anew, or leave --hd-bet out") from error
    if done.returncode:
        fault = _last_line(done.stderr)
        raise DependencyError(f"hd-bet does not work: {fault}", "install HD-BET anew, or leave --hd-bet out")
    return done.stdout


def _run(words: Sequence[str], progress: Progress) -> None:
    """Run HD-BET to its end; it ends too when this process is told to."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        begin = time.monotonic()
        with subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL) as process:
            try:
                while process.poll() is None:
                    progress.update(min((time.monotonic() - begin) / _USUAL_S, 0.95))
                    time.sleep(_INTERVAL_S)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            said.seek(0)
            fault = f"HD-BET failed: {_last_line(said.read())}"
            raise InputError(fault, "run hd-bet by hand to see why, or give a mask (--mask)")


def _version(program: str) -> str:
    """Return the version, asked of the Python that the program starts with; empty where that cannot be told."""
    try:
        with Path(program).open("rb") as stream:
            first = stream.readline(500).decode("utf-8", "replace").strip()
        python = first.removeprefix("#!").strip()
        if not first.startswith("#!") or "python" not in python:
            return ""
        call = [*python.split(), "-c", _VERSION_CODE]
        done = subprocess.run(call, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if not done.returncode else ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"
