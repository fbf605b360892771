"""SIGKILL at random moments: no finished subject is lost or done twice, and nothing is ever half there."""

from __future__ import annotations

import json
import random
import time

import nibabel as nib
import pytest
from batch_helpers import batch_process, make_table, records, results


def until(process, folder, count):
    """Wait until a batch has a number of records, or has ended."""
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        if len(records_quick(folder)) >= count:
            return
        time.sleep(0.005)


def records_quick(folder):
    return list((folder / ".batch" / "records").glob("*/*.json"))


def kill_and_resume(folder, subjects, kills, seed):
    """Kill a batch again and again; return how many it had finished each time."""
    chance = random.Random(seed)
    table, out = make_table(folder, subjects), folder / "out"
    told, seen, reached = {}, {}, []
    for number in range(kills + 1):
        process = batch_process("--table", table, out, *(["--resume"] if number else []))
        if number < kills:
            until(process, out, len(told) + chance.randint(1, max(1, 2 * (subjects - len(told)) // (kills + 1))))
            time.sleep(chance.uniform(0, 0.06))
            process.kill()
        error = process.communicate(timeout=180)[1]
        if number == kills:
            assert process.returncode == 0, error
        now = {name: json.dumps(record["outcome"]) for name, record in records(out).items()}
        assert all(now[name] == told[name] for name in told), "a finished subject was done again or lost"
        told, reached = now, [*reached, len(now)]
        for path in out.glob("*.nii.gz"):
            assert nib.load(path).get_fdata().shape == (6, 6, 3, 7)  # whole, as soon as it has its name
        images = results(out)
        assert all(images[name] == seen[name] for name in seen), "a finished image was written again"
        seen = images
    assert set(told) == {f"s{n:03d}_desc-upsampled_dwi" for n in range(subjects)}
    assert len(seen) == subjects
    assert list((out / ".batch" / "staging").iterdir()) == []
    assert not list(out.rglob(".mdt-*"))
    assert sum(1 for line in (out / "batch.csv").read_text().splitlines() if ",done," in line) == subjects
    return reached


def test_a_few_kills(tmp_path):
    reached = kill_and_resume(tmp_path, 24, 2, seed=3)
    assert 0 < reached[0] <= reached[1] < 24  # it was killed on the way


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12])
def test_many_kills_of_a_hundred(tmp_path, seed):
    reached = kill_and_resume(tmp_path, 100, 10, seed)
    assert len(set(reached)) > 5
