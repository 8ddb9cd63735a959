"""The page: what is in it, what cannot get into it, what it does with damaged stores."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from andon.benchmark.gallery import GalleryMaps
from andon.benchmark.store import Store
from andon.core import AndonError, Region
from andon.report import gallery, write_report, write_tables
from andon.report.gallery import Scale, build_galleries, heat_map, mask_outline
from andon.report.html import _task_notes
from andon.report.image import write_image
from andon.report.results import collect
from andon.report.write import FORMATS
from tests.report.fake import METHODS, FakeMethod, fill, image_of, map_of, record_of, spec_of, types_of

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


class Outline(HTMLParser):
    """Tags with attributes, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag in ("script", "style"):
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str]]:
        return [a for t, a in self.tags if t == tag]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    methods = (
        *METHODS,
        FakeMethod("draem", "DRAEM", curves=True, fails=frozenset({("washer", 1)})),
    )
    return fill(tmp_path_factory.mktemp("store") / "s", methods=methods)


@pytest.fixture(scope="module")
def page(store: Store, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(store, tmp_path_factory.mktemp("out")).read_text(encoding="utf-8")


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    outline = Outline(page)
    for tag, attributes in outline.tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, attributes[name][:80])
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)
    policy = next(a["content"] for a in outline.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_the_policy_allows_exactly_the_pages_own_script(page: str) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


def test_ids_are_unique_and_every_link_has_its_target(page: str) -> None:
    outline = Outline(page)
    ids = [a["id"] for _, a in outline.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for _, a in outline.tags if a.get("href", "").startswith("#")}
    assert targets <= set(ids)


def test_every_section_names_the_random_weights(page: str) -> None:
    sections = re.split(r'<section (?=id=|class="task")', page)
    assert len(sections) == 1 + 1 + 2 + 2
    for section in sections:
        banner = re.search(r'<p class="warning".*?</p>', section, re.DOTALL)
        assert banner is not None
        for words in ("Random weights", "Patchcore, PaDiM", "resnet18 (orthogonal, seed 0)", "not pretrained"):
            assert words in banner[0]
        assert "Fixed-seed orthogonal initialisation" in banner[0]


def test_a_shortened_training_is_said_beside_the_method_and_below_the_tables(tmp_path: Path) -> None:
    short = FakeMethod("draem", "DRAEM", curves=True, budget=0.025)
    store = fill(tmp_path / "s", methods=(METHODS[2], short, FakeMethod("dsr", "DSR", budget=1.0)), gallery=False)
    text = write_report(store, tmp_path / "r.html").read_text(encoding="utf-8")
    assert '<span class="tag">2.5 % of the training</span>' in text
    assert "Shortened training: DRAEM 2.5 % of the full length." in text


def test_no_banner_where_weights_are_pretrained(tmp_path: Path) -> None:
    store = fill(tmp_path / "s", methods=(METHODS[2],), gallery=False)
    text = write_report(store, tmp_path / "r.html").read_text(encoding="utf-8")
    assert 'class="warning"' not in text
    assert "Random weights" not in text


def test_the_page_shows_tables_tasks_failures_and_experiments(store: Store, page: str) -> None:
    text = Outline(page).text
    for record in store.records():
        assert record.id in text
    for failure in store.failures():
        assert failure.reason in text
        assert failure.id in text
    for words in ("Example CPU @ 3 GHz", "torch 2.13.0", "computed in this run", "read from the cache", '"resnet18"'):
        assert words in text
    assert "1 defective image has an empty mask" in text
    assert page.count('class="figure"') == 2 * (2 + 4 + 1)
    assert len(re.findall(r'<svg class="tile"', page)) == 2 * 6 * (1 + 3)
    assert "No heat maps kept: Thumbnail NN." in text


def test_the_same_store_gives_the_same_page(store: Store, page: str, tmp_path: Path) -> None:
    assert write_report(Store(store.root), tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_hostile_names_are_harmless(tmp_path: Path) -> None:
    evil = FakeMethod("patchcore", EVIL, random=True)
    store = fill(
        tmp_path / "s",
        methods=(evil, METHODS[1]),
        categories=(EVIL, "\u202etxt.exe\x1b[2J\n\n# head"),
        dataset=EVIL,
        defects={EVIL: 6, "a|b": 5},
        plan=EVIL,
    )
    plain_store = fill(tmp_path / "t", methods=(METHODS[0], METHODS[1]), defects={"x": 6, "y": 5})
    text = write_report(store, tmp_path / "r.html", title=EVIL).read_text(encoding="utf-8")
    reference = write_report(plain_store, tmp_path / "t.html").read_text(encoding="utf-8")
    outline, expected = Outline(text), Outline(reference)
    for tag in ("script", "img", "iframe", "object", "link", "base", "form"):
        assert len(outline.named(tag)) == len(expected.named(tag)), tag
    assert not [a for _, a in outline.tags if any(name.startswith("on") for name in a)]
    assert {t for t, _ in outline.tags} == {t for t, _ in expected.tags}
    assert "alert(1)" in outline.text
    assert "{{7*7}}" in outline.text
    assert "\x1b" not in text
    assert "\u202e" not in text
    for path in write_tables(store, tmp_path / "tables"):
        content = path.read_text(encoding="utf-8")
        assert "\x1b" not in content
        assert path.parent == tmp_path / "tables"


def test_damaged_arrays_and_maps_are_left_out_and_named(tmp_path: Path) -> None:
    store = fill(tmp_path / "s", categories=("washer",))
    records = store.records()
    arrays = store.path(records[0].id) / "arrays.npz"
    arrays.write_bytes(arrays.read_bytes()[:100])
    with_maps = next(r for r in records if r.spec.label == "PaDiM" and r.spec.seed == 0)
    maps = store.path(with_maps.id) / "maps.npz"
    maps.write_bytes(b"not an archive")
    text = Outline(write_report(Store(store.root), tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert f"{records[0].id}/arrays.npz: damaged" in text
    assert f"{with_maps.id}/maps.npz: damaged" in text
    assert "2 entries of the store could not be read" in text


def test_a_damaged_record_or_gallery_is_named(tmp_path: Path) -> None:
    store = fill(tmp_path / "s", categories=("washer",))
    first = store.ids()[0]
    (store.path(first) / "record.json").write_text("{")
    for copy in (store.root / "galleries").glob("*/0.jpg"):
        copy.write_bytes(b"no image")
    text = Outline(write_report(Store(store.root), tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert f"{first}/record.json: damaged" in text
    assert "galleries" in text


def test_arrays_of_strange_content_are_not_drawn(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", create=True)
    types = types_of({"bent": 5}, 10)
    record, arrays_ = record_of(METHODS[1], spec_of(METHODS[1], "washer", 0), types)
    bad = arrays_.model_copy(
        update={
            "image_scores": np.full(15, np.nan, dtype=np.float32),
            "spro_fpr": np.asarray([0.5, 0.1]),
            "spro": np.asarray([0.5, np.inf]),
        }
    )
    store.write_experiment(record, bad)
    text = write_report(store, tmp_path / "r.html").read_text(encoding="utf-8")
    assert 'class="figure"' not in text
    assert "nan" not in Outline(text).text


def test_an_empty_store_and_a_place_that_cannot_be_written_are_one_line(tmp_path: Path, store: Store) -> None:
    with pytest.raises(AndonError, match="no finished experiments"):
        write_report(Store(tmp_path / "s", create=True), tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(AndonError, match="cannot be written"):
        write_report(store, tmp_path / "file" / "r.html")
    with pytest.raises(AndonError, match=r"unknown table format 'pdf'; known: text, markdown, latex, csv"):
        write_tables(store, tmp_path / "t", ["pdf"])


def test_a_full_disk_leaves_the_old_page(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "r.html"
    target.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("andon._tools.files.os.fsync", full)
    with pytest.raises(AndonError, match="No space left"):
        write_report(store, target)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_all_formats_are_written(store: Store, tmp_path: Path) -> None:
    written = {p.name for p in write_tables(store, tmp_path / "t")}
    assert {"tables.txt", "tables.md", "tables.tex", "results.csv", "auroc.csv", "speed.csv"} <= written
    assert written == {p.name for p in (tmp_path / "t").iterdir()}
    assert len(FORMATS) == 4
    assert {p.name for p in write_tables(store, tmp_path / "u", ["markdown"])} == {"tables.md"}


# Gallery


def test_heat_maps_use_one_scale_a_method_and_lie_where_the_method_looked(store: Store) -> None:
    results = collect(store)
    row = results.datasets[0].rows[0]
    found = build_galleries(store, results.datasets, [])[row.key]
    labels = [c.label for c in found.columns]
    assert labels == ["Patchcore", "PaDiM", "DRAEM"]
    masks = [
        image_of("washer", i, t)[1] for i, t in ((40, True), (41, True), (54, True), (55, True), (0, False), (1, False))
    ]
    maps = [map_of(m, METHODS[0], i) for m, i in zip(masks, (40, 41, 54, 55, 0, 1), strict=True)]
    scale = found.scales[0]
    assert scale is not None
    assert scale.low == min(float(m.min()) for m in maps)
    assert scale.high == max(float(m.max()) for m in maps)
    assert {tile.box for r in found.rows for tile in (r.tiles[0],)} == {(7.5, 6.0, 105.0, 84.0)}
    assert {tile.box for r in found.rows for tile in (r.tiles[1],)} == {(0.0, 0.0, 120.0, 96.0)}
    assert [r.good for r in found.rows] == [False] * 4 + [True] * 2
    # The hottest place of a defective image's map lies in its mask.
    tile = found.rows[0].tiles[0]
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(tile.uri.split(",")[1]))).convert("L"), dtype=float)
    y, x = np.unravel_index(cv2.blur(image, (5, 5)).argmax(), image.shape)
    left, top, width, height = tile.box
    place = (int(top + (y + 0.5) / image.shape[0] * height), int(left + (x + 0.5) / image.shape[1] * width))
    assert masks[0][place]


def test_alarms_in_the_gallery_follow_the_threshold(store: Store) -> None:
    results = collect(store)
    row = results.datasets[0].rows[0]
    found = build_galleries(store, results.datasets, [])[row.key]
    record = next(r for r in results.records if r.spec.label == "PaDiM" and r.spec.category == row.category)
    threshold = next(
        p.threshold for p in record.evaluation.operating_points if p.source == "test good" and p.target_tnr == 0.95
    )
    arrays_ = store.arrays(record.id)
    for row in found.rows:
        score = arrays_.image_scores[arrays_.sample_ids.index(row.sample_id)]
        assert row.tiles[1].alarm == bool(score > threshold)


def test_the_gallery_keeps_to_its_bytes(store: Store) -> None:
    results = collect(store)
    everything = build_galleries(store, results.datasets, [])
    size = gallery._bytes(everything)
    smaller = build_galleries(store, results.datasets, [], max_bytes=size // 3)
    assert gallery._bytes(smaller) <= size // 3 * 1.2
    left_out = sum(g.left_out for g in smaller.values())
    assert left_out == sum(len(g.rows) for g in everything.values()) - sum(len(g.rows) for g in smaller.values())
    assert left_out > 0


def test_heat_maps_of_constant_or_infinite_values_are_drawn() -> None:
    values = np.full((4, 5), 3, dtype=np.float32)
    scale = Scale.of([values])
    assert scale is not None
    assert heat_map(values, scale, 64).shape == (4, 5, 3)
    values[0, 0], values[1, 1], values[2, 2] = np.nan, np.inf, 5
    scale = Scale.of([values])
    assert scale == Scale(3, 5)
    image = heat_map(values, scale, 64)
    assert (image[1, 1] == image[2, 2]).all()
    assert (image[0, 0] == image[3, 3]).all()
    assert Scale.of([np.full((2, 2), np.nan, dtype=np.float32)]) is None


def test_maps_without_a_finite_value_say_so(tmp_path: Path) -> None:
    store = fill(tmp_path / "s", methods=(METHODS[1],), categories=("washer",), seeds=1)
    record = store.records()[0]
    maps = store.maps(record.id)
    assert maps is not None
    other = fill(tmp_path / "o", methods=(METHODS[1],), categories=("washer",), seeds=1, gallery=False)
    other_arrays = other.arrays(record.id)
    shutil.rmtree(other.path(record.id))
    shutil.copytree(store.root / "galleries", other.root / "galleries")
    nothing = tuple(np.full((3, 3), np.nan, dtype=np.float32) for _ in maps.maps)
    other.write_experiment(record, other_arrays, maps=GalleryMaps(maps.sample_ids, nothing, (Region(),) * len(maps)))
    text = Outline(write_report(other, tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "map has no finite value" in text


@given(arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24))))
@settings(max_examples=60, deadline=None)
def test_an_outline_encloses_the_masks_pixels(mask: np.ndarray) -> None:
    path = mask_outline(mask)
    assert (path == "") == (not mask.any())
    scale = 8
    drawn = np.zeros((mask.shape[0] * scale, mask.shape[1] * scale), dtype=np.uint8)
    polygons = [
        np.asarray([[float(v) * scale for v in p.split()] for p in part.removesuffix("Z").split("L")])
        for part in path.split("M")[1:]
    ]
    # Even–odd over all parts, as SVG fills it.
    for polygon in polygons:
        layer = np.zeros_like(drawn)
        cv2.fillPoly(layer, [polygon.round().astype(np.int32)], 1)
        drawn ^= layer
    centres = drawn[scale // 2 :: scale, scale // 2 :: scale].astype(bool)
    assert (centres == mask).all()


def test_an_outline_of_noise_stays_short() -> None:
    mask = np.random.default_rng(0).random((512, 512)) > 0.5
    assert 0 < len(mask_outline(mask)) < 60_000


def test_the_image_of_the_headline_has_the_gallerys_shapes(store: Store, tmp_path: Path) -> None:
    path = write_image(store, tmp_path / "p.png", task="bracket", dpi=60)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width == 660
        assert np.asarray(image.convert("L")).std() > 20
    with pytest.raises(AndonError, match=r"no task 'nut'; it has: washer, bracket"):
        write_image(store, tmp_path / "q.png", task="nut")
    assert not (tmp_path / "q.png").exists()


def test_the_image_of_a_store_without_a_gallery_is_the_tables(tmp_path: Path) -> None:
    store = fill(tmp_path / "s", gallery=False, seeds=1)
    with Image.open(write_image(store, tmp_path / "p.png", dpi=60)) as image:
        assert image.height < image.width


def test_a_note_that_is_not_on_all_of_a_tasks_results_says_whose_it_is(store: Store) -> None:
    chosen = [r for r in store.records() if r.spec.category == store.records()[0].spec.category]
    padim = [r for r in chosen if r.spec.label == "PaDiM"]
    assert len(padim) > 1
    added = {r.id: ["of the data"] for r in chosen}
    added[padim[0].id].append("one branch alone: 81.7 %")
    for record in padim:
        added[record.id].append("on every seed")
    noted = [
        r.model_copy(update={"evaluation": r.evaluation.model_copy(update={"notes": tuple(added[r.id])})})
        for r in chosen
    ]
    assert _task_notes(noted) == [
        "of the data",
        f"PaDiM, seed {padim[0].spec.seed}: one branch alone: 81.7 %",
        "PaDiM: on every seed",
    ]
