"""PaDiM against a literal implementation: loops, np.linalg.inv, scipy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import EmpiricalCovariance

import andon
from andon.core import AndonError, DetectorError
from andon.data.transform import Transform
from andon.features import create_extractor
from andon.methods import Detector, create_method
from andon.methods._gaussians import StreamingGaussian, whitening
from andon.methods.padim import Padim
from tests.methods.trainings import smooth_images

SMALL: dict[str, Any] = {"weights": "random", "transform": {"size": (64, 80)}, "n_channels": 20}


def noise_images(n: int, seed: int) -> list[np.ndarray[Any, Any]]:
    return smooth_images(n, seed, (50, 60))


def make(**options: Any) -> Padim:
    method = create_method("padim", {**SMALL, **options}, preset="paper")
    assert isinstance(method, Padim)
    return method


def literal(
    train: list[np.ndarray[Any, Any]],
    test: list[np.ndarray[Any, Any]],
    channels: np.ndarray[Any, Any],
    transform: Transform,
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The paper, position by position, in float64."""
    extractor = create_extractor("resnet18", ("layer1", "layer2", "layer3"), "random")

    def embedded(images: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        maps = extractor(transform.normalise(np.stack([transform.resize(i) for i in images])))
        size = maps[0].shape[2:]
        whole = torch.cat([F.interpolate(m, size=size, mode="nearest") for m in maps], dim=1)
        return whole.numpy()[:, channels].astype(np.float64)

    x, y = embedded(train), embedded(test)
    distances = np.empty((len(test), *x.shape[2:]))
    for row in range(x.shape[2]):
        for column in range(x.shape[3]):
            vectors = x[:, :, row, column]
            mean = vectors.mean(0)
            covariance = np.zeros((len(channels), len(channels)))
            for vector in vectors:
                covariance += np.outer(vector - mean, vector - mean)
            covariance = covariance / max(len(train) - 1, 1) + 0.01 * np.eye(len(channels))
            inverse = np.linalg.inv(covariance)
            for n in range(len(test)):
                distances[n, row, column] = mahalanobis(y[n, :, row, column], mean, inverse)
    large = F.interpolate(
        torch.from_numpy(distances)[:, None], size=transform.output_size, mode="bilinear", align_corners=False
    )
    maps = np.stack([gaussian_filter(m, sigma=4) for m in large[:, 0].numpy()])
    return maps.max((1, 2)), maps


@pytest.mark.parametrize("n_train", [1, 3, 40])
def test_equals_the_literal_implementation(n_train: int) -> None:
    train, test = noise_images(n_train, 0), noise_images(3, 1)
    method = make()
    detector = method.fit(train, seed=5)
    report = detector.report
    found = detector.predict(test)
    scores, maps = literal(train, test, detector.state_dict()["channels"].numpy(), detector.transform)
    assert found.anomaly_maps is not None
    np.testing.assert_allclose(found.anomaly_maps, maps, rtol=1e-3)
    np.testing.assert_allclose(found.image_scores, scores, rtol=1e-3)
    assert report.n_train == n_train
    assert set(report.seconds) == {"features", "statistics", "factorisation"}
    assert report.weights[0].pretrained is False
    assert report.notes == ("20 of 448 channels at 16 × 20 positions",)


@pytest.mark.parametrize("sizes", [(5,), (1, 1, 1), (32, 32, 7), (1, 30), (4, 4, 4, 4, 4)])
def test_streaming_statistics_are_those_of_all_vectors_at_once(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    # A large offset: naive sums of squares in float32 would lose everything.
    vectors = (rng.normal(0, 1, (3, sum(sizes), 6)) @ rng.normal(0, 1, (6, 6)) + 1000).astype(np.float32)
    statistics = StreamingGaussian(3, 6, torch.device("cpu"))
    for part in np.split(vectors, np.cumsum(sizes)[:-1], axis=1):
        statistics.update(torch.from_numpy(part).permute(1, 2, 0))
    assert statistics.count == sum(sizes)
    np.testing.assert_allclose(statistics.mean, vectors.astype(float).mean(1), rtol=1e-9)
    mean, covariance = statistics.mean, statistics.covariance_(0.5)
    for position in range(3):
        reference = EmpiricalCovariance().fit(vectors[position].astype(float))
        scale = sum(sizes) / max(sum(sizes) - 1, 1)
        expected = reference.covariance_ * scale + 0.5 * np.eye(6)
        np.testing.assert_allclose(covariance[position], expected, rtol=1e-3, atol=2e-3)
        np.testing.assert_allclose(mean[position], reference.location_, rtol=1e-9)


@pytest.mark.parametrize("d", [1, 2, 16, 17, 33, 100])
def test_whitening_is_the_inverse_of_the_cholesky_factor(d: int) -> None:
    generator = torch.Generator().manual_seed(d)
    x = torch.randn(4, d, d // 2 + 1, dtype=torch.float64, generator=generator)
    covariance = x @ x.transpose(1, 2) + 0.01 * torch.eye(d, dtype=torch.float64)
    expected = np.stack([np.linalg.inv(np.linalg.cholesky(c)) for c in covariance.numpy()])
    np.testing.assert_allclose(whitening(covariance), expected, rtol=1e-7, atol=1e-9)


def test_a_matrix_that_is_not_positive_definite_is_one_clear_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StreamingGaussian, "covariance_", lambda self, epsilon: -torch.ones_like(self.scatter))
    with pytest.raises(AndonError, match="raise the option 'epsilon'"):
        make().fit(noise_images(2, 0))


def test_scores_do_not_depend_on_batch_mates_nor_on_the_batch_size() -> None:
    train, test = noise_images(37, 0), noise_images(5, 1)
    results = [make(batch_size=batch_size).fit(train).predict(test) for batch_size in (1, 4, 32, 64)]
    for other in results[1:]:
        np.testing.assert_allclose(other.image_scores, results[0].image_scores, rtol=1e-4)
        np.testing.assert_allclose(other.anomaly_maps, results[0].anomaly_maps, rtol=1e-3)  # type: ignore[arg-type]
    detector = make().fit(train)
    among_strangers = detector.predict([test[0], *noise_images(7, 9), np.zeros((50, 60, 3), np.uint8)])
    np.testing.assert_allclose(among_strangers.image_scores[0], detector.predict([test[0]]).image_scores[0], rtol=1e-5)


def test_seed_chooses_the_channels_and_the_same_seed_gives_the_same_result() -> None:
    train, test = noise_images(4, 0), noise_images(2, 1)
    state = torch.get_rng_state()
    detectors = [make().fit(train, seed=seed) for seed in (3, 3, 4)]
    first, same, other = (d.predict(test).anomaly_maps for d in detectors)
    np.testing.assert_array_equal(first, same)
    assert not torch.equal(detectors[0].state_dict()["channels"], detectors[2].state_dict()["channels"])
    assert not np.array_equal(first, other)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), state), "the global generator was touched"


