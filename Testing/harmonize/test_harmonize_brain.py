"""Where the brain is: masks from a segmentation, HD-BET as a program on the search path, and what is no T1w brain."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from mri_deep_tools import harmonize
from mri_deep_tools.errors import DependencyError, InputError, RequestError
from mri_deep_tools.harmonize.brain import _whole
from mri_deep_tools.harmonize.hd_bet import hd_bet_mask
from mri_deep_tools.harmonize.plausible import judge_contrast, judge_registration
from mri_deep_tools.progress import Progress
from mri_deep_tools.registration import judged
from mri_deep_tools.volume import Volume, read_volume

# A program that takes HD-BET's options and calls the brain whatever is brighter than 1000. It tests how the real one
# would be called and how its answer is read, nothing else.
STAND_IN = """#!{python}
import argparse, sys
sys.path[:0] = {path}
parser = argparse.ArgumentParser()
parser.add_argument("-i"); parser.add_argument("-o"); parser.add_argument("-device")
if {second}:
    for name in ("--disable_tta", "--save_bet_mask", "--no_bet_image"):
        parser.add_argument(name, action="store_true")
else:
    for name in ("-mode", "-tta", "-pp"):
        parser.add_argument(name)
args = parser.parse_args()
if {fails}:
    sys.exit("no weights here")
