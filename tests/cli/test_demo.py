"""``andon demo --real``: the package's images become a data set; what is missing is said."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from andon.cli import demo as module
from andon.core import ConfigError, DataError
from andon.data import load_dataset


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small stand-in for the installed package's data."""
    source = tmp_path / "package"
    (source / "images").mkdir(parents=True)
    lines, rng = [], np.random.default_rng(0)
    for kind in ("mono", "poly"):
        for number in range(14):
            name = f"images/{kind}{number}.png"
            Image.fromarray(rng.integers(90, 110, (32, 32), np.uint8)).save(source / name)
            lines.append(f"{name}  {float(number > 9)}  {kind}")
    (source / "labels.csv").write_text("\n".join(lines))
    return source


def test_real_images_are_written_once_with_their_licence(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("andon.data.elpv.elpv_folder", lambda: package)
    monkeypatch.setattr("andon.data.elpv_folder", lambda: package, raising=False)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("nothing is to be installed"))
    images = tmp_path / "demo" / "data"
    module._real_images(images, seed=0)
    text = capsys.readouterr().out
    assert "CC BY-NC-SA 4.0" in text
    assert "elpv_mono: 8 good images to learn from, 2 good and 4 defective ones to judge" in text
    dataset = load_dataset(images)
    assert list(dataset.categories) == ["elpv_mono", "elpv_poly"]
    module._real_images(images, seed=0)
    assert "there already" in capsys.readouterr().out


def test_only_the_package_is_installed_and_a_failure_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr("andon.data.elpv_folder", lambda: None, raising=False)
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DataError, match="pip install --no-deps elpv-dataset"):
        module._real_images(tmp_path / "data", seed=0)
    (command,) = commands
    assert command[1:] == ["-m", "pip", "install", "--quiet", "--no-deps", "elpv-dataset"]
    assert not (tmp_path / "data").exists()


def test_an_option_of_rendered_images_is_not_ignored_on_real_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--count is of rendered images"):
        module.demo(tmp_path / "demo", count="full", real=True)
    assert not (tmp_path / "demo").exists()
