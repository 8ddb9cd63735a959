"""The whole method against a literal one in loops, and what it promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import mahalanobis
from scipy.special import logsumexp
from sklearn.covariance import ledoit_wolf

import andon
from andon.core import ConfigError, DataError, DetectorError, ImageArray, TrainingError
from andon.data import Images
from andon.features import JoinedExtractor, create_extractor
from andon.features.adaptation import AdaptedExtractor
from andon.inspection.cross_fitting import refit_without
from andon.methods import Detector, FitRun, branch_scores, create_method
from andon.methods.positional_gaussians import PositionalGaussians
from tests.methods.trainings import detection, good_images, same, smooth_images

RANDOM: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "random",
    "layers": ("layer2", "layer3"),
    "transform": {"size": (48, 64)},
    "designed": False,
    "score_stages": ("layer2", "layer3"),
    "map_stages": ("layer2",),
}
"""Small, and nothing to adapt."""
BOTH: dict[str, Any] = {"transform": {"size": (48, 64)}}


def make(**options: Any) -> PositionalGaussians:
    method = create_method("positional-gaussians", {**RANDOM, **options})
    assert isinstance(method, PositionalGaussians)
    return method


def images(n: int, seed: int = 0) -> list[ImageArray]:
    return smooth_images(n, seed, (50, 60))


Grid = np.ndarray[Any, Any]


def literal(train: list[ImageArray], test: list[ImageArray], radius: int, options: dict[str, Any]) -> tuple[Grid, Grid]:
    """The docstrings' words in loops, float64."""
    method = make(**options)
    config, transform = method.config, method.config.transform
    extractor = create_extractor("resnet18", config.layers, "random")

    def features(shown: list[ImageArray]) -> list[Grid]:
        found = extractor(transform.normalise(np.stack([transform.resize(i) for i in shown])))
        return [f.double().numpy() for f in found]

    scores: dict[str, Grid] = {}
    maps: dict[str, Grid] = {}
    for name, x, y in zip(config.layers, features(train), features(test), strict=True):
        _, d, height, width = x.shape
        cells = [(r, c) for r in range(height) for c in range(width)]

        def learned(rows: Grid, d: int = d, cells: list[tuple[int, int]] = cells) -> dict[tuple[int, int], Any]:
            variance = np.mean([rows[:, :, r, c].var(0).mean() for r, c in cells])
            found = {}
            for r, c in cells:
                vectors = rows[:, :, r, c]
                covariance = np.cov(vectors.T, bias=True)
                weight = max(ledoit_wolf(vectors)[1], 1 / len(vectors))
                shrunk = (1 - weight) * covariance + (weight + config.epsilon) * variance * np.eye(d)
                found[r, c] = vectors.mean(0), np.linalg.inv(shrunk)
            return found

        def distances(rows: Grid, at: dict[tuple[int, int], Any], height: int = height, width: int = width) -> Grid:
            found = np.full((len(rows), height, width), np.inf)
            for number, image in enumerate(rows):
                for r in range(height):
                    for c in range(width):
                        for i in range(max(0, r - radius), min(height, r + radius + 1)):
                            for j in range(max(0, c - radius), min(width, c + radius + 1)):
                                here = mahalanobis(image[:, r, c], *at[i, j])
                                found[number, r, c] = min(found[number, r, c], here)
            return found

        held = np.empty((len(x), height, width))
        fold = np.arange(len(x)) * 5 // len(x)
        for k in range(5):
            held[fold == k] = distances(x[fold == k], learned(x[fold != k]))
        own = np.stack([held.mean(0), held.var(0, ddof=1)])
        around = (
            np.stack(
                [
                    np.pad(m, 1, mode="edge")[i : i + height, j : j + width]
                    for m in own
                    for i in range(3)
                    for j in range(3)
                ]
            )
            .reshape(2, 9, height, width)
            .mean(1)
        )
        usual = 0.75 * around + 0.25 * around.mean((1, 2), keepdims=True)

        def largest(values: Grid, usual: Grid = usual) -> Grid:
            flat = ((values - usual[0]) / np.sqrt(usual[1])).reshape(len(values), -1)
            return np.sort(flat, axis=1)[:, -max(1, round(config.top * flat.shape[1])) :].mean(1)

        found = distances(y, learned(x))
        scores[name] = (largest(found) - largest(held).mean()) / largest(held).std(ddof=1)
        maps[name] = (found - held.mean()) / held.std(ddof=1)
    large = [
        F.interpolate(torch.from_numpy(maps[n])[:, None], size=transform.output_size, mode="bilinear").numpy()[:, 0]
        for n in config.map_stages
    ]
    smooth = np.stack([gaussian_filter(m, sigma=4) for m in np.mean(large, axis=0)])
    return logsumexp([scores[n] for n in config.score_stages], axis=0), smooth


