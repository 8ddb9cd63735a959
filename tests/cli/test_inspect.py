"""``andon train``, ``inspect``, ``threshold`` and ``explain``."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from andon.inspection import load_inspector
from tests.cli.conftest import Andon
from tests.inspection.parts import save_parts


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    save_parts(folder / "good", range(20))
    save_parts(folder / "fine", range(100, 103))
    save_parts(folder / "bad", range(200, 202), defect=True)
    return folder


@pytest.fixture
def file(andon: Andon, good: Path, tmp_path: Path) -> Path:
    andon("train", good / "good", "--out", tmp_path / "part.andon", "--method", "thumbnail-nn", "--rate", "10%")
    return tmp_path / "part.andon"


def test_from_good_images_to_verdicts(andon: Andon, good: Path, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = andon("inspect", file, good / "bad", "--out", out, code=1)
    assert "2 stop" in done.stdout
    with (out / "results.csv").open() as table:
        assert [row["verdict"] for row in csv.DictReader(table)] == ["stop", "stop"]
    assert len(list(out.glob("*.overlay.png"))) == 2
    andon("threshold", file, "--value", "1e6")
    andon("inspect", file, good / "fine", "--out", tmp_path / "fine", "--no-overlays")
    assert not list((tmp_path / "fine").glob("*.png"))
    (good / "fine" / "x.png").write_bytes(b"no image")
    done = andon("inspect", file, good / "fine", "--out", tmp_path / "again", code=2)
    assert "error" in done.stdout
    (good / "fine" / "x.png").unlink()


def test_training_says_what_it_promises(andon: Andon, good: Path, tmp_path: Path) -> None:
    options = ("--method", "thumbnail-nn", "--second-day", good / "fine", "--roi", "5,5,80,60", "--look", "off")
    done = andon("train", good / "good", "--out", tmp_path / "p.andon", *options)
    assert "0 of your 20 good parts would have stopped (between 0 % and 17 % on the line)" in done.stdout
    assert "cannot promise less than 1/21 (4.8 %); 99 would do for 1 %" in done.stdout
    assert "another day (fine)" in done.stdout
    assert load_inspector(tmp_path / "p.andon").regions.mask is not None


def test_a_rate_that_so_few_cannot_promise(andon: Andon, good: Path, tmp_path: Path) -> None:
    done = andon("train", good / "good", "--out", tmp_path / "p.andon", "-m", "thumbnail-nn", "--rate", "1%", code=2)
    assert done.stderr == "error: rate 1 %: 20 good images cannot promise less than 1/21 (4.8 %); 99 would do\n"
    assert not (tmp_path / "p.andon").exists()


def test_thresholds_are_shown_and_moved(andon: Andon, file: Path, tmp_path: Path) -> None:
    before = load_inspector(file)
    assert f"stop above {before.thresholds.stop:.4g}: at this threshold 1 of your 20" in andon("threshold", file).stdout
    andon("threshold", file, "--rate", "20%", "--look", "0.4", "--out", tmp_path / "moved.andon")
    moved = load_inspector(tmp_path / "moved.andon")
    assert moved.thresholds == before.moved(rate=0.2, look=0.4).thresholds
    assert load_inspector(file).thresholds == before.thresholds
    andon("threshold", file, "--value", "12.5", "--look", "off")
    after = load_inspector(file)
    assert (after.thresholds.look, after.thresholds.stop) == (12.5, 12.5)
    assert "not by both" in andon("threshold", file, "--value", "1", "--rate", "10%", code=2).stderr
    assert "expected a part" in andon("threshold", file, "--rate", "ten", code=2).stderr
    assert "99 would do" in andon("threshold", file, "--rate", "1%", code=2).stderr


def test_aligned_parts(andon: Andon, good: Path, tmp_path: Path) -> None:
    aligned = tmp_path / "a.andon"
    andon("train", good / "good", "-o", aligned, "-m", "thumbnail-nn", "--align", "22,17,52,38", "--rotation", "5")
    inspector = load_inspector(aligned)
    assert inspector.alignment is not None
    assert inspector.alignment.rotation == 5
    done = andon("train", good / "good", "-o", aligned, "-m", "thumbnail-nn", "--align", "22,17", code=2)
    assert "expected auto" in done.stderr


def test_explanations(andon: Andon, good: Path, file: Path) -> None:
    shown = andon("explain", file, good / "good" / "0003.png").stdout
    assert "0003.png" in shown
    assert "the nearest good images" in shown


def test_mistakes_are_one_line(andon: Andon, good: Path, file: Path, tmp_path: Path) -> None:
    for arguments, match in (
        (("inspect", file, tmp_path / "none"), "no such image"),
        (("inspect", file), "give images to inspect"),
        (("inspect", file, good / "bad", "--watch", good), "one of them"),
        (("inspect", good / "bad" / "0200.png", good / "bad"), "is not an inspector's file"),
        (("explain", file, tmp_path / "none.png"), "no such file"),
        (("train", tmp_path / "none", "--out", tmp_path / "x"), "no such folder"),
        (("threshold", file, "--out", tmp_path / "x"), "give a threshold"),
    ):
        done = andon(*arguments, code=2)
        assert match in done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
