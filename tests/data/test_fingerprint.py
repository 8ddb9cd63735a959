from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from andon.core import AndonError, Category
from andon.data.fingerprint import category_fingerprint, file_fingerprint
from andon.data.registry import load_dataset

from .images import CONFIG, autovi, gradient, mask, save


def load(root: Path) -> Category:
    return load_dataset(root)[root.name]


def test_the_place_and_the_times_do_not_matter(tmp_path: Path) -> None:
    root = autovi(tmp_path / "a/wiring")
    before = category_fingerprint(load(root))
    shutil.copytree(root, tmp_path / "b/wiring")
    os.utime(root / "train/good/0000.png", (1, 1))
    (root / "notes.txt").write_text("nothing that anybody reads")
    assert category_fingerprint(load(root)) == before
    assert category_fingerprint(load(tmp_path / "b/wiring")) == before
    (root / "defects_config.json").write_text(json.dumps(CONFIG, indent=4))  # the same entries
    assert category_fingerprint(load(root)) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda root: save(root / "train/good/0001.png", gradient(seed=99)),
        lambda root: save(root / "train/good/0009.png", gradient(seed=99)),
        lambda root: (root / "train/good/0001.png").unlink(),
        lambda root: (root / "train/good/0002.png").rename(root / "train/good/0003.png"),
        lambda root: (root / "train/good/0002.png").rename(root / "test/good/0002.png"),
        lambda root: (root / "test/structural").rename(root / "test/logical"),
        lambda root: save(root / "ground_truth/structural/0001/0000.png", mask(254, 2)),
        lambda root: (root / "ground_truth/structural/0000/0001.png").unlink(),
        lambda root: (root / "defects_config.json").write_text(json.dumps([*CONFIG, {**CONFIG[0], "pixel_value": 9}])),
        lambda root: (root / "defects_config.json").write_text(
            json.dumps([CONFIG[0], {**CONFIG[1], "saturation_threshold": 0.8}])
        ),
    ],
)
def test_every_change_of_substance_matters(change: Callable[[Path], object], tmp_path: Path) -> None:
    root = autovi(tmp_path / "wiring")
    before = category_fingerprint(load(root))
    change(root)
    assert category_fingerprint(load(root)) != before


def test_two_images_exchanged(tmp_path: Path) -> None:
    root = autovi(tmp_path / "wiring")
    before = category_fingerprint(load(root))
    first, second = root / "test/good/0000.png", root / "test/structural/0000.png"
    first.rename(root / "x")
    second.rename(first)
    (root / "x").rename(second)
    assert category_fingerprint(load(root)) != before


def test_another_split_is_another_category(tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / f"p/good/{i}.png", gradient(seed=i))
    save(tmp_path / "p/bad/1.png")
    prints = {category_fingerprint(load_dataset(tmp_path / "p", train_fraction=f)["p"]) for f in (0.5, 0.8, 0.81)}
    assert len(prints) == 2  # 0.8 and 0.81 give the same split


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    root = autovi(tmp_path / "wiring")
    category = load(root)
    (root / "test/good/0001.png").unlink()
    with pytest.raises(AndonError, match=r"test/good/0001\.png: cannot be read"):
        category_fingerprint(category)


def test_progress(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    category_fingerprint(load(autovi(tmp_path / "w")), progress=lambda *call: calls.append(call))
    assert calls == [("fingerprint", i, 10) for i in range(1, 11)]


def test_files_are_read_once_while_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100)
    first = file_fingerprint(path)
    path.write_bytes(b"y" * 100)
    second = file_fingerprint(path)
    assert first != second
    monkeypatch.setattr("builtins.open", lambda *a, **k: pytest.fail("read again"))
    assert file_fingerprint(path) == second