from mri_deep_tools.volume import read_volume, write_volume
scan = read_volume(args.i)
mask = scan.with_data((scan.data > 1000).astype("uint8"))
write_volume(mask, args.o.replace(".nii.gz", "_bet.nii.gz" if {second} else "_mask.nii.gz"))
open({log!r}, "w").write(" ".join(sys.argv[1:]))
"""


@pytest.fixture
def hd_bet(tmp_path, monkeypatch):
    """Return a function that puts a stand-in for HD-BET on the search path and returns its log."""

    def install(*, second: bool, fails: bool = False) -> Path:
        program, log = tmp_path / "bin" / "hd-bet", tmp_path / "log.txt"
        program.parent.mkdir(exist_ok=True)
        folders = [str(Path(harmonize.__file__).parents[2])]
        words = {"python": sys.executable, "path": folders, "second": second, "fails": fails, "log": str(log)}
        program.write_text(STAND_IN.format(**words))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent))
        return log

    return install


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script with an interpreter line")
@pytest.mark.parametrize(
    ("second", "device", "words"),
    [
        (False, "cpu", "-mode fast -tta 0 -device cpu -pp 0"),
        (False, "cuda:1", "-mode accurate -tta 1 -device 1 -pp 0"),
        (True, "cpu", "-device cpu --disable_tta --save_bet_mask --no_bet_image"),
        (True, "cuda", "-device cuda --save_bet_mask --no_bet_image"),
    ],
)
def test_both_generations_of_hd_bet_are_called_with_their_own_options(hd_bet, second, device, words):
    log = hd_bet(second=second)
    data = np.zeros((8, 9, 10), dtype=np.float32)
    data[2:5, 3:6, 4:8] = 2000
    progress = Progress()
    with progress.stage("brain mask"):
        mask, name = hd_bet_mask(Volume(data, np.diag([-1.0, 1, 1, 1])), device=device, progress=progress)
    np.testing.assert_array_equal(mask, data > 1000)
    assert log.read_text().endswith(words)
    assert name == f"HD-BET {2 if second else 1} (exact version unknown)"  # none is installed in this Python


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script with an interpreter line")
def test_what_hd_bet_says_when_it_fails_is_passed_on(hd_bet, monkeypatch, tmp_path):
    scan = Volume(np.ones((4, 4, 4), dtype=np.float32), np.eye(4))
    hd_bet(second=True, fails=True)
    with pytest.raises(InputError, match="no weights here"):
        hd_bet_mask(scan, device="cpu", progress=Progress())
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(DependencyError, match="no program hd-bet"):
        hd_bet_mask(scan, device="cpu", progress=Progress())


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script with an interpreter line")
def test_a_chain_with_hd_bet_says_so(hd_bet, template, small_weights):
    hd_bet(second=True)
    result = harmonize.harmonize(
        template, weights=small_weights["identity"], hd_bet=True, registered=True, bias_correction=False, device="cpu"
    )
    assert result.stages["brain mask"].startswith("HD-BET 2")
    np.testing.assert_array_equal(result.mask.data > 0, template.data > 1000)
    with pytest.raises(RequestError, match="HD-BET is not needed"):
        harmonize.Harmonizer(weights=small_weights["identity"], hd_bet=True, skull_stripped=True)


def test_the_installed_hd_bet_finds_the_brain(template):
    import shutil

    if shutil.which("hd-bet") is None:
        pytest.skip("HD-BET is not installed")
    mask, name = hd_bet_mask(template, device="cpu", progress=Progress())
    truth = template.data > 0
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9 and "unknown" not in name


# ------------------------------------------------------------------------------------------- a mask from labels


def test_sulci_are_filled_holes_closed_and_islands_left_out():
    axes = np.indices((60, 60, 60)) - 30
    ball = (axes**2).sum(0) < 20**2
    solid = ball.copy()
    solid[28:32, 30:] = False  # a sulcus of 4 mm
    solid[20:23, 28:31, 28:31] = False  # a hole
    solid[2:4, 2:4, 2:4] = True  # an island
    fluid = ((axes**2).sum(0) < 23**2) & ~ball
    mask = _whole(solid, fluid, (1.0, 1.0, 1.0))
    assert mask[20:23, 28:31, 28:31].all() and not mask[2:4, 2:4, 2:4].any()
    assert mask[28:32, 30:46, 30].all()
    assert not (mask & ~ball & ~fluid).any()
    ring = mask & ~ball
    assert ring.sum() > 0 and (np.sqrt((axes**2).sum(0))[ring] < 21.5).all()


def test_white_matter_must_be_brighter_than_cortex():
    labels = np.zeros((4, 4, 4), dtype=np.int32)
    labels[0], labels[1] = 2, 42
    data = np.where(labels == 2, 3.0, 1.0)
    judge_contrast(data, labels, "x", Progress(), unchecked=False)
    with pytest.raises(InputError, match="not brighter than its cortex"):
        judge_contrast(-data, labels, "x", Progress(), unchecked=False)
    progress = Progress()
    judge_contrast(-data, labels, "x", progress, unchecked=True)
    assert "T1w" in progress.warnings[0]


def test_a_brain_of_another_size_is_refused(template):
    """A header with wrong voxel sizes, as some converters write them."""
    for factor, said in ((1.4, "times as long"), (0.6, "times as long"), (1.0, "")):
        scan = Volume(template.data, np.diag([factor, factor, factor, 1.0]) @ template.affine)
        found = judged(scan, template, np.eye(4))
        if said:
            with pytest.raises(InputError, match=said):
                judge_registration(found, "x", Progress(), unchecked=False)
        else:
            assert found.scale == pytest.approx(1, abs=0.01)
            judge_registration(found, "x", Progress(), unchecked=False)


@pytest.mark.slow
def test_the_bundled_model_finds_the_brain_of_a_head(head, tmp_path):
    """On the template with a skull around it, the mask is the template's brain; a T2w-like head is refused."""
    from mri_deep_tools.harmonize.brain import segmented_mask

    scan, truth = read_volume(head["scan"]), read_volume(head["mask"]).data > 0
    mask, result = segmented_mask(scan, device="cpu", threads=None, progress=Progress())
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.93
    assert result.model.startswith("synthseg")
    turned = np.where(truth, 950 - scan.data.astype(np.float32), scan.data)
    with pytest.raises(InputError, match="not brighter"):
        judge_contrast(turned, result.labels.data, "x", Progress(), unchecked=False)