@pytest.mark.parametrize(
    ("transform", "region"),
    [({"size": (64, 96)}, (0, 0, 1, 1)), ({"size": (80, 80), "crop": (40, 60)}, (0.25, 0.125, 0.75, 0.875))],
)
def test_other_sizes_and_crops(transform: dict[str, Any], region: tuple[float, ...]) -> None:
    detector = make(transform=transform).fit(noise_images(3, 0))
    found = detector.predict(noise_images(2, 1))
    assert found.anomaly_maps is not None
    assert found.anomaly_maps.shape == (2, *detector.transform.output_size)
    assert (found.region.top, found.region.left, found.region.bottom, found.region.right) == region
    np.testing.assert_array_equal(found.image_scores, found.anomaly_maps.max((1, 2)))


def test_a_defect_is_found_where_it_is() -> None:
    detector = make().fit(noise_images(60, 0))
    good, bad = noise_images(2, 1)
    bad = bad.copy()
    bad[26:38, 14:28] = np.where(np.indices((12, 14)).sum(0)[..., None] % 4 < 2, 20, 235)
    found = detector.predict([good, bad])
    assert found.image_scores[1] > 2 * found.image_scores[0]
    assert found.anomaly_maps is not None
    row, column = np.unravel_index(found.anomaly_maps[1].argmax(), (64, 80))
    assert 26 <= row * 50 / 64 <= 38
    assert 14 <= column * 60 / 80 <= 28


