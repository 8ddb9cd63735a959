"""What kind of task it is: figures with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from andon.data import Images
from andon.inspection.advising.characterise import (
    Figure,
    _Moments,
    _rank,
    characterise_features,
    characterise_pixels,
    drift,
    modes_of,
)
from andon.methods import create_method
from tests.inspection.parts import SMALL, part

RNG = np.random.default_rng(0)


def _figures(images: list[np.ndarray]) -> dict[str, Figure]:
    return {figure.name: figure for figure in characterise_pixels(images, [image.shape[:2] for image in images])}


def test_each_figure_has_a_unit_and_a_sentence() -> None:
    for figure in _figures([part(i) for i in range(12)]).values():
        assert figure.unit
        assert len(figure.sentence.split()) >= 4


def test_sizes_and_shape() -> None:
    found = _figures([part(0)] * 4)
    assert found["image sizes"].value == 1
    assert found["aspect ratio"].value == pytest.approx(96 / 72)
    found = _figures([part(0), part(1), part(2)[:, :60]])
    assert found["image sizes"].value == 2
    assert "of several shapes" in found["aspect ratio"].sentence


def test_movement_from_one_image_to_the_next() -> None:
    still = _figures([part(i) for i in range(10)])["movement between neighbours"]
    assert still.value == pytest.approx(0, abs=0.2)
    assert "stands still" in still.sentence
    # There and back again by 6 of 96 pixels.
    moved = _figures([part(i, shift=(6.0 * (i % 2), 0.0)) for i in range(10)])["movement between neighbours"]
    assert moved.value == pytest.approx(100 * 6 / 96, rel=0.15)
    noise = [RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(10)]
    unknown = _figures(noise)["movement between neighbours"]
    assert unknown.value is None
    assert unknown.sentence.startswith("no figure")


def test_bare_and_busy_scenes() -> None:
    bare = [np.full((64, 64, 3), 100, np.uint8)] * 3
    busy = [RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(3)]
    assert _figures(bare)["edge density"].value == 0
    assert _figures(busy)["edge density"].value > 50  # type: ignore[operator]
    assert _figures(bare)["entropy of grey values"].value == 0
    halves = np.full((64, 64, 3), 20, np.uint8)
    halves[:, 32:] = 200
    assert _figures([halves])["entropy of grey values"].value == pytest.approx(1, abs=0.2)


def test_drift_is_seen_where_there_is_some() -> None:
    rising = drift(np.arange(40) * 0.5 + RNG.normal(0, 1, 40), "x", "grey levels", "it")
    assert rising.value == pytest.approx(19.5, abs=2)
    assert rising.sentence.startswith("drift was seen")
    assert rising.drifts
    level = drift(RNG.normal(0, 1, 40), "x", "grey levels", "it")
    assert level.sentence.startswith("no drift seen")
    assert not level.drifts
    assert drift([3.0] * 9, "x", "u", "it").value == 0
    dimmer = [np.clip(part(i).astype(int) - 2 * i, 0, 255).astype(np.uint8) for i in range(15)]
    exposure = _figures(dimmer)["exposure drift"]
    assert exposure.value == pytest.approx(-28, abs=2)


def test_moments_are_those_of_all_vectors() -> None:
    flat = torch.tensor(RNG.normal(0, 2, (7, 5, 11)))
    moments = _Moments()
    moments.add(flat[:3])
    moments.add(flat[3:])
    rows = flat.permute(0, 2, 1).reshape(-1, 5).numpy()
    np.testing.assert_allclose(moments.covariance().numpy(), np.cov(rows.T, ddof=0))
    assert float(moments.within()) == pytest.approx(float(flat.var(0, correction=0).sum(0).mean()))


def test_effective_rank() -> None:
    assert _rank(torch.tensor([1.0, 1.0, 1.0, 0.0])).value == pytest.approx(3)
    values = np.array([5.0, 2.0, 1.0])
    assert _rank(torch.tensor(values)).value == pytest.approx(math.exp(stats.entropy(values)))
    assert _rank(torch.zeros(4)).value == 0


def test_the_same_place_looks_alike_or_does_not() -> None:
    def variability(images: list[np.ndarray]) -> float:
        detector = create_method("padim", SMALL["padim"]).fit(images)
        found = {f.name: f for f in characterise_features(detector, Images(images), 0)}  # type: ignore[arg-type]
        assert found["modes of normality"].value == 1
        value = found["variability at a place"].value
        assert value is not None
        return value

    assert variability([part(0)] * 6) == pytest.approx(0, abs=1e-6)
    parts = variability([part(i) for i in range(8)])
    noise = variability([RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(8)])
    assert parts < 25 < 60 < noise


@pytest.mark.parametrize("k", [1, 2, 3])
def test_modes_are_counted(k: int) -> None:
    centres = np.array([[0.0, 0, 0], [8, 0, 0], [0, 9, 0]])[:k]
    for seed in range(5):
        rng = np.random.default_rng(seed)
        points = np.concatenate([centre + rng.normal(0, 1, (20, 3)) for centre in centres])
        assert modes_of(points, seed) == (20,) * k


def test_too_few_or_equal_images_are_one_mode() -> None:
    assert modes_of(np.zeros((40, 3)), 0) == (40,)
    assert modes_of(np.concatenate((np.zeros((6, 2)), np.ones((6, 2)))), 0) == (12,)
