"""ELPV from its package: labels read as they are written, split by a seeded draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from andon.core import DataError
from andon.data import elpv_cells, load_dataset, write_elpv

LABELS = (
    [("mono", 0.0)] * 10 + [("mono", 1.0)] * 3 + [("poly", 0.0)] * 5 + [("poly", 0.3333333333333333), ("poly", 1.0)]
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "images").mkdir(parents=True)
    lines = []
    for number, (kind, probability) in enumerate(LABELS):
        name = f"images/cell{number:04}.png"
        Image.fromarray(np.full((8, 8), 10 * number, np.uint8)).save(folder / name)
        lines.append(f"{name}  {probability}  {kind}")  # two blanks, as in the package
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_labels(source: Path) -> None:
    cells = elpv_cells(source)
    assert [(cell.kind, cell.probability) for cell in cells] == LABELS
    assert cells[3].path == source / "images" / "cell0003.png"


def test_four_fifths_of_the_good_ones_are_for_training_and_the_unsure_are_left_out(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "data"
    assert write_elpv(source, target) == {"elpv_mono": (8, 2, 3), "elpv_poly": (4, 1, 1)}
    dataset = load_dataset(target)
    mono = dataset["elpv_mono"]
    assert (len(mono.train), len(mono.test), mono.defect_types) == (8, 5, ("defective",))
    order = np.random.default_rng(0).permutation(10)[:8]
    assert [s.path.name for s in mono.train] == [f"cell{i:04}.png" for i in sorted(order)]
    names = [s.path.name for category in dataset.categories.values() for s in category.samples]
    assert len(names) == len(set(names)) == len(LABELS) - 1
    assert not (tmp_path / "data.part").exists()


def test_fewer_are_evenly_spaced(source: Path, tmp_path: Path) -> None:
    assert write_elpv(source, tmp_path / "data", train=3, test=1)["elpv_mono"] == (3, 1, 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("images/cell0000.png 0", "line 1: expected 'file probability kind'"),
        ("images/cell0000.png x mono", "line 1: expected 'file probability kind'"),
        ("images/cell0000.png 2 mono", "line 1: expected mono or poly"),
        ("images/cell0000.png 0 other", "line 1: expected mono or poly"),
        ("images/none.png 0 mono", "there is no image images/none.png"),
        ("../labels.csv 0 mono", "there is no image"),
    ],
)
def test_labels_that_say_nothing(source: Path, line: str, message: str) -> None:
    (source / "labels.csv").write_text(line)
    with pytest.raises(DataError, match=message):
        elpv_cells(source)


def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_kept(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/data: cannot be written"):
        write_elpv(source, tmp_path / "file" / "data")
    target = tmp_path / "full"
    target.mkdir()
    (target / "mine").write_text("")
    with pytest.raises(DataError, match="full: cannot be written"):
        write_elpv(source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full", "source"]
    assert [path.name for path in target.iterdir()] == ["mine"]
