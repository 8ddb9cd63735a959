"""``andon weights`` and ``andon pretrain`` as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from andon.weights.resolution import PUBLISHED


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    caches = {name: str(tmp_path / name) for name in ("ANDON_CACHE", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE")}
    return {**os.environ, **caches, "COLUMNS": "200"}


def andon(environment: dict[str, str], *args: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "andon", *map(str, args)], capture_output=True, text=True, env=environment, timeout=240
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def test_list_names_every_part(environment: dict[str, str]) -> None:
    rows = json.loads(andon(environment, "weights", "list", "--format", "json").stdout)
    assert {(row["part"], row["name"]) for row in rows} == {("andon-features", "embedded"), *PUBLISHED}
    for row in rows:
        assert len(row["sha256"]) == 64
        assert row["source"] == ("embedded" if row["name"] == "embedded" else None), "the caches are empty"
    table = andon(environment, "weights", "list", "wide_resnet50_2").stdout
    assert "racm_in1k" in table
    assert "resnet18" not in table


def test_verify_and_where(environment: dict[str, str], tmp_path: Path) -> None:
    whole = andon(environment, "weights", "verify").stdout
    assert "whole andon-features embedded" in whole
    missing = andon(environment, "weights", "verify", "resnet34", code=2)
    assert "wrong resnet34 tv_in1k" in missing.stderr
    assert "are not on this machine; get them from https://download.pytorch.org" in missing.stderr

    cache = Path(andon(environment, "weights", "where").stdout.strip())
    assert cache == tmp_path / "ANDON_CACHE" / "weights"
    cache.mkdir(parents=True)
    (cache / "resnet34-b627a593.pth").write_bytes(b"half a file")
    where = andon(environment, "weights", "where", "resnet34").stdout
    assert f"tv_in1k  cache  there  {cache / 'resnet34-b627a593.pth'}" in where
    damaged = andon(environment, "weights", "verify", code=2)
    assert "resnet34-b627a593.pth: SHA-256 is" in damaged.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("weights", "list", "vgg"), "unknown part 'vgg'"),
        (("weights", "list", "--format", "xml"), "--format must be table or json"),
        (("weights", "fetch", "resnet18", "x"), "part resnet18 has no weights 'x'"),
        (("pretrain", "efficientad-teacher", "t.safetensors", "--size", "tiny"), "option 'size'"),
        (("pretrain", "dsr-codebook", "t.pth"), "t.pth: weights are written as .safetensors"),
        (("pretrain", "backbone", "t.safetensors", "-p", "nowhere"), "nowhere: there is no such folder of images"),
    ],
)
def test_mistakes_are_one_line(environment: dict[str, str], args: tuple[str, ...], message: str) -> None:
    done = andon(environment, *args, code=2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_pretraining_on_a_folder(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(10):
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    output = tmp_path / "backbone.safetensors"
    command = ("pretrain", "backbone", output, "-p", folder, "--steps", "2", "--batch-size", "4", "--crop", "32")
    done = andon(environment, *command, "--last-stage", "1", "--half")
    assert "2 steps in" in done.stdout
    assert f"wrote {output}, SHA-256" in done.stdout
    again = andon(environment, *command, code=2)
    assert "exists already" in again.stderr
