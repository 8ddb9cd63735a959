from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Andon
from tests.data.preparing.scenes import digest, save, scene


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for number in range(14):
        kind = "stain" if number % 4 == 3 else "good"
        x, y = np.random.default_rng(number).uniform((80, 65), (160, 115)) if number else (120.5, 90.5)
        image = scene(number, x, y, spot=kind == "stain")
        save(tmp_path / "raw" / kind / f"{number}.png", image)
        if kind == "stain":
            mask = np.zeros(image.shape[:2], np.uint8)
            mask[round(y + 12.5) - 8 : round(y + 12.5) + 8, round(x - 11.5) - 8 : round(x - 11.5) + 8] = 255
            (tmp_path / "masks").mkdir(exist_ok=True)
            Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    return tmp_path / "raw"


def prepare(raw: Path, target: Path, *more: str) -> tuple[str, ...]:
    usual = ("--template", "0.png:89,59,64,64", "--crop", "80x76", "--masks", str(raw.parent / "masks"))
    return ("data", "prepare", str(raw), str(target), *usual, *more)


def test_a_dry_run_shows_sheets_and_a_run_makes_the_set(andon: Andon, raw: Path, tmp_path: Path) -> None:
    before = digest(raw)
    shown = andon(*prepare(raw, tmp_path / "set", "--dry-run"))
    assert "nothing was written but the contact sheets" in shown.stdout
    assert not (tmp_path / "set").exists()
    assert (tmp_path / "set-sheets" / "worst-matches.png").is_file()
    made = andon(*prepare(raw, tmp_path / "set", "--saturation", "stain=0.5", "--train", "0.6", "--resize", "40x38"))
    assert f"wrote {tmp_path / 'set'}" in made.stdout.replace("\n", "")
    assert sorted(p.name for p in (tmp_path / "set" / "train" / "good").iterdir()) == [
        f"{n:04d}.png" for n in (0, 1, 2, 4, 5, 6, 8)
    ]
    assert Image.open(tmp_path / "set" / "train" / "good" / "0000.png").size == (40, 38)
    entries = json.loads((tmp_path / "set" / "defects_config.json").read_text())
    assert entries[0]["saturation_threshold"] == 0.5
    assert digest(raw) == before
    andon("data", "info", tmp_path / "set")
    assert "not empty" in andon(*prepare(raw, tmp_path / "set"), code=2).stderr


def test_json_tells_every_image(andon: Andon, raw: Path, tmp_path: Path) -> None:
    (raw / "good" / "20.png").write_bytes(b"no")
    told = json.loads(andon(*prepare(raw, tmp_path / "set", "--dry-run", "--json")).stdout)
    assert len(told["images"]) == 15
    assert told["images"][-1]["rejected"] == "unreadable"
    text = andon(*prepare(raw, tmp_path / "set", "--dry-run")).stdout
    assert "rejected, unreadable: 1" in text
    assert "good/20.png" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--crop", "80"), "--crop '80'"),
        (("--template", "5"), "--template '5'"),
        (("--saturation", "stain"), "--saturation 'stain'"),
        (("--saturation", "hole=0.5"), "no region is called so; there are stain"),
        (("--train", "2"), "train"),
        (("--labels", "nowhere.csv"), "nowhere.csv"),
        (("--order", "nowhere.txt"), "nowhere.txt"),
        (("--template", "x.png:1,2,30,40"), "no raw image is called so"),
        (("--template", "0.png:220,2,30,40"), "is not in good/0.png"),
    ],
)
def test_a_mistake_is_one_line(andon: Andon, raw: Path, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    message = andon(*prepare(raw, tmp_path / "set", *options), code=2).stderr
    assert said in message
    assert len(message.strip().splitlines()) == 1
    assert not (tmp_path / "set").exists()


def test_check_prints_what_is_suspicious_and_writes_a_page(andon: Andon, raw: Path, tmp_path: Path) -> None:
    andon(*prepare(raw, tmp_path / "set"))
    clean = andon("data", "check", str(tmp_path / "set"), "--no-learn")
    assert "near duplicates: none" in clean.stdout
    assert "nothing suspicious" in clean.stdout
    copy = tmp_path / "set" / "test" / "good" / "0099.png"
    copy.write_bytes((tmp_path / "set" / "train" / "good" / "0001.png").read_bytes())
    found = andon("data", "check", tmp_path / "set", "--no-learn", "--html", tmp_path / "page.html", code=1)
    assert "train/good/0001 and test/good/0099" in found.stdout
    assert "between training and test" in found.stdout
    assert max(map(len, found.stdout.splitlines())) <= 160
    assert "<h1>set</h1>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    told = json.loads(andon("data", "check", tmp_path / "set", "--no-learn", "--json", code=1).stdout)
    assert told[0]["near_duplicates"][0]["leak"] is True
    wrong = andon("data", "check", tmp_path / "set", "--no-learn", "--html", tmp_path / "page.txt", code=2)
    assert "*.html" in wrong.stderr
