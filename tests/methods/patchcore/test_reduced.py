"""Patchcore on reduced layers: what is in the bank, what is saved, and what later images meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from sklearn.decomposition import PCA

from andon.core import ConfigError, DetectorError
from andon.data import Images
from andon.features import ReducedExtractor, create_extractor
from andon.inspection.cross_fitting import cross_fitted
from andon.methods import create_method, detector_with, load
from andon.methods.patchcore import PatchcoreConfig, PatchcoreDetector
from andon.methods.patchcore.embedding import embed, patch_parts

from .test_patchcore import RESNET, good_images

OPTIONS: dict[str, Any] = {**RESNET, "layers": ("layer1", "layer2"), "grid_stride": 8, "sigma": 0}


def reduced(n: int, dimensions: int | None = 12, **options: Any) -> PatchcoreDetector:
    detector = create_method("patchcore", {**OPTIONS, "dimensions": dimensions, **options}).fit(good_images(n), seed=0)
    assert isinstance(detector, PatchcoreDetector)
    return detector


def test_distances_are_those_of_scikit_learns_principal_components() -> None:
    train, tested = good_images(6), good_images(3, seed=1)
    options = {**OPTIONS, "dimensions": 12, "coreset": "none", "patch_size": 1, "image_score": "max"}
    method = create_method("patchcore", options)
    detector = method.fit(train, seed=0)
    base = create_extractor("resnet18", ("layer1", "layer2"), "random")

    def rows(images: list[Any]) -> list[torch.Tensor]:
        return [f.double() for f in base(method.config.transform.normalise(np.stack(images)))]

    known, asked = [], []
    for learned, seen in zip(rows(train), rows(tested), strict=True):
        flat = learned.permute(0, 2, 3, 1).flatten(0, 2).numpy()
        pca = PCA(12, svd_solver="full").fit(flat)

        def kept(maps: torch.Tensor, pca: PCA = pca) -> torch.Tensor:
            shape = maps.permute(0, 2, 3, 1)
            found = torch.from_numpy(pca.transform(shape.flatten(0, 2).numpy()))
            maps = found.view(*shape.shape[:3], 12).permute(0, 3, 1, 2)
            return F.adaptive_avg_pool2d(maps, 8)

        known.append(kept(learned))
        asked.append(kept(seen))
    bank, queries = (torch.cat(part, dim=1).permute(0, 2, 3, 1).flatten(0, 2).numpy() for part in (known, asked))
    expected = cKDTree(bank).query(queries)[0].reshape(3, -1).max(axis=1)
    np.testing.assert_allclose(detector.predict(tested).image_scores, expected, rtol=0.03)


def test_layers_on_the_same_grid_are_one_part_with_the_same_embedding() -> None:
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(2, c, n, n, generator=generator) for c, n in ((3, 16), (4, 4), (5, 8))]
    config = PatchcoreConfig(**{**OPTIONS, "layers": ("layer1", "layer2", "layer3")})
    parts = patch_parts(config, features)
    assert [tuple(part.shape[1:]) for part in parts] == [(8, 8, 8), (4, 4, 4)]
    averaged = [F.avg_pool2d(f, 3, 1, 1) for f in features]
    one = torch.cat([F.adaptive_avg_pool2d(averaged[0], 8), averaged[2]], dim=1)
    other = F.interpolate(averaged[1], size=(8, 8), mode="bilinear", align_corners=False)
    expected = torch.cat([one, other], dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(embed(parts), expected)


def test_the_bank_has_the_kept_dimensions_and_the_report_says_so() -> None:
    detector = reduced(3)
    assert detector.bank.centred.shape[1] == 24
    assert isinstance(detector.extractor, ReducedExtractor)
    assert any("features reduced to 12 of 64 and 12 of 128 dimensions" in note for note in detector.report.notes)
    assert not any("reduced" in note for note in reduced(3, dimensions=None).report.notes)
    assert "adaptation" in detector.report.seconds


@pytest.mark.parametrize("dimensions", [12, 100])  # layer1 has 64 channels: it stays as it is among 100
def test_saved_and_loaded_it_gives_the_same_bit_for_bit(dimensions: int, tmp_path: Path) -> None:
    detector = reduced(3, dimensions)
    detector.save(tmp_path / "part.safetensors")
    tested = good_images(2, seed=1)
    again = load(tmp_path / "part.safetensors").predict(tested)
    before = detector.predict(tested)
    assert np.array_equal(before.image_scores, again.image_scores)
    assert np.array_equal(before.anomaly_maps, again.anomaly_maps)  # type: ignore[arg-type]


def test_a_saved_state_without_the_directions_is_refused() -> None:
    detector = reduced(3)
    state = {k: v for k, v in detector.state_dict().items() if "directions" not in k}
    with pytest.raises(DetectorError, match="directions"):
        detector.method.restore(state, detector.report)


def test_more_images_meet_the_directions_that_were_fitted() -> None:
    detector = reduced(4)
    more = detector_with(detector, Images(good_images(3, seed=2)), seed=0)
    assert more is not None
    assert isinstance(more, PatchcoreDetector)
    assert isinstance(more.extractor, ReducedExtractor)
    assert more.extractor.fingerprint == detector.extractor.fingerprint
    assert len(more.bank.centred) > len(detector.bank.centred)


def test_calibration_does_not_fit_the_directions_again(monkeypatch: pytest.MonkeyPatch) -> None:
    images = good_images(6)
    method = create_method("patchcore", {**OPTIONS, "dimensions": 12})
    detector = method.fit(images, seed=0)

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(ReducedExtractor, "adapt", refused)
    assert len(cross_fitted(method, detector, Images(images), n_blocks=3)) == 6


def test_fewer_than_one_dimension_is_refused() -> None:
    with pytest.raises(ConfigError, match="dimensions"):
        create_method("patchcore", {"dimensions": 0})
