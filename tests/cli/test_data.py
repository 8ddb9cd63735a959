"""``andon data``."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from tests.cli.conftest import Andon
from tests.data.sets import miniatures
from tests.data.sets.miniatures import written, zipped


def test_info_counts_and_finds_nothing_wrong(andon: Andon, images: Path) -> None:
    text = andon("data", "info", images).stdout
    assert "80 × 96" in text
    assert "no inconsistency found" in text


def test_info_ends_with_1_when_an_image_cannot_be_read(andon: Andon, tmp_path: Path, images: Path) -> None:
    (tmp_path / "train" / "good").mkdir(parents=True)
    Image.open(images / "train" / "good" / "000.png").save(tmp_path / "train" / "good" / "000.png")
    (tmp_path / "test" / "good").mkdir(parents=True)
    (tmp_path / "test" / "good" / "001.png").write_bytes(b"not an image")
    assert "001.png" in andon("data", "info", tmp_path, code=1).stdout


def damaged(root: Path, images: Path, count: int) -> Path:
    """A category whose good test images cannot be read."""
    (root / "train/good").mkdir(parents=True)
    Image.open(images / "train/good/000.png").save(root / "train/good/000.png")
    (root / "test/good").mkdir(parents=True)
    for i in range(count):
        (root / f"test/good/{i:03d}.png").write_bytes(b"not an image")
    return root


def test_info_names_the_first_of_each_kind_and_counts_the_rest(andon: Andon, tmp_path: Path, images: Path) -> None:
    root = damaged(tmp_path / "a", images, 50)
    text = andon("data", "info", root, code=1).stdout
    assert text.count("not an image of a known kind") == 3
    assert "… and 47 more of this kind (unreadable-image)" in text
    assert "50 errors" in text
    every = andon("data", "info", root, "--all", code=1).stdout
    assert every.count("not an image of a known kind") == 50
    found = json.loads(andon("data", "info", root, "--json", code=1).stdout)
    assert len([p for p in found["problems"] if p["kind"] == "unreadable-image"]) == 50
    assert found["counts"]["error"] == 50


def test_synth_writes_a_data_set_that_info_finds_whole(andon: Andon, tmp_path: Path) -> None:
    line = tmp_path / "line"
    andon(
        "data",
        "synth",
        line,
        "-t",
        "pipe_clip",
        "--count",
        "2,1,2",
        "--jobs",
        "1",
        "--knob",
        "light=2",
        "-k",
        "modes=null",
    )
    assert "no inconsistency found" in andon("data", "info", line).stdout


def test_info_of_a_published_set_says_what_is_printed_and_what_its_archive_holds(andon: Andon, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "pipe_staple.zip", miniatures.autovi())
    text = andon("data", "info", archive).stdout
    assert "split: the owner's train and test" in text
    assert "198 + 199 + 127" in text
    assert "191 + 188 + 117" in text
    found = json.loads(andon("data", "info", archive, "--json").stdout)
    assert found["published"]["name"] == "autovi"
    assert found["rule"].startswith("the owner's train and test")


def test_info_of_a_set_without_good_images(andon: Andon, tmp_path: Path) -> None:
    root = written(tmp_path / "NEU", miniatures.neu_flat())
    text = " ".join(andon("data", "info", root, code=1).stdout.split())
    assert "there is no good image: nothing can be learnt or judged" in text


def test_fetch_lists_says_where_and_takes_files(andon: Andon, tmp_path: Path) -> None:
    listed = andon("data", "fetch").stdout
    assert "mvtec-loco" in listed
    said = andon("data", "fetch", "mvtec-ad", "--out", tmp_path / "x", code=2)
    assert "CC BY-NC-SA 4.0" in said.stdout
    assert "https://www.mvtec.com" in said.stderr
    archive = zipped(tmp_path / "KolektorSDD2.zip", miniatures.ksdd2())
    text = andon("data", "fetch", "ksdd2", "--from", archive, "--out", tmp_path / "here").stdout
    assert "8 images in 1 categories" in text
    assert "3 " in andon("data", "info", tmp_path / "here").stdout
    assert "no published data set" in andon("data", "fetch", "coco", code=2).stderr
