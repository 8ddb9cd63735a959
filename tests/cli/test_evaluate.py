"""``andon evaluate``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Andon


@pytest.fixture
def maps(tmp_path: Path, images: Path) -> Path:
    """Perfect ones: the masks."""
    folder = tmp_path / "maps"
    for mask in (images / "ground_truth" / "spot").iterdir():
        target = folder / "spot" / mask.name.replace("_mask", "")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(mask).save(target)
    (folder / "good").mkdir()
    for good in (images / "test" / "good").iterdir():
        Image.new("L", (80, 96)).save(folder / "good" / good.name)
    return folder


def test_maps_from_files_are_judged(andon: Andon, tmp_path: Path, images: Path, maps: Path) -> None:
    out = tmp_path / "new" / "figures.json"
    andon("evaluate", "--maps", maps, "--data", images, "-o", out)
    figures = json.loads(out.read_text())["tiles"]
    assert figures["image"]["auroc"] == 1
    assert figures["localisation"]["auspro"]["0.05"] == pytest.approx(1)
    assert [p.name for p in out.parent.iterdir()] == ["figures.json"]


def test_a_limit_is_looked_up_as_it_was_given(andon: Andon, tmp_path: Path, images: Path, maps: Path) -> None:
    out = tmp_path / "figures.json"
    limits = ("0.3333333", "0.30000000000000004", "1e-7", "1", "1.0")
    options = [word for limit in limits for word in ("--limit", limit)]
    header, figures = andon("evaluate", "--maps", maps, "--data", images, "-o", out, *options).stdout.splitlines()[1:3]
    for limit in ("0.3333333", "0.30000000000000004", "1e-07", "1"):
        assert f"AUsPRO {limit} " in header
    assert figures.split() == ["tiles", *(["100.00"] * 7)]
    assert list(json.loads(out.read_text())["tiles"]["localisation"]["auspro"]) == [
        "0.3333333",
        "0.30000000000000004",
        "1e-07",
        "1.0",
    ]


def test_a_file_that_cannot_be_written_is_named(andon: Andon, tmp_path: Path, images: Path, maps: Path) -> None:
    (tmp_path / "file").write_text("")
    done = andon("evaluate", "--maps", maps, "--data", images, "-o", tmp_path / "file" / "x.json", code=2)
    assert "cannot be written" in done.stderr


def test_an_unknown_interpolation_is_refused_with_those_there_are(andon: Andon, images: Path, maps: Path) -> None:
    done = andon("evaluate", "--maps", maps, "--data", images, "--interpolation", "nearest", code=2)
    assert "bicubic" in done.stderr
    assert "bilinear" in done.stderr