@pytest.mark.parametrize("radius", [0, 1])
def test_equals_the_literal_implementation(radius: int) -> None:
    train, test = images(11), images(3, 1)
    options = {"radius": radius, "top": 0.1, "map_stages": ("layer2", "layer3")}
    found = make(**options).fit(train).predict(test)
    scores, maps = literal(train, test, radius, options)
    np.testing.assert_allclose(found.image_scores, scores, rtol=2e-3, atol=2e-3)
    assert found.anomaly_maps is not None
    np.testing.assert_allclose(found.anomaly_maps, maps, rtol=2e-3, atol=2e-3)


def test_it_finds_what_is_wrong_and_where() -> None:
    method = create_method("positional-gaussians", {"transform": {"size": (64, 64)}})
    found = detection(method.fit(good_images(20, side=64)), side=64)
    assert found[0] == 1.0
    assert found[1] > 0.8  # cells of 8 pixels see a square of 16 coarsely


def squares(n: int, seed: int, jitter: int, *, missing: bool = False) -> list[ImageArray]:
    """A grid of squares that lies elsewhere each time, by up to ``jitter`` pixels."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        image = np.full((96, 96, 3), 60.0)
        dy, dx = rng.integers(-jitter, jitter + 1, 2)
        for y in range(16, 80, 24):
            for x in range(16, 80, 24):
                if not (missing and (y, x) == (40, 40)):
                    image[y + dy : y + dy + 12, x + dx : x + dx + 12] = (200, 170, 90)
        found.append((image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8))
    return found


def test_a_part_that_lies_a_little_elsewhere_is_good_and_one_that_is_missing_is_not() -> None:
    options = {
        "layers": ("row3",),
        "designed": False,
        "score_stages": ("row3",),
        "map_stages": ("row3",),
        "transform": {"size": (96, 96)},
    }
    train, good, bad = squares(24, 0, 6), squares(12, 1, 6), squares(12, 2, 6, missing=True)
    free = create_method("positional-gaussians", options).fit(train)
    fixed = create_method("positional-gaussians", {**options, "radius": 0}).fit(train)
    assert int(free.state_dict()["stages.0.radius"]) > 0
    assert "row3: tolerance of pose 0 cells of 12 × 12" in fixed.report.notes

    def gap(detector: Detector) -> float:
        """Between the least score of a bad image and the largest of a good one."""
        scores = detector.predict(good + bad).image_scores
        return float(scores[len(good) :].min() - scores[: len(good)].max())

    assert gap(free) > 0
    assert gap(free) > gap(fixed)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
def test_few_images(n: int) -> None:
    detector = make().fit(images(n))
    found = detector.predict(images(3, 1))
    assert np.isfinite(found.image_scores).all()
    assert detector.report.n_train == n
    assert ("one image" in " ".join(detector.report.notes)) == (n == 1)


def test_images_that_are_all_the_same() -> None:
    detector = make().fit(images(1) * 5)
    scores = detector.predict([*images(1), *images(2, 1)]).image_scores
    assert np.isfinite(scores).all()
    assert scores[0] < scores[1:].min()


def test_nothing_is_random_and_batches_do_not_matter() -> None:
    train, test = images(13), images(5, 1)
    state = torch.get_rng_state()
    detectors = [make(batch_size=size).fit(train, seed=seed) for size, seed in ((1, 0), (4, 1), (32, 2))]
    assert torch.equal(torch.get_rng_state(), state)
    for other in detectors[1:]:
        assert same(detectors[0], other)
        assert np.array_equal(other.predict(test).image_scores, detectors[0].predict(test).image_scores)
    alone = detectors[0].predict([test[2]])
    assert alone.image_scores[0] == detectors[0].predict(test).image_scores[2]


def test_many_images_keep_some_features_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from andon.methods import _gaussians
    from andon.methods.positional_gaussians import method as module

    train, test = images(20), images(4, 1)
    everything = make().fit(train)
    monkeypatch.setattr(module, "_KEPT", 10)
    monkeypatch.setattr(_gaussians, "_BLOCK", 3)
    fewer = make().fit(train)
    # The Gaussians' means are of all images; what is usual is estimated from half of them.
    torch.testing.assert_close(fewer.state_dict()["stages.0.mean"], everything.state_dict()["stages.0.mean"])
    assert not same(fewer, everything)
    np.testing.assert_allclose(
        fewer.predict(test).image_scores, everything.predict(test).image_scores, rtol=0.5, atol=1.0
    )


def test_learned_and_designed_features_stand_side_by_side(tmp_path: Path) -> None:
    detector = create_method("positional-gaussians", BOTH).fit(images(6))
    assert [record.part for record in detector.report.weights] == ["efficientnet_lite0", "andon-features"]
    assert isinstance(detector.extractor, JoinedExtractor)
    assert isinstance(detector.extractor.parts[1], AdaptedExtractor)
    detector.save(tmp_path / "a.andon")
    loaded = andon.load(tmp_path / "a.andon")
    assert same(detector, loaded)
    test = images(3, 1)
    a, b = detector.predict(test), loaded.predict(test)
    assert np.array_equal(a.image_scores, b.image_scores)
    assert np.array_equal(a.anomaly_maps, b.anomaly_maps)  # type: ignore[arg-type]
    branches = branch_scores(detector, Images(test))
    assert list(branches) == ["row3", "row5", "cells"]
    np.testing.assert_allclose(logsumexp([branches["row5"], branches["cells"]], axis=0), a.image_scores, rtol=1e-5)


def test_designed_features_alone(tmp_path: Path) -> None:
    method = create_method("positional-gaussians", {"transform": {"size": (48, 64)}}, preset="designed")
    detector = method.fit(images(5))
    assert [record.part for record in detector.report.weights] == ["andon-features"]
    detector.save(tmp_path / "a.andon")
    assert same(detector, andon.load(tmp_path / "a.andon"))


def test_a_second_fit_for_calibration_adapts_nothing_again() -> None:
    method, train = create_method("positional-gaussians", BOTH), Images(images(6))
    detector = method.fit(train)
    again = refit_without(method, detector, train, range(2), seed=0, run=FitRun())
    assert "adaptation" in detector.report.seconds
    assert "adaptation" not in again.report.seconds
    assert again.report.weights == detector.report.weights
    assert again.report.n_train == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_stages": ("row2",)}, "score_stages must be different ones of row3, row5, cells"),
        ({"map_stages": ("row3", "row3")}, "map_stages must be different ones"),
        ({"designed": False}, "score_stages must be different ones of row3, row5, not"),
        ({"backbone": "andon-features", "layers": ("cells",), "weights": "embedded"}, "set designed to false"),
        ({"radius": 9}, "radius"),
        ({"top": 0}, "top"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_method("positional-gaussians", options)


def test_another_input_size_is_refused() -> None:
    detector = make().fit(images(3))
    with pytest.raises(DataError, match="another input size"):
        detector(torch.zeros(1, 3, 96, 96))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stages.0.grid", torch.tensor([3, 3]), r"stage layer2: grid is 3 × 3 for 48 positions"),
        ("stages.1.radius", torch.tensor([7]), r"stage layer3: radius is 7, not within 0\.\.2"),
        ("stages.0.scores", torch.tensor([0.0, 0.0]), r"stage layer2: the standard deviations must be positive"),
    ],
)
def test_a_state_that_cannot_be(name: str, value: torch.Tensor, message: str) -> None:
    method = make()
    detector = method.fit(images(3))
    state = {**detector.state_dict(), name: value}
    with pytest.raises(DetectorError, match=message):
        method.restore(state, detector.report)


def test_a_covariance_that_is_none_is_one_clear_message(monkeypatch: pytest.MonkeyPatch) -> None:
    from andon.methods import _gaussians

    def fails(matrix: torch.Tensor) -> torch.Tensor:
        return torch.linalg.cholesky(-matrix)

    monkeypatch.setattr(_gaussians, "whitening", fails)
    with pytest.raises(TrainingError, match="layer2 is not positive definite: raise the option 'epsilon'"):
        make().fit(images(3))


def test_the_network_can_be_exported() -> None:
    detector = create_method("positional-gaussians", {**BOTH, "radius": 1}).fit(images(6))
    batch = detector.transform.normalise(np.stack([detector.transform.resize(i) for i in images(1, 1)]))
    exported = torch.export.export(detector, (batch,)).module()
    for found, expected in zip(exported(batch), detector(batch), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
