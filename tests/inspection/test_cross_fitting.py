"""Leaving a block out of a detector gives the scores of a detector that was fitted without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from andon.core import TrainingError
from andon.data import ArrayCache, Images
from andon.features import Extractor
from andon.inspection import ConformalCalibration, cross_fitted
from andon.inspection.cross_fitting import refit_without
from andon.methods import FitRun, create_method, detector_without
from andon.methods._gaussians import StreamingGaussian, whitening
from andon.methods.padim.moments import without_vectors
from tests.inspection.parts import SMALL, part

EXACT: list[tuple[str, dict[str, Any], float]] = [
    ("thumbnail-nn", SMALL["thumbnail-nn"], 0.0),
    ("patchcore", SMALL["patchcore"] | {"coreset": "none"}, 1e-5),
    ("patchcore", SMALL["patchcore"] | {"coreset": "none", "image_score": "max"}, 1e-5),
    ("padim", SMALL["padim"], 2e-4),
]


def images(n: int, cache: Path) -> Images:
    return Images([part(seed) for seed in range(n)], ArrayCache(cache))


@pytest.mark.parametrize(("name", "config", "tolerance"), EXACT)
@pytest.mark.parametrize("n_blocks", [3, 12])
def test_left_out_is_fitted_without(
    name: str, config: dict[str, Any], tolerance: float, n_blocks: int, tmp_path: Path
) -> None:
    shown, method = images(12, tmp_path), create_method(name, config)
    detector = method.fit(shown)
    cheap = cross_fitted(method, detector, shown, n_blocks=n_blocks)
    fitted = cross_fitted(method, detector, shown, n_blocks=n_blocks, refit=True)
    assert "anew" not in cheap.how
    assert f"{n_blocks} of {n_blocks} fitted anew" in fitted.how
    for field in ("scores", "map_maxima", "map_medians"):
        np.testing.assert_allclose(getattr(cheap, field), getattr(fitted, field), rtol=tolerance, err_msg=field)
    # Leaving out is no formality: the detector that has seen an image scores it lower.
    assert float(np.median(detector.predict(shown).image_scores)) < float(np.median(cheap.scores))


def test_a_coreset_is_fitted_anew(tmp_path: Path) -> None:
    shown, method = images(6, tmp_path), create_method("patchcore", SMALL["patchcore"])
    detector = method.fit(shown)
    assert detector_without(detector, shown, range(2)) is None
    calibration = cross_fitted(method, detector, shown, n_blocks=3)
    assert "3 of 3 fitted anew" in calibration.how
    by_hand = create_method("patchcore", SMALL["patchcore"]).fit(shown.subset([0, 1, 4, 5]))
    expected = by_hand.predict(shown.subset([2, 3])).image_scores
    np.testing.assert_array_equal(calibration.scores[2:4], expected.astype(np.float64))


def test_images_of_one_colour_are_fitted_anew(tmp_path: Path) -> None:
    shown = Images([*(part(seed) for seed in range(4)), np.full((72, 96, 3), 7, np.uint8)], ArrayCache(tmp_path))
    method = create_method("thumbnail-nn")
    assert detector_without(method.fit(shown), shown, range(1)) is None


def test_features_are_adapted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, method = images(6, tmp_path), create_method("patchcore", SMALL["patchcore"])
    calls = []
    original = Extractor.adapt

    def counted(self: Extractor, *args: Any, **options: Any) -> Extractor:
        calls.append(type(self).__name__)
        return original(self, *args, **options)

    monkeypatch.setattr(Extractor, "adapt", counted)
    detector = method.fit(shown)
    again = refit_without(method, detector, shown, range(2), seed=0, run=FitRun())
    assert calls == ["ResNetExtractor", "FixedExtractor"]
    assert again.extractor.fingerprint == detector.extractor.fingerprint  # so cached features are found


def test_the_blocks_say_nothing_of_other_blocks(tmp_path: Path) -> None:
    """Scores of a block depend on the order in which images were shot, not on what is in the block besides."""
    shown, method = images(9, tmp_path), create_method("thumbnail-nn")
    calibration = cross_fitted(method, method.fit(shown), shown, n_blocks=3)
    by_hand = method.fit(shown.subset([0, 1, 2, 6, 7, 8])).predict(shown.subset([3, 4, 5])).image_scores
    np.testing.assert_array_equal(calibration.scores[3:6], by_hand.astype(np.float64))


def test_too_few_images(tmp_path: Path) -> None:
    shown, method = images(2, tmp_path), create_method("thumbnail-nn")
    with pytest.raises(TrainingError, match="too few to calibrate on; 3 are the least"):
        cross_fitted(method, method.fit(shown), shown)


def test_a_gaussian_without_vectors_is_that_of_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    positions, d, n, epsilon = 5, 6, 15, 0.01
    mixing = torch.randn(d, d, generator=generator)
    vectors = torch.einsum("ij,njp->nip", mixing, torch.randn(n, d, positions, generator=generator)) + 3
    left_out = [2, 3, 4]
    rest = [i for i in range(n) if i not in left_out]

    def fitted(which: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        statistics = StreamingGaussian(positions, d, torch.device("cpu"))
        statistics.update(vectors[which])
        mean = statistics.mean.float()
        return mean, whitening(statistics.covariance_(epsilon).double()).float()

    mean, white = fitted(list(range(n)))
    found = without_vectors(mean, white, n, vectors[left_out], epsilon)
    assert found is not None
    for p in range(positions):
        x = vectors[rest, :, p].double().numpy()
        np.testing.assert_allclose(found[0][p], x.mean(0), rtol=1e-5)
        expected = np.cov(x, rowvar=False) + epsilon * np.eye(d)
        inverse = np.linalg.inv(found[1][p].double().numpy())
        np.testing.assert_allclose(inverse @ inverse.T, expected, rtol=1e-3, atol=1e-4)


def test_a_calibration_without_maps_has_none() -> None:
    assert len(ConformalCalibration.of([1.0, 2.0]).map_maxima) == 0
