"""Pictures and pages: right side, true proportions, nothing loaded from elsewhere, no names unless asked for."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from mri_deep_tools.errors import DependencyError, InputError, RequestError
from mri_deep_tools.overlay import label_colour, overlay_png
from mri_deep_tools.provenance import make_record, model_use
from mri_deep_tools.report import Cell, Column, KeyValues, Picture, Table, Text, write_report
from mri_deep_tools.synthsegment.report import (
    asymmetry_index,
    scores_table,
    volume_tables,
    write_segmentation_report,
)
from mri_deep_tools.volume import Volume

image_reader = pytest.importorskip("matplotlib.image", reason="needs the report extra")
pytest.importorskip("jinja2", reason="needs the report extra")

RED, GREEN = (255, 0, 0), (0, 255, 0)


class Page(HTMLParser):
    """Collects tags, addresses and text, and checks that tags close in order."""

    void = frozenset({"meta", "img", "link", "br", "input"})

    def __init__(self, source):
        super().__init__()
        self.tags, self.loaded, self.words, self.open = [], [], [], []
        self.feed(source)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.loaded += [value for name, value in attrs if name in ("src", "srcset", "data", "background")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return re.sub(r"[ \n]+", " ", " ".join(self.words))


def head(affine=None, shape=(40, 50, 30)):
    """A ball with label 1 in the left half (negative RAS x) and 2 in the right one."""
    affine = (
        np.array([[3.0, 0, 0, -60], [0, 3.0, 0, -75], [0, 0, 5.0, -75], [0, 0, 0, 1]]) if affine is None else affine
    )
    indices = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    world = indices @ affine[:3, :3].T + affine[:3, 3]
    ball = np.linalg.norm(world, axis=-1) < 50
    labels = np.where(ball, np.where(world[..., 0] < 0, 1, 2), 0).astype(np.int16)
    return Volume((100.0 * ball).astype(np.float32), affine), Volume(labels, affine)


def blobs(path):
    """Return the pixels that are clearly red (label 1) and clearly green (label 2) as (rows, columns)."""
    pixels = image_reader.imread(path)[..., :3]
    red = np.argwhere((pixels[..., 0] > pixels[..., 1] + 0.2) & (pixels[..., 2] < pixels[..., 0] - 0.2))
    green = np.argwhere((pixels[..., 1] > pixels[..., 0] + 0.2) & (pixels[..., 2] < pixels[..., 1] - 0.2))
    return red, green, pixels


def axial(points, pixels):
    """Keep the points in the upper third, where the axial row is."""
    return points[points[:, 0] < pixels.shape[0] / 3]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("convention", ["radiological", "neurological"])
def test_sides_are_where_the_convention_puts_them(tmp_path, convention, flip):
    affine = np.array([[3.0, 0, 0, -60], [0, 3.0, 0, -75], [0, 0, 5.0, -75], [0, 0, 0, 1]])
    if flip:
        affine[0] = [-3.0, 0, 0, 57]  # stored from right to left
    image, labels = head(affine)
    path = overlay_png(image, labels, tmp_path / "x.png", slices=1, convention=convention, colours={1: RED, 2: GREEN})
    red, green, pixels = blobs(path)
    left, right = axial(red, pixels)[:, 1].mean(), axial(green, pixels)[:, 1].mean()
    assert (left > right) == (convention == "radiological")


def test_proportions_are_true_for_anisotropic_and_oblique_voxels(tmp_path):
    angle = np.deg2rad(25)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.5, 1.0, 6.0])
    shape = (90, 140, 24)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    image, labels = head(affine, shape)
    path = overlay_png(image, labels, tmp_path / "x.png", slices=1, colours={1: RED, 2: RED})
    red, _, pixels = blobs(path)
    third = pixels.shape[0] / 3
    for row in range(3):  # a ball is round in every plane, up to the thickness of slices
        part = red[(red[:, 0] >= row * third) & (red[:, 0] < (row + 1) * third)]
        tall, wide = np.ptp(part, axis=0)
        assert tall / wide == pytest.approx(1.0, abs=0.12)


def test_image_and_labels_may_lie_on_different_grids(tmp_path):
    image, _ = head()
    fine = np.array([[1.0, 0, 0, -60], [0, 1.0, 0, -60], [0, 0, 1.0, -60], [0, 0, 0, 1]])
    _, labels = head(fine, (120, 120, 120))
    assert overlay_png(image, labels, tmp_path / "x.png", slices=2).stat().st_size > 10_000


def test_no_labels_still_gives_a_picture(tmp_path):
    image, labels = head()
    empty = Volume(np.zeros_like(labels.data), labels.affine)
    path = overlay_png(image, empty, tmp_path / "x.png", slices=2, synthetic=True)
    assert image_reader.imread(path).shape[1] > 500
    with pytest.raises(RequestError):
        overlay_png(image, labels, tmp_path / "y.png", slices=0)
    assert not (tmp_path / "y.png").exists()


def test_colours_are_freesurfers():
    assert label_colour(17) == (220, 216, 20)  # hippocampus
    assert label_colour(3) == (205, 62, 78)  # cortex
    assert label_colour(987654) == label_colour(987654) != label_colour(987655)


def test_page_is_whole_and_loads_nothing(tmp_path):
    image, labels = head()
    scan = tmp_path / "JaneDoe.nii.gz"
    scan.write_bytes(b"scan")
    warnings = ["JaneDoe.nii.gz: 3 voxels were not finite & set to 0"]
    record = make_record(
        "segment",
        [scan],
        model_use("synthseg-2.0"),
        options={"input": scan, "fast": True},
        seconds={"network": 3.25},
        peak_memory_bytes=2_500_000_000,
        warnings=warnings,
        geometry={"input": image},
        synthetic=True,
    )
    volumes = {"total intracranial": 1.5e6, "left thalamus": 6600.0, "right thalamus": 5400.0, "brain-stem": 2e4}
    path = write_segmentation_report(
        tmp_path / "x.html", image, labels, volumes, scores={"thalamus": 0.6, "cerebellum": 0.9}, record=record
    )
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    assert len(page.loaded) == 1
    assert page.loaded[0].startswith("data:image/png;base64,")
    assert not re.search(r"<(script|link|iframe)|@import|url\(", source)
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")
    assert sum(tag == "h1" for tag, _ in page.tags) == 1
    assert any(tag == "th" and attrs.get("scope") == "row" for tag, attrs in page.tags)
    for words in (
        "Research use only. Not a medical device.",
        "Synthetic image.",
        "20.0",  # 100 (6600 - 5400) / 6000
        "6\N{NARROW NO-BREAK SPACE}600",
        "6.60",
        "40 \N{MULTIPLICATION SIGN} 50 \N{MULTIPLICATION SIGN} 30",
        "3 \N{MULTIPLICATION SIGN} 3 \N{MULTIPLICATION SIGN} 5 mm",
        "2.50 GB",
        "hidden: 3 voxels were not finite & set to 0",
    ):
        assert words in page.text
    assert source.index('id="warnings"') < source.index('id="section-1"')
    assert "https://doi.org/10.1016/j.media.2023.102789" in source
    assert "JaneDoe" not in source
    assert str(tmp_path) not in source


def test_names_are_shown_on_request_only(tmp_path):
    scan = tmp_path / "JaneDoe.nii.gz"
    scan.write_bytes(b"scan")
    record = make_record("segment", [scan], options={"input": scan}, geometry={"input": head()[0]})
    path = write_report(tmp_path / "x.html", title="T", sections=[], record=record, show_names=True)
    assert path.read_text(encoding="utf-8").count("JaneDoe.nii.gz") == 2


def test_blocks_escape_what_they_show(tmp_path):
    sections = [
        Text("Note", ["<b>bold</b> & plain, doi:10.1000/a<b"], "doubtful"),
        Table("T", [Column("A"), Column("B", "mm", digits=1)], [["<i>x</i>", Cell(1234.56, "bad")], ["none", None]]),
        KeyValues("K", {"<k>": "<v>", "list": [1, True, None]}),
    ]
    source = write_report(tmp_path / "x.html", title="<T>", sections=sections).read_text(encoding="utf-8")
    page = Page(source)
    assert not {"b", "k", "v"} & {tag for tag, _ in page.tags}
    assert "1\N{NARROW NO-BREAK SPACE}234.6" in page.text
    assert "1, yes, not given" in page.text
    assert "\N{EN DASH}" in page.text


def test_pictures_that_cannot_be_read_are_named(tmp_path):
    for name in ("gone.png", "movie.gif"):
        with pytest.raises(InputError, match=name):
            write_report(tmp_path / "x.html", title="T", sections=[Picture("P", tmp_path / name, "alt")])
    assert not (tmp_path / "x.html").exists()


def test_volume_tables_pair_sides():
    tables = volume_tables({"left caudate": 3000.0, "right caudate": 0.0, "ctx-lh-insula": 2.0, "left putamen": 5.0})
    assert [table.title for table in tables] == ["Volumes by side", "Midline structures and totals"]
    assert [cell.value for cell in tables[0].cells[0]] == [
        "caudate",
        "3\N{NARROW NO-BREAK SPACE}000",
        "3.00",
        "0",
        "0.00",
        "200.0",
    ]
    assert len(tables[1].rows) == 2  # a side without its twin stands alone
    assert asymmetry_index(1.0, 3.0) == -100.0
    assert np.isnan(asymmetry_index(0.0, 0.0))


def test_score_verdicts_follow_the_published_limit():
    levels = [row[1].level for row in scores_table({"a": 0.64, "b": 0.65, "c": 0.75, "d": float("nan")}).cells]
    assert levels == ["bad", "doubtful", "good", "bad"]


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    image, labels = head()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(DependencyError, match=r'pip install "mri-deep-tools\[report\]"'):
        write_report(tmp_path / "x.html", title="T", sections=[])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DependencyError, match=r'pip install "mri-deep-tools\[report\]"'):
        overlay_png(image, labels, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
