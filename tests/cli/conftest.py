"""The command as a user gives it, and images to run it on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from andon.cli.main import main


@dataclass(frozen=True)
class Done:
    """What a command printed."""

    stdout: str
    stderr: str


Andon = Callable[..., Done]


@pytest.fixture
def andon(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Andon:
    """``andon("bench", "plans", code=0)``: runs the entry point here, where it finds neither terminal nor process."""

    def run(*args: str | Path, code: int = 0) -> Done:
        monkeypatch.setattr(sys, "argv", ["andon", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        shown = capsys.readouterr()
        assert end.value.code == code, f"exit code {end.value.code}\n{shown.out}\n{shown.err}"
        return Done(shown.out, shown.err)

    return run


@pytest.fixture(scope="package")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve good images and four with a bright square, with masks, in MVTec AD's layout."""
    root = tmp_path_factory.mktemp("images") / "tiles"
    rng = np.random.default_rng(0)

    def save(rel: str, array: np.ndarray) -> None:
        path = root / rel
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)

    def good() -> np.ndarray:
        return rng.normal(100, 6, (96, 80, 3)).clip(0, 255).astype(np.uint8)

    for i in range(8):
        save(f"train/good/{i:03d}.png", good())
    for i in range(4):
        save(f"test/good/{i:03d}.png", good())
        bad, mask = good(), np.zeros((96, 80), np.uint8)
        mask[20:44, 10 + 8 * i : 34 + 8 * i] = 255
        bad[mask > 0] = 240
        save(f"test/spot/{i:03d}.png", bad)
        save(f"ground_truth/spot/{i:03d}_mask.png", mask)
    return root
