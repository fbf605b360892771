"""The overview in a real browser: order, search, pages and pictures, and that it asks for nothing from a network."""

from __future__ import annotations

import html
import re
import shutil
import subprocess

import numpy as np
import pytest
from mri_deep_tools.batch.overview import write_overview
from mri_deep_tools.batch.pictures import HEIGHT, middle_mm, planes, write_picture
from mri_deep_tools.batch.plan import Request
from mri_deep_tools.batch.tasks import TASKS
from mri_deep_tools.volume import Volume

COLUMNS = ["id", "site", "state", "seconds", "warnings", "score", "warning", "message", "model", "output"]


@pytest.fixture
def page(tmp_path):
    """Return a function that writes an overview of some subjects."""

    def make(count):
        (tmp_path / "batch_pictures").mkdir()
        rows = []
        for number in range(count):
            name, failed = f"s{number:04d}", number % 50 == 7
            if not failed:
                write_picture(
                    [np.full((HEIGHT, 3 * HEIGHT, 3), number % 256, np.uint8)], tmp_path / f"batch_pictures/{name}.jpg"
                )
            rows.append(
                {
                    "id": name,
                    "site": "A" if number % 2 else "B",
                    "state": "failed" if failed else "done",
                    "seconds": 1.0 + number % 13,
                    "warnings": 1 + (number == 3),
                    "score": None if failed else (number * 7919 % 1000) / 10,
                    "warning": "in all of them" + (" | </script><img src=http://x/>" if number == 3 else ""),
                    "message": "it is broken." if failed else "",
                    "model": "" if failed else "lite",
                    "output": f"{name}.nii.gz",
                    "_picture": "" if failed else f"batch_pictures/{name}.jpg",
                }
            )
        request = Request(TASKS["segment"], tmp_path, ("--fast", "--weights=/home/me/own.h5"), ("volumes",))
        return write_overview(tmp_path / "batch.html", request, rows, COLUMNS, 100.0, count, [tmp_path / "batch.tsv"])

    return make


@pytest.fixture(scope="module")
def browser():
    """Return a function that gives the page as a browser has built it."""
    program = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if program is None:
        pytest.skip("no Chromium on this machine")

    def look(path, asked=""):
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
        done = subprocess.run([program, *words, f"file://{path}{asked}"], capture_output=True, text=True, timeout=120)
        return done.stdout

    return look


def shown(dom):
    """Return the cells of the rows that are shown."""
    body = re.search(r"<tbody>(.*?)</tbody>", dom, re.S)[1]
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", body, re.S)]
    return [[html.unescape(re.sub(r"<[^>]+>", "", cell)) for cell in row] for row in cells]


def test_rows_pictures_and_facts(page, browser):
    dom = browser(page(240))
    rows = shown(dom)
    assert len(rows) == 100 and rows[0][1] == "s0000"
    assert "1 to 100 of 240" in dom
    assert dom.count('loading="lazy"') == 98  # two of the first hundred failed and have no picture
    assert "<dd>235 done, 5 failed</dd>" in dom
    assert "<dd>in all of them</dd>" in dom and "--weights=own.h5 --volumes" in dom and "/home/me" not in dom
    assert rows[3][-2].endswith("</script><img src=http://x/>")
    assert not re.search(r'<img[^>]+src="http', dom)


def test_sorting_and_searching(page, browser):
    path = page(120)
    rows = shown(browser(path, "#sort=score&order=down"))
    scores = [float(row[-1]) for row in rows if row[-1]]
    assert scores == sorted(scores, reverse=True) and len(rows) == 100
    rows = shown(browser(path, "#sort=score"))
    assert float(rows[0][-1]) == min((number * 7919 % 1000) / 10 for number in range(120) if number % 50 != 7)
    failed = shown(browser(path, "#state=%3Dfailed"))
    assert [row[1] for row in failed] == ["s0007", "s0057", "s0107"] and "it is broken." in failed[0][-2]
    assert [row[1] for row in shown(browser(path, "#search=s011+B"))] == [f"s011{n}" for n in (0, 2, 4, 6, 8)]


def test_the_page_is_offline_and_small(page):
    text = page(2000).read_text(encoding="utf-8")
    assert "in all of them" in text and "it is broken." in text
    frame = re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.S)
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", frame)
    assert "default-src 'none'" in text
    assert len(text) < 2000 * 200
    assert text.count("</script>") == 2  # what a subject says cannot end the script


def test_planes_show_the_right_voxels():
    data = np.zeros((30, 40, 20), np.float32)
    data[4:26, 5:35, 3:17] = 50
    data[20:26, 30:35, 12:17] = 100  # right, front, top
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    picture = planes(Volume(data, affine))
    assert picture.shape[0] == HEIGHT and picture.dtype == np.uint8
    widths = [round(HEIGHT * wide / high) for wide, high in ((40, 60), (60, 60), (60, 40))]
    assert picture.shape[1] == sum(widths)
    flipped = Volume(
        np.ascontiguousarray(data[::-1, :, ::-1]),
        affine @ np.array([[-1.0, 0, 0, 29], [0, 1, 0, 0], [0, 0, -1, 19], [0, 0, 0, 1]]),
    )
    assert np.array_equal(planes(flipped), picture)  # the order of axes in the file does not matter


def test_a_scan_and_what_was_made_of_a_part_of_it_are_cut_at_one_place():
    data = np.zeros((20, 24, 30), np.float32)
    data[4:16, 4:20, 4:26] = 50
    data[5:8, 5:8, 23] = 100  # only there
    data[0, :4] = 100  # so that it is not cut as the brightest half percent
    part = np.zeros_like(data)
    part[:, :, 22:25] = data[:, :, 22:25]
    affine = np.array([[0, -2.0, 0, 7], [3, 0, 0, -4], [0, 0, 2.0, 5], [0, 0, 0, 1]])
    point = middle_mm(Volume(part, affine))
    assert (np.linalg.inv(affine) @ [*point, 1])[2] == pytest.approx(23)
    axial = np.s_[30:-30, 30 - round(HEIGHT * 48 / 60) : -30]  # of the last plane
    whole, made = (planes(Volume(values, affine), point=point)[axial] for values in (data, part))
    assert (whole > 200).mean() > 0.01
    assert (made > 200).mean() > 0.01
    assert not (planes(Volume(data, affine))[axial] > 200).any()


def test_labels_are_laid_over_the_scan():
    data = np.random.default_rng(0).uniform(0, 100, (20, 20, 20)).astype(np.float32)
    labels = np.zeros((20, 20, 20), np.int32)
    labels[5:15, 5:15, 5:15] = 17
    scan = Volume(data, np.eye(4))
    plain, covered = planes(scan), planes(scan, Volume(labels, np.eye(4)))
    coloured = (covered.max(-1).astype(int) - covered.min(-1)) > 20
    assert 0.15 < coloured.mean() < 0.35  # a quarter of every plane
    assert not (plain.max(-1) != plain.min(-1)).any()
