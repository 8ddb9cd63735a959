from __future__ import annotations

import base64
import io
import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from andon.core import DataError
from andon.data.preparing.annotations import Annotations, read_annotations
from andon.data.preparing.coco import decompressed_counts
from andon.data.preparing.shapes import Polygon, ellipse, rectangle
from andon.data.preparing.sources import RawImage

IMAGES = (
    RawImage(Path("good/a.png"), "good/a.png", "good"),
    RawImage(Path("dent/b.png"), "dent/b.png", "dent"),
    RawImage(Path("dent/c.jpg"), "dent/c.jpg", "dent"),
)
SIZE = (20, 30)

coordinate = st.floats(-10, 40, allow_nan=False, width=32)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=7))
def test_a_polygon_holds_the_pixels_whose_middles_lie_inside(points: list[tuple[float, float]]) -> None:
    mask = Polygon(tuple(points)).draw(SIZE)
    corners = [(float(x), float(y)) for x, y in points]
    for row in range(SIZE[0]):
        for column in range(0, SIZE[1], 3):
            x, y, inside = column + 0.5, row + 0.5, False
            near = False
            for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
                if (y0 > y) != (y1 > y):
                    cut = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
                    near |= abs(cut - x) < 1e-6 or abs(y0 - y) < 1e-6 or abs(y1 - y) < 1e-6
                    inside ^= cut > x
            if not near and all(abs(y0 - y) > 1e-6 for _, y0 in corners):
                assert mask[row, column] == inside


def test_rectangles_and_ellipses_have_their_areas() -> None:
    assert rectangle(2, 3, 12, 8, "here").draw(SIZE).sum() == 50
    assert rectangle(2, 3, 12, 8, "here").draw(SIZE)[3:8, 2:12].all()
    turned = rectangle(5, 5, 15, 15, "here", 45.0).draw(SIZE)
    assert turned.sum() == pytest.approx(100, abs=15)
    assert not turned[5, 5]
    assert turned[10, 10]
    assert ellipse(15, 10, 8, 5, "here").draw(SIZE).sum() == pytest.approx(np.pi * 40, rel=0.03)
    # CVAT turns clockwise, y down: the right end of a lying rectangle goes down.
    leaning = rectangle(5, 9, 25, 11, "here", 20.0).draw(SIZE)
    assert leaning[13, 23]
    assert not leaning[6, 23]


def compressed(counts: list[int]) -> str:
    """As cocoapi's rleToString writes it."""
    out = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            bits, value = value & 0x1F, value >> 5
            more = value != -1 if bits & 0x10 else value != 0
            out += chr(bits + 48 + (0x20 if more else 0))
            if not more:
                break
    return out


def test_compressed_run_lengths_known_by_hand() -> None:
    # The fourth number is 1 − 3 = −2: five bits 11110, "0" + 30 = "N".
    assert decompressed_counts("231N", "here") == (2, 3, 1, 1)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=12))
def test_compressed_run_lengths_come_back(counts: list[int]) -> None:
    assert decompressed_counts(compressed(counts), "here") == tuple(counts)


