"""Detectors of other images on the extractor that was adapted to all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from andon.core import ImageArray
from andon.data import Images
from andon.features import AndonFeatures
from andon.methods import create_method, fitted_again

OPTIONS: dict[str, Any] = {"transform": {"size": (64, 64)}}


def images(n: int, seed: int = 0) -> list[ImageArray]:
    rng = np.random.default_rng(seed)
    ground = rng.integers(80, 160, (8, 8, 3)).repeat(8, 0).repeat(8, 1)
    return [(ground + rng.normal(0, 6, ground.shape)).clip(0, 255).astype(np.uint8) for _ in range(n)]


@pytest.mark.parametrize("name", ["patchcore", "padim", "positional-gaussians"])
def test_the_extractor_is_not_adapted_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Images(images(6))
    method = create_method(name, OPTIONS, preset="designed")
    detector = method.fit(shown, seed=0)

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("adapted again")

    monkeypatch.setattr(AndonFeatures, "adapt", refused)
    again = fitted_again(method, detector, shown.subset(range(3)), seed=0)
    assert again.report.n_train == 3
    assert again.report.weights == detector.report.weights
    assert again.extractor.fingerprint == detector.extractor.fingerprint  # type: ignore[union-attr, operator]
    same = fitted_again(method, detector, shown, seed=0).predict(shown.items[:2])
    np.testing.assert_array_equal(same.image_scores, detector.predict(shown.items[:2]).image_scores)


def test_the_recipe_itself_is_not_changed() -> None:
    shown = Images(images(4))
    method = create_method("padim", OPTIONS, preset="designed")
    extractor = method.extractor  # type: ignore[attr-defined]
    fitted_again(method, method.fit(shown, seed=0), shown, seed=0)
    assert method.extractor is extractor  # type: ignore[attr-defined]


def test_a_method_without_an_extractor_is_fitted_as_it_is() -> None:
    shown = Images(images(5))
    method = create_method("thumbnail-nn")
    again = fitted_again(method, method.fit(shown, seed=0), shown.subset([0, 1]), seed=0)
    expected = method.fit(shown.subset([0, 1]), seed=0)
    np.testing.assert_array_equal(again.predict(shown.items).image_scores, expected.predict(shown.items).image_scores)
