"""``andon update``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from andon.inspection import InspectorFile, load_inspector
from tests.cli.conftest import Andon
from tests.inspection.parts import part, save_parts


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    save_parts(folder / "good", range(20))
    save_parts(folder / "new", range(100, 108))
    save_parts(folder / "bad", range(200, 203), defect=True)
    save_parts(folder / "mixed", range(100, 108))
    Image.fromarray(part(203, defect=True)).save(folder / "mixed" / "wrong.png")
    return folder


@pytest.fixture
def file(andon: Andon, parts: Path, tmp_path: Path) -> Path:
    andon("train", parts / "good", "--out", tmp_path / "part.andon", "--method", "thumbnail-nn", "--rate", "10%")
    return tmp_path / "part.andon"


def test_shown_accepted_listed_and_put_back(andon: Andon, parts: Path, file: Path) -> None:
    first = file.read_bytes()
    for extra in ((), ("--dry-run",)):
        done = andon("update", file, "--good", parts / "new", "--defective", parts / "bad", *extra)
        assert "8 good images added; 0 left out" in done.stdout
        assert "recorded defects (3): 3 stop → 3 stop" in done.stdout
        assert "nothing was written" in done.stdout
        assert file.read_bytes() == first
    done = andon("update", file, "--good", parts / "new", "--training", parts / "good", "--accept")
    assert "--roll-back puts it back" in done.stdout
    fingerprint = InspectorFile.read(file).fingerprint
    assert f"fingerprint {fingerprint}" in done.stdout
    assert load_inspector(file).detector.report.n_train == 28
    listed = andon("update", file, "--versions").stdout.splitlines()
    assert len(listed) == 3
    assert "0001-" in listed[1]
    assert listed[2].startswith(fingerprint)
    done = andon("update", file, "--roll-back")
    assert "byte for byte" in done.stdout
    assert file.read_bytes() == first
    andon("update", file, "--roll-back", "--to", fingerprint)
    assert InspectorFile.read(file).fingerprint == fingerprint


def test_into_another_file(andon: Andon, parts: Path, file: Path, tmp_path: Path) -> None:
    first = file.read_bytes()
    andon("update", file, "--good", parts / "new", "--out", tmp_path / "other.andon", "--yes")
    assert file.read_bytes() == first
    assert load_inspector(tmp_path / "other.andon").detector.report.n_train == 28
    assert not list(tmp_path.glob("*.versions"))


def test_a_defect_among_the_new_images(andon: Andon, parts: Path, file: Path) -> None:
    done = andon("update", file, "--good", parts / "mixed", "--defective", parts / "bad", "--dry-run")
    assert "wrong.png" in done.stdout
    assert "far above all good ones" in done.stdout
    assert not done.stderr
    options = ("--include-outliers", "--dry-run")
    done = andon("update", file, "--good", parts / "mixed", "--defective", parts / "bad", *options, code=1)
    assert done.stderr.count("would PASS") == 3


def test_recalibrated_and_kept_thresholds(andon: Andon, parts: Path, file: Path) -> None:
    before = load_inspector(file)
    done = andon("update", file, "--good", parts / "new", "--recalibrate", "--keep-thresholds", "-y")
    assert "8 good images scored, not learned" in done.stdout
    after = load_inspector(file)
    assert after.detector.report.n_train == 20
    assert after.thresholds == before.thresholds
    np.testing.assert_array_equal(after.calibration.scores[:20], before.calibration.scores)


def test_on_a_terminal_it_asks(andon: Andon, parts: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from andon.cli import update

    for answer in (False, True):
        monkeypatch.setattr(update, "_confirmed", lambda answer=answer: answer)
        done = andon("update", file, "--good", parts / "new")
        assert ("nothing was written" in done.stdout) != answer
    assert load_inspector(file).detector.report.n_train == 28


def test_mistakes_are_one_line(andon: Andon, parts: Path, file: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_bytes(b"no image")
    for arguments, match in (
        ((file,), "give new images with --good"),
        ((file, "--good", parts / "new", "--versions"), "one of them"),
        ((file, "--good", parts / "new", "--to", "x"), "goes with --roll-back"),
        ((file, "--good", parts / "new", "--accept", "--dry-run"), "give one of them"),
        ((file, "--good", tmp_path / "none"), "no such image"),
        ((file, "--good", tmp_path / "broken"), "x.png"),
        ((file, "--good", parts / "good"), "in the file already, and 19 more"),
        ((file, "--good", parts / "new", "--training", parts / "new"), "20 of the 20 images"),
        ((file, "--roll-back"), "was never updated"),
        ((file, "--roll-back", "--to", "0" * 12), "there are: none"),
        ((parts / "new" / "0100.png", "--good", parts / "new"), "is not an inspector's file"),
    ):
        done = andon("update", *arguments, code=2)
        assert match in done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