def coco(folder: Path, segmentation: object, name: str = "b.png", **more: object) -> Annotations:
    content = {
        "images": [{"id": 7, "file_name": name, "height": 20, "width": 30}],
        "categories": [{"id": 3, "name": "scratch"}],
        "annotations": [{"id": 11, "image_id": 7, "category_id": 3, "segmentation": segmentation, **more}],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return read_annotations(path, IMAGES)


def runs_of(mask: np.ndarray) -> list[int]:
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    ends = [0, *edges.tolist(), flat.size]
    counts = [b - a for a, b in itertools.pairwise(ends)]
    return [0, *counts] if flat[0] else counts


def test_coco_polygons_and_both_kinds_of_run_lengths(tmp_path: Path) -> None:
    mask = np.zeros(SIZE, dtype=bool)
    cv2.circle(view := mask.astype(np.uint8), (14, 9), 6, 1, -1)
    mask = view > 0
    for counts in (runs_of(mask), compressed(runs_of(mask))):
        found = coco(tmp_path, {"size": [20, 30], "counts": counts})
        (region,) = found.regions["dent/b.png"]
        assert region.defect == "scratch"
        assert np.array_equal(region.draw(SIZE), mask)
    found = coco(tmp_path, [[2, 3, 12, 3, 12, 8, 2, 8], [20, 10, 25, 10, 25, 15, 20, 15]])
    (region,) = found.regions["dent/b.png"]
    assert region.draw(SIZE).sum() == 50 + 25
    (region,) = coco(tmp_path, [], bbox=[2, 3, 10, 5]).regions["dent/b.png"]
    assert region.draw(SIZE).sum() == 50


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ({"size": [20, 30], "counts": [5]}, "600"),
        ({"size": [20, 30], "counts": "2"}, "600"),
        ({"size": [20, 30], "counts": "\x7f"}, "damaged"),
        ([[1, 2, 3]], "pairs"),
        ([[1, 2, 3, 4]], "three"),
        ([[1, 2, float("inf"), 4, 5, 6]], "finite"),
        (None, "neither"),
        (5, "not COCO"),
    ],
)
def test_a_damaged_coco_annotation_is_named(tmp_path: Path, segmentation: object, said: str) -> None:
    with pytest.raises(DataError, match="annotation") as caught:
        coco(tmp_path, segmentation)
    assert said in str(caught.value)


def test_regions_of_another_size_are_refused(tmp_path: Path) -> None:
    (region,) = coco(tmp_path, [[2, 3, 12, 3, 12, 8]]).regions["dent/b.png"]
    with pytest.raises(DataError, match=r"annotation 11.*30 × 20"):
        region.draw((30, 20))


def test_names_that_fit_no_image_are_told_and_ambiguous_ones_refused(tmp_path: Path) -> None:
    assert coco(tmp_path, [[2, 3, 12, 3, 12, 8]], "x.png").unknown == ("x.png",)
    twice = (*IMAGES, RawImage(Path("other/b.png"), "other/b.png", "other"))
    coco(tmp_path, [[2, 3, 12, 3, 12, 8]])
    with pytest.raises(DataError, match=r"may be dent/b.png, other/b.png"):
        read_annotations(tmp_path / "annotations.json", twice)


def labelme_file(folder: Path, shapes: list[dict[str, object]], name: str = "b.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "version": "5.4.1",
        "shapes": shapes,
        "imagePath": f"..\\raw\\{name}",
        "imageHeight": 20,
        "imageWidth": 30,
    }
    path = folder / f"{Path(name).stem}.json"
    path.write_text(json.dumps(content))
    return path


def test_labelme_shapes_groups_and_masks(tmp_path: Path) -> None:
    patch = np.zeros((4, 5), np.uint8)
    patch[1:3, 1:4] = 1
    out = io.BytesIO()
    Image.fromarray(patch).save(out, "PNG")
    shapes: list[dict[str, object]] = [
        {"label": "scratch", "points": [[2, 3], [12, 8]], "shape_type": "rectangle", "group_id": 1},
        {"label": "scratch", "points": [[20, 10], [25, 15]], "shape_type": "rectangle", "group_id": 1},
        {"label": "scratch", "points": [[2, 12], [6, 12], [6, 16], [2, 16]], "shape_type": "polygon"},
        {"label": "hole", "points": [[15, 10], [18, 10]], "shape_type": "circle", "group_id": None},
        {"label": "hole", "points": [[1, 1]], "shape_type": "point"},
        {
            "label": "dirt",
            "points": [[10, 10], [14, 13]],
            "shape_type": "mask",
            "mask": base64.b64encode(out.getvalue()).decode(),
        },
    ]
    labelme_file(tmp_path / "a", shapes)
    labelme_file(tmp_path / "a", shapes[:1], "c.jpg")
    found = read_annotations(tmp_path / "a", IMAGES)
    regions = found.regions["dent/b.png"]
    assert [(r.defect, int(r.draw(SIZE).sum())) for r in regions if r.defect != "hole"] == [
        ("scratch", 75),
        ("scratch", 16),
        ("dirt", 6),
    ]
    (hole,) = (r.draw(SIZE) for r in regions if r.defect == "hole")
    assert hole.sum() == pytest.approx(np.pi * 9, abs=4)
    dirt = regions[-1].draw(SIZE)
    assert dirt[11:13, 11:14].all()
    assert len(found.regions["dent/c.jpg"]) == 1
    assert len(found.left_out) == 1
    assert "point" in found.left_out[0]


