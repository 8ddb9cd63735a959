from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from andon.core import Category
from andon.data import load_dataset
from andon.inspection import DataCheck, check_category
from andon.inspection.checking import _oddness
from andon.methods import create_method
from andon.report import write_check
from tests.inspection.parts import part

N = 48
MISLABELLED = (5, 19, 33, 40)
BLURRED = (12, 27)
COPIES = {30: 8, 44: 21}
"""Number of a copy: what it is a copy of."""


def image_of(number: int) -> np.ndarray:
    if number in COPIES:
        return np.clip(image_of(COPIES[number]) * 1.04 + 2, 0, 255).astype(np.uint8)
    rng = np.random.default_rng(700 + number)
    moved = (float(rng.normal(0, 0.8)), float(rng.normal(0, 0.8)))
    image = part(number, defect=number in MISLABELLED, shift=moved)
    return cv2.GaussianBlur(image, (0, 0), 2.0) if number in BLURRED else image


@pytest.fixture(scope="module")
def category(tmp_path_factory: pytest.TempPathFactory) -> Category:
    folder = tmp_path_factory.mktemp("line") / "plate"
    for kind, numbers in (("train/good", range(N)), ("test/good", range(N, N + 4)), ("test/hole", range(N + 4, N + 6))):
        (folder / kind).mkdir(parents=True)
        for number in numbers:
            Image.fromarray(image_of(number)).save(folder / kind / f"{number:03d}.png")
    Image.fromarray(image_of(3)).save(folder / "test/good/900.jpg", quality=98)
    (folder / "test/good/901.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    return next(iter(load_dataset(folder, layout="mvtec")))


@pytest.fixture(scope="module")
def checked(category: Category) -> DataCheck:
    small = {"coreset": "random", "transform": {"size": [128, 128], "crop": None}}
    method = create_method("patchcore", small)
    return check_category(category, method=method)


def numbers(checked: DataCheck, images: tuple[int, ...]) -> set[int]:
    return {int(checked.images[i].sample.path.stem) for i in images}


def test_planted_images_of_each_kind_are_reported_and_at_most_one_other(checked: DataCheck) -> None:
    assert numbers(checked, checked.blurred) == set(BLURRED)
    outliers = numbers(checked, checked.outliers)
    assert outliers >= set(MISLABELLED)
    assert len(outliers) <= len(MISLABELLED) + 1
    ranked = [int(checked.images[i].sample.path.stem) for i in checked.outliers]
    assert set(ranked[: len(MISLABELLED)]) == set(MISLABELLED)
    pairs = {tuple(sorted(numbers(checked, pair[:2]))) for pair in checked.duplicates}
    assert pairs == {(8, 30), (21, 44), (3, 900)}
    assert [numbers(checked, pair[:2]) for pair in checked.leaks] == [{3, 900}]
    ((name, reason),) = checked.unreadable
    assert name == "test/good/901"
    assert "901.png" in reason
    assert checked.suspicious
    assert len(checked.modes) == 1
    assert len(checked.modes[0].images) == N - len(BLURRED)


def test_it_is_json_and_a_page(checked: DataCheck, tmp_path: Path) -> None:
    told = json.loads(json.dumps(checked.as_dict()))
    assert len(told["images"]) == N + 4 + 2 + 1
    assert {Path(name).name for name in told["outliers"]} >= {f"{n:03d}" for n in MISLABELLED}
    assert [pair["leak"] for pair in told["near_duplicates"]].count(True) == 1
    page = write_check([checked], "line", tmp_path / "check.html").read_text(encoding="utf-8")
    for number in (*MISLABELLED, *BLURRED, *COPIES):
        assert f"train/good/{number:03d}" in page
    assert "test/good/901" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert page.count("data:image/jpeg;base64,") >= len(MISLABELLED) + len(BLURRED) + 6


def test_without_learning_nothing_is_scored_and_few_images_are_told(category: Category, tmp_path: Path) -> None:
    plain = check_category(category, learn=False)
    assert plain.modes == ()
    assert plain.outliers == ()
    assert all(image.outlier is None for image in plain.images)
    assert len(plain.duplicates) == 3
    few = Category(category.name, category.dataset, category.root, category.samples[:6])
    assert "not looked for in 6 good training images" in check_category(few).notes[0]


def test_drift_over_the_shooting_order_is_told(tmp_path: Path) -> None:
    for number in range(30):
        darker = np.clip(part(number).astype(float) - number, 0, 255).astype(np.uint8)
        Image.fromarray(darker).save(tmp_path / f"{number:02d}.png")
    found = check_category(next(iter(load_dataset(tmp_path))), learn=False)
    exposure = found.drifts[0]
    assert exposure.sentence.startswith("drift was seen")
    assert exposure.value == pytest.approx(-29, abs=3)


def test_a_small_change_where_nothing_changes_counts_more_than_a_large_one_in_motion() -> None:
    rng = np.random.default_rng(0)
    cells = np.exp(rng.normal(0, [[0.05] * 60 + [0.6] * 60], (80, 120)))
    cells[7, :12] *= np.exp(0.5)
    cells[9, 60:72] *= np.exp(0.5)
    found = _oddness(cells)
    assert found.argmax() == 7
    assert found[7] > 5
    assert found[9] < 3


def test_copies_of_other_images_score_zero_and_break_nothing() -> None:
    cells = np.ones((30, 50))
    cells[4] = 0
    assert np.isfinite(_oddness(cells)).all()
