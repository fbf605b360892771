"""`mri-deep-tools report --compare`: what differs in making, numbers and images; what cannot be compared."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mri_deep_tools.cli import main
from mri_deep_tools.progress import EVENT_TOKEN
from mri_deep_tools.provenance import DISCLAIMER, make_record, write_sidecar
from mri_deep_tools.reports.image_differences import compare_images, dice_per_label
from mri_deep_tools.volume import Volume, read_volume, write_volume

pytest.importorskip("matplotlib", reason="needs the report extra")
pytest.importorskip("jinja2", reason="needs the report extra")

AFFINE = np.diag([2.0, 2.0, 2.5, 1.0])  # 10 mm^3 a voxel
SHAPE = (12, 14, 10)


def write(folder, data, *, version="1.0.0", command="segment", options=None, volumes=None, seed=0, affine=AFFINE):
    """Write a result by hand: scan, output and sidecar; return the path of the output."""
    folder.mkdir(parents=True, exist_ok=True)
    scan = write_volume(
        Volume(np.random.default_rng(seed).uniform(1, 9, SHAPE).astype(np.float32), AFFINE), folder / "s.nii"
    )
    labels = command == "segment"
    output = folder / ("x_dseg.nii.gz" if labels else "x_T1w.nii.gz")
    write_volume(Volume(data, affine), output, intent="label" if labels else "none")
    role = "labels" if labels else "image"
    record = make_record(
        command, [scan], options=options or {}, outputs=[output], roles={scan: "scan", output: role},
        geometry={"output": read_volume(output)},
    )  # fmt: skip
    record["GeneratedBy"][0]["Version"] = version
    record |= {"Volumes": volumes or {}, "Scores": None} if labels else {}
    write_sidecar(folder / f"{output.name.removesuffix('.nii.gz')}.json", record)
    return output


def box(moved=0):
    data = np.zeros(SHAPE, np.int16)
    data[2 + moved : 6 + moved, 2:8, 2:7] = 17  # 4 x 6 x 5 = 120 voxels
    return data


def compare(*words):
    return main(["report", "--compare", *map(str, words)])


def sentence(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_dice_is_that_of_the_definition():
    found = dice_per_label(box(), box(1))
    assert found == {17: (pytest.approx(2 * 90 / 240), 120, 120)}
    other = np.where(box() == 17, 53, 0)
    assert dice_per_label(box(), other) == {17: (0.0, 120, 0), 53: (0.0, 0, 120)}


def test_figures_of_an_image_are_those_of_the_definition():
    rng = np.random.default_rng(1)
    a = rng.uniform(1, 2, SHAPE)
    a[:3] = 0
    b = a.copy()
    b[5] += 0.5
    b[6, 0, 0] = np.nan  # counts as 0
    found = compare_images(Volume(a, AFFINE), Volume(b, AFFINE))
    inside = 9 * 14 * 10
    assert (found.voxels, found.changed) == (inside, 14 * 10 + 1)
    assert found.mean_absolute == pytest.approx((0.5 * 140 + a[6, 0, 0]) / inside)
    seen = np.nan_to_num(b)
    assert found.correlation == pytest.approx(np.corrcoef(a[a > 0], seen[a > 0])[0, 1])
    empty = compare_images(Volume(np.zeros(SHAPE), AFFINE), Volume(np.zeros(SHAPE), AFFINE))
    assert (empty.voxels, empty.changed) == (0, 0)


def test_two_versions_of_a_segmentation(tmp_path, capsys):
    first = write(tmp_path / "a", box(), volumes={"left hippocampus": 1200.0, "gone": 5.0}, options={"fast": True})
    second = write(
        tmp_path / "b", box(1), version="1.1.0", volumes={"left hippocampus": 1260.0}, options={"fast": False}
    )
    assert compare(first, second, tmp_path / "c.html", "--progress", "json") == 0
    source = (tmp_path / "c.html").read_text(encoding="utf-8")
    for words in (
        "mri-deep-tools 1.0.0",
        "mri-deep-tools 1.1.0",
        "Option fast",
        ">1.200<",  # ml
        ">1.260<",
        ">0.060<",
        ">5.00<",  # per cent
        "0.7500",  # Dice
        "left hippocampus",
        "Side by side",
        "The main outputs differ.",
        DISCLAIMER,
    ):
        assert words in source, words
    assert source.count("data:image/png") == 1 and "<script" not in source and str(tmp_path) not in source
    events = [json.loads(line.removeprefix(EVENT_TOKEN)) for line in capsys.readouterr().out.splitlines()]
    (told,) = events[-1]["compared"]
    assert told["VoxelsChanged"] == 60 and told["PercentChanged"] == pytest.approx(100 * 60 / 150)


def test_the_same_twice_is_said_to_be_identical(tmp_path, capsys):
    paths = [write(tmp_path / name, box()) for name in "ab"]
    assert compare(*paths, tmp_path / "c.html") == 0
    assert "identical" in capsys.readouterr().out
    source = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "identical, voxel by voxel" in source and "No voxel has changed" in source


def test_intensities_are_compared_with_a_picture(tmp_path):
    rng = np.random.default_rng(2)
    image = rng.uniform(100, 200, SHAPE).astype(np.float32)
    first = write(tmp_path / "a", image, command="synthesis")
    second = write(tmp_path / "b", image + 2, command="synthesis")
    assert compare(first, second, tmp_path / "c.html", "--quiet") == 0
    source = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert ">2.0000<" in source and "100.000" in source and source.count("data:image/png") == 1


def test_series_of_volumes_are_compared(tmp_path):
    image = np.random.default_rng(2).uniform(100, 200, (*SHAPE, 3)).astype(np.float32)
    other = image.copy()
    other[..., 2] += 5
    first, second = (write(tmp_path / n, d, command="series") for n, d in (("a", image), ("b", other)))
    assert compare(first, second, tmp_path / "c.html", "--quiet") == 0
    assert "Volume 2 (numbered from 0)" in (tmp_path / "c.html").read_text(encoding="utf-8")


def test_other_inputs_are_refused(tmp_path, capsys):
    first, second = write(tmp_path / "a", box()), write(tmp_path / "b", box(), seed=5)
    assert compare(first, second, tmp_path / "c.html") == 2
    assert "made from other inputs" in sentence(capsys) and not (tmp_path / "c.html").exists()


def test_other_grids_are_refused(tmp_path, capsys):
    first = write(tmp_path / "a", box())
    second = write(tmp_path / "b", box()[1:], affine=AFFINE)
    assert compare(first, second, tmp_path / "c.html") == 2
    assert "other grids (12 x 14 x 10 voxels of 2 x 2 x 2.5 mm" in sentence(capsys)
    third = write(tmp_path / "d", box(), affine=np.diag([2.0, 2.0, 2.6, 1.0]))
    assert compare(first, third, tmp_path / "c.html") == 2
    assert not (tmp_path / "c.html").exists()


def test_other_commands_are_refused(tmp_path, capsys):
    first = write(tmp_path / "a", box())
    second = write(tmp_path / "b", box().astype(np.float32), command="harmonize")
    assert compare(first, second, tmp_path / "c.html") == 2
    assert "made by segment and B by harmonize" in sentence(capsys)


def test_folders_are_matched_by_name(tmp_path, capsys):
    for name in ("sub-1", "sub-2", "sub-3"):
        write(tmp_path / "old" / name, box(), volumes={"left hippocampus": 1.0})
        write(tmp_path / "new" / name, box(1), volumes={"left hippocampus": 2.0}, seed=7 if name == "sub-3" else 0)
    write(tmp_path / "old" / "sub-4", box())
    assert compare(tmp_path / "old", tmp_path / "new", tmp_path / "c.html") == 2
    told = capsys.readouterr()
    assert "2 of 4 outputs could be compared" in told.err.splitlines()[-1]
    source = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert (
        source.count('class="part"') == 2 and "made from other inputs" in source and "only A has this output" in source
    )


@pytest.mark.parametrize("count", [1, 3])
def test_two_are_needed(count, tmp_path, capsys):
    paths = [write(tmp_path / str(index), box()) for index in range(count)]
    assert compare(*paths, tmp_path / "c.html") == 2
    assert f"not {count}" in sentence(capsys)


def test_folder_and_file_do_not_go_together(tmp_path, capsys):
    first = write(tmp_path / "a", box())
    assert compare(first, first.parent, tmp_path / "c.html") == 2
    assert "a folder and the other is not" in sentence(capsys)
