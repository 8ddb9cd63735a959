"""``andon data``."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.cli.conftest import Andon


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
