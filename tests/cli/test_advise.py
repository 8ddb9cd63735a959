"""``andon advise``."""

from __future__ import annotations

import json
import shlex
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from andon.inspection import load_inspector, parse_candidate
from andon.inspection.advising import advice as room
from tests.cli.conftest import Andon
from tests.inspection.parts import save_parts


@pytest.fixture(autouse=True)
def _small_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "DEFAULT", parse_candidate("thumbnail-nn"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_parts(tmp_path / "seal", range(12))
    save_parts(tmp_path / "bad" / "spot", range(100, 110), defect=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_to_run_next_comes_first_and_works(andon: Andon, folder: Path) -> None:
    done = andon("advise", "seal", "--candidates", "thumbnail-nn@64,thumbnail-nn@32", "--json", "advice.json")
    lines = done.stdout.splitlines()
    assert lines[0] == "the default is kept: thumbnail-nn"
    assert lines[1].strip() == "andon train seal --out part.andon --method thumbnail-nn"
    assert max(map(len, lines)) <= 80
    assert "only synthetic evidence exists" in done.stdout.replace("\n  ", " ")
    assert "12 good images can promise a false-alarm rate down to 7.7 %; 1 % needs 99" in done.stdout
    kept = json.loads((folder / "advice.json").read_text())
    assert kept["command"] == lines[1].strip()
    assert kept["recommended"]["worth_trying"] is None
    assert [row["candidate"] for row in kept["candidates"]] == ["thumbnail-nn", "thumbnail-nn@64", "thumbnail-nn@32"]
    andon(*shlex.split(kept["command"])[1:])
    assert load_inspector(folder / "part.andon").provenance.method == "thumbnail-nn"


def test_real_defects_are_counted_and_the_choice_can_be_trained(andon: Andon, folder: Path) -> None:
    options = ("--candidates", "thumbnail-nn@64", "--train", "seal.andon", "--seed", "2")
    done = andon("advise", "seal", "--defective", "bad", *options)
    assert "synthetic defects and 10 real" in done.stdout
    assert max(map(len, done.stdout.splitlines()[:-2])) <= 80
    assert "andon train seal --out seal.andon --method thumbnail-nn --seed 2" in done.stdout
    assert load_inspector(folder / "seal.andon").provenance.size == (72, 96)


def test_what_synthetic_defects_point_to_has_its_command(andon: Andon, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "bare").mkdir()
    for i in range(40):
        image = np.full((96, 96, 3), 120 + 60 * (i % 2)) + rng.normal(0, 3, (96, 96, 3))
        image[40:60, 40:60] = rng.integers(0, 2) * 200
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / "bare" / f"{i:02d}.png")
    done = andon("advise", tmp_path / "bare", "--candidates", "patchcore@128", "--train", tmp_path / "it.andon")
    assert done.stdout.startswith("the default is kept: thumbnail-nn")
    assert f"{tmp_path}/it-2.andon --set 'transform.size=[128,128]'" in done.stdout
    assert load_inspector(tmp_path / "it.andon").provenance.method == "thumbnail-nn"


def test_images_by_name(andon: Andon, folder: Path) -> None:
    names = sorted(str(path.relative_to(folder)) for path in (folder / "seal").iterdir())
    done = andon("advise", *names, "--candidates", "thumbnail-nn")
    assert "andon train DIR --out part.andon" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["seal", "--candidates", "nothing"], "unknown method 'nothing'"),
        (["seal", "--defective", "nowhere"], "nowhere: there is no such image or folder"),
        (["seal", "--defective", "mixed"], "lies in a folder of good images"),
        (["seal", "--budget", "0"], "budget 0"),
        (["nowhere"], "nowhere"),
        (["few"], "3 good images are too few to advise on; 10 are the least"),
    ],
)
def test_mistakes_are_one_line(andon: Andon, folder: Path, options: list[str], message: str) -> None:
    save_parts(folder / "few", range(3))
    save_parts(folder / "mixed" / "good", range(2))
    done = andon("advise", *options, code=2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_an_interrupt_ends_it_and_leaves_nothing(andon: Andon, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = folder / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    whole = room.measure

    def interrupted(*args: Any, **options: Any) -> Any:
        whole(*args, **options)
        assert list(scratch.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "measure", interrupted)
    done = andon("advise", "seal", "--json", "advice.json", code=130)
    assert done.stderr.startswith("interrupted")
    assert not list(scratch.iterdir())
    assert not (folder / "advice.json").exists()