def test_layers_may_be_any_stages_with_the_finest_first() -> None:
    state = make(layers=("layer2",), n_channels=None).fit(noise_images(2, 0)).state_dict()
    assert state["grid"].tolist() == [8, 10]
    assert len(state["channels"]) == 100
    state = make(layers=("layer1",), n_channels=None).fit(noise_images(2, 0)).state_dict()
    assert len(state["channels"]) == 64, "all where there are fewer than the paper's number"


def test_defaults_are_the_papers() -> None:
    config = create_method("padim", preset="paper").config.model_dump()
    assert config["backbone"] == "resnet18"
    assert config["layers"] == ("layer1", "layer2", "layer3")
    assert (config["epsilon"], config["sigma"]) == (0.01, 4.0)
    assert config["transform"] == {"size": (256, 256), "crop": None, "normalisation": "imagenet"}
    assert make(n_channels=None)._n_channels(448) == 100


@pytest.fixture(scope="module")
def fitted() -> Detector:
    return make().fit(noise_images(4, 0), seed=2)


def test_state_and_file_give_identical_predictions(fitted: Detector, tmp_path: Path) -> None:
    test = noise_images(2, 1)
    fitted.save(tmp_path / "padim.safetensors")
    expected = fitted.predict(test)
    for other in (make().restore(fitted.state_dict(), fitted.report), andon.load(tmp_path / "padim.safetensors")):
        found = other.predict(test)
        np.testing.assert_array_equal(found.anomaly_maps, expected.anomaly_maps)
        np.testing.assert_array_equal(found.image_scores, expected.image_scores)
        assert other.report == fitted.report
        assert other.method.describe() == fitted.method.describe()


def test_a_wrong_state_is_refused_by_name(fitted: Detector) -> None:
    good = fitted.state_dict()

    def refused(message: str, **changes: torch.Tensor | None) -> None:
        state = {n: t for n, t in {**good, **changes}.items() if t is not None}
        with pytest.raises(DetectorError, match=f"padim: .*{message}"):
            make().restore(state, fitted.report)

    refused("lacks the tensor mean", mean=None)
    refused("unknown tensor more", more=torch.zeros(1))
    refused(r"mean .* is \[320, 19\], not \[320, 20\]", mean=good["mean"][:, :19])
    refused(r"whitening .* is \[319, 20, 20\], not \[320, 20, 20\]", whitening=good["whitening"][:319])
    refused(r"mean .* is \[\]", mean=torch.tensor(1.0))
    refused("mean .* torch.float64", mean=good["mean"].double())
    refused("whitening .* not finite", whitening=torch.full_like(good["whitening"], torch.nan))
    refused("channels .* ascend", channels=good["channels"].flip(0))
    refused("channels .* ascend", channels=good["channels"] + 448)
    refused("grid .* is 3 × 4", grid=torch.tensor([3, 4]))


def test_without_images_and_impossible_options() -> None:
    with pytest.raises(AndonError, match="no images"):
        make().fit([])
    with pytest.raises(AndonError, match=r"option 'n_channels' is 449.*only 448 channels"):
        make(n_channels=449).fit(noise_images(1, 0))
    with pytest.raises(AndonError, match="no stage 'layer7'"):
        make(layers=("layer7",)).fit(noise_images(1, 0))
    for option, value in (("epsilon", 0), ("sigma", -1), ("n_channels", 0), ("layers", ())):
        with pytest.raises(AndonError, match=f"option '{option}'"):
            make(**{option: value})


def test_another_input_size_than_learned_is_refused(fitted: Detector) -> None:
    with pytest.raises(AndonError, match=r"8 × 8 positions, it has learned 16 × 20"):
        fitted(torch.zeros(1, 3, 32, 32))


def test_can_be_exported(fitted: Detector) -> None:
    batch = fitted.transform.normalise(np.stack([fitted.transform.resize(i) for i in noise_images(1, 3)]))
    exported = torch.export.export(fitted, (batch,)).module()
    for found, expected in zip(exported(batch), fitted(batch), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
