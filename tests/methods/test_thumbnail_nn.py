"""thumbnail-nn against scikit-learn and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

import andon
from andon.core import AndonError
from andon.methods import FitReport, create_method, method_class

MTD = Path(__file__).parents[3] / "shared" / "data" / "mtd"


def noise_images(n: int, seed: int, shape: tuple[int, int] = (60, 70)) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for _ in range(n)]


def thumbnails(images: list[np.ndarray[Any, Any]], standardise: bool) -> np.ndarray[Any, Any]:
    small = [np.asarray(Image.fromarray(i).resize((48, 48), Image.Resampling.BILINEAR), dtype=float) for i in images]
    return np.stack([(i - i.mean()) / i.std() if standardise else i / 255 for i in small])


@pytest.mark.parametrize("standardise", [True, False])
def test_scores_and_maps_are_the_brute_force_ones(standardise: bool) -> None:
    train, test = noise_images(9, 0), noise_images(4, 1)
    detector = create_method("thumbnail-nn", standardise=standardise).fit(train)
    found = detector.predict(test)
    bank, queries = thumbnails(train, standardise), thumbnails(test, standardise)
    distance, index = (
        NearestNeighbors(n_neighbors=1, algorithm="brute").fit(bank.reshape(9, -1)).kneighbors(queries.reshape(4, -1))
    )
    np.testing.assert_allclose(found.image_scores, distance[:, 0], rtol=1e-6)
    expected = np.sqrt(np.square(queries - bank[index[:, 0]]).sum(3))
    assert found.anomaly_maps is not None
    np.testing.assert_allclose(found.anomaly_maps, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.sqrt(np.square(found.anomaly_maps).sum((1, 2))), found.image_scores, rtol=1e-5)


def test_a_known_image_scores_exactly_zero_and_ties_go_to_the_first() -> None:
    a, b = noise_images(2, 3)
    detector = create_method("thumbnail-nn").fit([a, b, a])
    found = detector.predict([b, a])
    assert found.image_scores.tolist() == [0, 0]
    low, high = np.full((48, 48, 3), 100, np.uint8), np.full((48, 48, 3), 104, np.uint8)
    detector = create_method("thumbnail-nn", standardise=False).fit([high, low])
    between = np.full((48, 48, 3), 102, np.uint8)
    between[0, 0] = 104  # nearer to the first by one pixel only
    assert detector.predict([between]).anomaly_maps[0, 0, 0] == 0  # type: ignore[index]


def test_exposure_is_no_defect_and_a_uniform_image_is_no_trouble() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(40, 100, (48, 48, 3), dtype=np.uint8)
    detector = create_method("thumbnail-nn").fit([image])
    assert detector.predict([2 * image + 10]).image_scores[0] < 1e-5
    uniform = detector.predict([np.full((48, 48, 3), 7, np.uint8)]).image_scores[0]
    np.testing.assert_allclose(uniform, 2 * np.sqrt(48 * 48 * 3), rtol=1e-6)


def test_banks_larger_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = noise_images(11, 5), noise_images(3, 6)
    detector = create_method("thumbnail-nn").fit(train)
    whole = detector.predict(test)
    monkeypatch.setattr("andon.methods.thumbnail_nn._BANK_ROWS", 3)
    np.testing.assert_array_equal(detector.predict(test).image_scores, whole.image_scores)


def test_scores_do_not_depend_on_batch_mates_size_or_seed() -> None:
    train, test = noise_images(5, 0), noise_images(4, 1)
    scores = []
    for batch_size, seed in ((1, 0), (3, 1), (32, 2)):
        detector = create_method("thumbnail-nn", batch_size=batch_size).fit(train, seed=seed)
        scores.append(detector.predict(test).image_scores)
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])
    assert not method_class("thumbnail-nn").seeded


@pytest.mark.parametrize(
    "transform",
    [
        {"size": (16, 24), "normalisation": "imagenet"},
        {"size": (32, 20), "crop": (12, 10), "normalisation": "unit"},
    ],
)
def test_other_sizes_crops_and_normalisations(transform: dict[str, Any]) -> None:
    train, test = noise_images(4, 0), noise_images(2, 1)
    detector = create_method("thumbnail-nn", transform=transform, standardise=False).fit(train)
    found = detector.predict(test)
    resized = [np.stack([detector.transform.resize(i) for i in group]).astype(float) / 255 for group in (train, test)]
    distances = np.linalg.norm(resized[1].reshape(2, 1, -1) - resized[0].reshape(1, 4, -1), axis=2)
    np.testing.assert_allclose(found.image_scores, distances.min(1), rtol=1e-6)
    assert found.anomaly_maps is not None
    assert found.anomaly_maps.shape[1:] == detector.transform.output_size
    assert found.region == detector.transform.region


def test_state_and_file_round_trip(tmp_path: Path) -> None:
    detector = create_method("thumbnail-nn").fit(noise_images(4, 0))
    detector.save(tmp_path / "floor.safetensors")
    test = noise_images(2, 1)
    again = create_method("thumbnail-nn").restore(detector.state_dict(), detector.report)
    for other in (again, andon.load(tmp_path / "floor.safetensors")):
        np.testing.assert_array_equal(detector.predict(test).anomaly_maps, other.predict(test).anomaly_maps)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "lacks the tensor thumbnails"),
        ({"thumbnails": torch.zeros(3, 5, dtype=torch.uint8)}, r"thumbnails .* is \[3, 5\], not \[3, 6912\]"),
        ({"thumbnails": torch.zeros(0, 6912, dtype=torch.uint8)}, r"thumbnails .* is \[0, 6912\]"),
        ({"thumbnails": torch.zeros(3, 6912)}, "thumbnails .* torch.float32, not torch.uint8"),
        ({"thumbnails": torch.zeros(3, 6912, dtype=torch.uint8), "x": torch.zeros(1)}, "unknown tensor x"),
    ],
)
def test_a_wrong_state_is_refused(state: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(AndonError, match=message):
        create_method("thumbnail-nn").restore(state, FitReport(1))


def test_without_images() -> None:
    with pytest.raises(AndonError, match="no images"):
        create_method("thumbnail-nn").fit([])


def test_one_image_is_enough() -> None:
    detector = create_method("thumbnail-nn").fit(noise_images(1, 0))
    assert detector.report.n_train == 1
    assert detector.predict(noise_images(2, 0)).image_scores[0] == 0


@pytest.mark.slow
@pytest.mark.skipif(not MTD.is_dir(), reason="the magnetic tiles are not here")
@pytest.mark.parametrize(("standardise", "expected"), [(True, 0.931), (False, 0.582)])
def test_floor_on_real_images(standardise: bool, expected: float) -> None:
    train = sorted((MTD / "train" / "good").iterdir())
    test = sorted(p for p in (MTD / "test").rglob("*") if p.is_file())
    detector = create_method("thumbnail-nn", standardise=standardise).fit(train)
    auroc = roc_auc_score([p.parent.name != "good" for p in test], detector.predict(test).image_scores)
    assert auroc == pytest.approx(expected, abs=0.002)