def cvat_file(folder: Path, inner: str) -> Path:
    path = folder / "annotations.xml"
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{inner}</annotations>')
    return path


def test_cvat_shapes_groups_and_masks(tmp_path: Path) -> None:
    inner = """<image id="0" name="dent/b.png" width="30" height="20">
      <box label="scratch" xtl="2" ytl="3" xbr="12" ybr="8" group_id="4"/>
      <polygon label="scratch" points="20,10;25,10;25,15;20,15" group_id="4"/>
      <ellipse label="hole" cx="15" cy="10" rx="4" ry="3" group_id="0"/>
      <mask label="dirt" rle="6,3,2,3,6" left="10" top="10" width="5" height="4" group_id="0"/>
      <mask label="dirt" rle="6,3,2,3" left="20" top="1" width="5" height="4"/>
      <polyline label="hole" points="1,1;2,2"/>
    </image><image id="1" name="good/a.png" width="30" height="20"/>"""
    found = read_annotations(cvat_file(tmp_path, inner), IMAGES)
    regions = found.regions["dent/b.png"]
    assert [r.defect for r in regions] == ["scratch", "hole", "dirt", "dirt"]
    assert regions[0].draw(SIZE).sum() == 75
    assert regions[1].draw(SIZE).sum() == pytest.approx(np.pi * 12, abs=4)
    # Rows of five: the runs mark columns 1..3 of the rows 1 and 2.
    expected = np.zeros(SIZE, dtype=bool)
    expected[11:13, 11:14] = True
    assert np.array_equal(regions[2].draw(SIZE), expected)
    assert regions[3].draw(SIZE).sum() == 6
    assert len(found.left_out) == 1
    assert "polyline" in found.left_out[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<annotations><track/></annotations>", "video"),
        ("<html></html>", "not CVAT"),
        ("<annotations><image", "not XML"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotations>&x;</annotations>', "entities"),
        (
            '<annotations><image name="b.png"><mask label="a" rle="9" left="0" top="0" width="2" height="2"/></image>'
            "</annotations>",
            "run lengths",
        ),
        ('<annotations><image name="b.png"><box label="a" xtl="0"/></image></annotations>', "ytl"),
        ("{}", "known kind"),
        ("[1", "neither JSON"),
    ],
)
def test_what_is_no_annotation_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "masks.dat"
    path.write_text(text)
    with pytest.raises(DataError, match=r"masks\.dat") as caught:
        read_annotations(path, IMAGES)
    assert said in str(caught.value)


def test_png_masks_by_values_by_folder_and_by_name(tmp_path: Path) -> None:
    values = np.zeros(SIZE, np.uint8)
    values[2:5, 2:5], values[10:12, 10:20] = 100, 200
    (tmp_path / "m" / "dent" / "c").mkdir(parents=True)
    Image.fromarray(values).save(tmp_path / "m" / "b_mask.png")
    Image.fromarray(np.where(values == 100, 255, 0).astype(np.uint8)).save(tmp_path / "m" / "dent" / "c" / "0.png")
    Image.fromarray(np.where(values == 200, 255, 0).astype(np.uint8)).save(tmp_path / "m" / "dent" / "c" / "1.png")
    Image.fromarray(values).save(tmp_path / "m" / "nobody.png")
    found = read_annotations(tmp_path / "m", IMAGES)
    assert [int(r.draw(SIZE).sum()) for r in found.regions["dent/b.png"]] == [9, 20]
    assert [int(r.draw(SIZE).sum()) for r in found.regions["dent/c.jpg"]] == [9, 20]
    assert {r.defect for regions in found.regions.values() for r in regions} == {"dent"}
    assert found.unknown == ("nobody.png",)
