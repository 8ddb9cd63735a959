"""CFlow: scores against a literal computation, schedule, training, resuming, state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from andon.core import ConfigError, DataError, DetectorError, ProgressCallback, TrainingError
from andon.data import ArrayCache, Images
from andon.methods import FitRun, Fitting, create_method, load
from andon.methods.cflow import Cflow, CflowConfig, CflowDetector
from andon.methods.cflow.flows import positional_encoding
from andon.methods.cflow.training import FlowStage, TrainingFeatures, learning_rate_schedule
from tests.methods.trainings import smooth_images

SMALL: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "random",
    "layers": ("layer1", "layer2"),
    "transform": {"size": (48, 64)},
    "condition": 8,
    "coupling_blocks": 2,
    "fibres": 64,
    "train_batch_size": 4,
    "meta_epochs": 2,
    "sub_epochs": 1,
    "learning_rate": 1e-3,
}
Image = np.ndarray[Any, Any]


def good_images(n: int, seed: int) -> list[Image]:
    return smooth_images(n, seed, (48, 64))


def make(**options: Any) -> Cflow:
    method = create_method("cflow", {**SMALL, **options}, preset="paper")
    assert isinstance(method, Cflow)
    return method


def learned(method: Cflow, images: list[Image] | Images, seed: int = 0, run: FitRun | None = None) -> CflowDetector:
    detector = method.fit(images, seed=seed, run=run)
    assert isinstance(detector, CflowDetector)
    return detector


def fitted(n: int = 6, seed: int = 0, **options: Any) -> CflowDetector:
    return learned(make(**options), good_images(n, 0), seed)


def training_features(method: Cflow, seed: int = 0) -> TrainingFeatures:
    fitting = Fitting(method, Images(good_images(6, 0)), seed, FitRun())
    return TrainingFeatures(fitting, method.config, method.extractor)


def assert_same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> None:
    assert list(first) == list(second)
    for name in first:
        assert torch.equal(first[name], second[name]), name


def literal_log_likelihoods(
    detector: CflowDetector, images: list[Image], fibres: int = 50
) -> list[np.ndarray[Any, Any]]:
    """log p / C a scale, ``[N, h, w]``, as in the authors' code: every vector with its own condition, in chunks."""
    batch = detector.transform.normalise(np.stack([detector.transform.resize(image) for image in images]))
    levels = []
    for flow, maps in zip(detector.flows, detector.extractor(batch), strict=True):
        n, channels, height, width = maps.shape
        rows = maps.permute(0, 2, 3, 1).reshape(-1, channels)
        conditions = positional_encoding(detector.config.condition, height, width).repeat(n, 1)
        values = []
        for start in range(0, len(rows), fibres):
            part = slice(start, start + fibres)
            with torch.no_grad():
                z, log_det = flow(rows[part], conditions[part])
            values += (-0.5 * channels * math.log(2 * math.pi) - 0.5 * (z**2).sum(1) + log_det).div(channels).tolist()
        levels.append(np.array(values).reshape(n, height, width))
    return levels


@pytest.mark.parametrize("options", [{}, {"standardise": "whiten", "permutation": "hard", "clamping": "arctan"}])
def test_scores_equal_the_literal_computation(options: dict[str, Any]) -> None:
    detector = fitted(**options)
    test = good_images(3, 1)
    prediction = detector.predict(test)
    train_levels = literal_log_likelihoods(detector, good_images(6, 0))
    expected = np.zeros((3, 48, 64))
    for level, train_level in zip(literal_log_likelihoods(detector, test), train_levels, strict=True):
        likelihood = torch.from_numpy(np.exp(level - train_level.max()))[:, None]
        expected += 1 - F.interpolate(likelihood, size=(48, 64), mode="bilinear", align_corners=False)[:, 0].numpy()
    np.testing.assert_allclose(prediction.anomaly_maps, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(prediction.image_scores, expected.max((1, 2)), rtol=1e-3)


def test_other_scores() -> None:
    detector = fitted()
    test = good_images(2, 1)
    method = make(anomaly="log-likelihood", sigma=3.0, image_top_k=100)
    other = method.restore(detector.state_dict(), detector.report)
    expected = np.zeros((2, 48, 64))
    references = detector.references.tolist()
    for level, reference in zip(literal_log_likelihoods(detector, test), references, strict=True):
        large = F.interpolate(torch.from_numpy(reference - level)[:, None], size=(48, 64), mode="bilinear")[:, 0]
        expected += np.stack([gaussian_filter(one, 3.0) for one in large.numpy()])
    prediction = other.predict(test)
    np.testing.assert_allclose(prediction.anomaly_maps, expected, rtol=1e-3, atol=1e-3)
    top = np.sort(expected.reshape(2, -1), axis=1)[:, -100:].mean(1)
    np.testing.assert_allclose(prediction.image_scores, top, rtol=1e-3)


def test_scores_do_not_depend_on_batch_mates() -> None:
    detector = fitted()
    test = [*good_images(4, 1), np.full((48, 64, 3), 255, np.uint8)]
    together, alone = detector.predict(test), [detector.predict([image]) for image in test]
    np.testing.assert_allclose(together.image_scores, [one.image_scores[0] for one in alone], rtol=1e-5)
    np.testing.assert_allclose(together.anomaly_maps, [one.anomaly_maps[0] for one in alone], rtol=1e-4, atol=1e-5)


def test_a_good_training_image_has_likelihood_of_at_most_the_reference() -> None:
    detector = fitted()
    batch = detector.transform.normalise(np.stack(good_images(6, 0)))
    levels = detector.log_likelihoods(detector.extractor(batch))
    for level, reference in zip(levels, detector.references, strict=True):
        assert float(level.max()) == pytest.approx(float(reference), rel=1e-5)


def test_training_lowers_the_loss_and_finds_a_defect() -> None:
    detector = fitted(n=12, meta_epochs=20, standardise="whiten", learning_rate=3e-3)
    for layer in SMALL["layers"]:
        curve = [value for _, value in detector.report.curves[f"{layer}/nll"]]
        assert np.mean(curve[-5:]) < np.mean(curve[:2]) - 0.1
    assert set(detector.report.curves) == {f"{s}/{c}" for s in SMALL["layers"] for c in ("log-sigmoid", "nll", "loss")}
    assert set(detector.report.seconds) == {"features", "whitening", "layer1", "layer2", "references"}
    assert detector.report.n_train == 12
    assert not detector.report.weights[0].pretrained
    good = good_images(6, 1)
    bad = [image.copy() for image in good_images(6, 2)]
    for image in bad:
        image[20:30, 30:42] = (250, 20, 20)
    scores = detector.predict(good).image_scores
    prediction = detector.predict(bad)
    assert prediction.image_scores.min() > scores.max()
    for anomaly_map in prediction.anomaly_maps:
        row, column = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
        assert 14 <= row < 36
        assert 24 <= column < 48


def test_nll_is_the_papers_objective() -> None:
    method = make(loss="nll")
    assert set(learned(method, good_images(6, 0)).report.curves) == {"layer1/nll", "layer2/nll"}
    training = FlowStage(training_features(method), 1)
    batch = training.batch(0)
    found = float(training.losses(batch)["nll"].detach())
    z, log_det = training.flow(batch.vectors, training.encoding[batch.positions])
    channels = batch.vectors.shape[1]
    expected = (z.square().sum(1) / 2 - log_det).mean() / channels + 0.5 * math.log(2 * math.pi)
    assert found == pytest.approx(float(expected.detach()), rel=1e-5)


def test_every_vector_is_seen_once_a_pass_at_its_position() -> None:
    method = make(train_batch_size=3, fibres=32)
    training = FlowStage(training_features(method, seed=4), 1)
    assert training.positions == 6 * 8
    assert training.steps_a_batch == 4  # 144 vectors in steps of 32; the rest of 16 is left
    assert training.full_steps == 2 * 2 * 4
    maps = method.extractor(method.config.transform.normalise(np.stack(good_images(6, 0))))[1]
    by_position = maps.permute(2, 3, 0, 1).reshape(48, 6, -1)
    seen = set()
    for step in range(8):
        vectors, positions = training.batch(step)
        assert vectors.shape == (32, 128)
        for vector, position in zip(vectors, positions.tolist(), strict=True):
            (image,) = torch.nonzero((by_position[position] - vector).abs().amax(dim=1) < 1e-4).flatten().tolist()
            seen.add((image, position))
    assert len(seen) == 8 * 32
    again = training.batch(2)
    assert torch.equal(again.vectors, training.batch(2).vectors)
    assert not torch.equal(again.positions, training.batch(3).positions)


def literal_schedule(epochs: int, warm: int, batches: int) -> list[float]:
    """The authors' two functions, written out: factors on the learning rate, step by step."""
    low = 0.1**3

    def cosine(epoch: int) -> float:
        return low + (1 - low) * (1 + math.cos(math.pi * epoch / epochs)) / 2

    factors = []
    for epoch in range(epochs):
        for batch in range(batches):
            if epoch < warm:
                part = (batch + epoch * batches) / (warm * batches)
                factors.append(0.1 + part * (cosine(warm) - 0.1))
            else:
                factors.append(cosine(epoch))
    return factors


@pytest.mark.parametrize(("epochs", "warm"), [(25, 2), (10, 0), (3, 3)])
def test_learning_rates_are_the_authors(epochs: int, warm: int) -> None:
    schedule = learning_rate_schedule(CflowConfig(meta_epochs=epochs, warm_up=warm), epochs * 7)
    assert schedule is not None
    np.testing.assert_allclose([schedule(step) for step in range(epochs * 7)], literal_schedule(epochs, warm, 7))
    assert learning_rate_schedule(CflowConfig(schedule="constant"), 70) is None


def test_a_budget_shortens_training_and_is_noted() -> None:
    report = fitted(budget=0.5).report
    steps = {layer: report.curves[f"{layer}/nll"][-1][0] for layer in SMALL["layers"]}
    assert steps == {"layer1": 18, "layer2": 4}  # of 3·12 and 3·3
    assert report.notes == ("shortened training: 22 steps instead of 45 (budget 0.5)",)


def test_the_same_seed_gives_the_same_result_and_another_one_another() -> None:
    first, second, other = fitted(), fitted(), fitted(seed=1)
    assert_same(first.state_dict(), second.state_dict())
    name = "flows.0.blocks.0.weight_passive"
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


class KilledError(Exception):
    pass


def killing(stage: str, done: int) -> ProgressCallback:
    def progress(name: str, now: int, total: int) -> None:
        if name.startswith(stage) and now >= done:
            raise KilledError

    return progress


@pytest.mark.parametrize(("stage", "done"), [("layer1", 10), ("layer2", 4), ("references", 1)])
def test_a_killed_training_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, done: int
) -> None:
    whole = fitted()
    monkeypatch.setattr("andon.training.loop._PROGRESS_SECONDS", 0.0)
    killed = FitRun(progress=killing(stage, done), checkpoints=tmp_path, checkpoint_seconds=0.0)
    with pytest.raises(KilledError):
        learned(make(), good_images(6, 0), run=killed)
    assert (tmp_path / "layer1.ckpt").is_file()
    assert (tmp_path / "layer2.ckpt").is_file() == (stage != "layer1")
    run = FitRun(checkpoints=tmp_path, checkpoint_seconds=0.0)
    resumed = learned(make(), good_images(6, 0), run=run)
    assert_same(whole.state_dict(), resumed.state_dict())
    assert resumed.report.curves["layer1/nll"][-1][0] == 36
    with pytest.raises(TrainingError, match="of another run"):
        learned(make(clamp=2.0), good_images(6, 0), run=run)


def test_features_that_do_not_fit_in_memory_change_nothing(tmp_path: Path) -> None:
    whole = fitted()
    assert whole.report.notes == ()
    for cache, how in ((None, "computed again"), (ArrayCache(tmp_path), "read from the cache")):
        detector = learned(make(memory_limit=0.0), Images(good_images(6, 0), cache))
        assert detector.report.notes == (f"features exceed memory_limit: {how} at every pass",)
        for name, tensor in detector.state_dict().items():
            # How a batch is put together decides the last bits of a convolution.
            np.testing.assert_allclose(tensor, whole.state_dict()[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_whitening_is_of_the_training_features() -> None:
    features = training_features(make(standardise="whiten"))
    mean, matrix = features.whitening(0)
    rows = features.vectors(0, range(6)).flatten(0, 1)
    white = ((rows - mean) @ matrix).double()
    np.testing.assert_allclose(white.mean(0), np.zeros(64), atol=1e-3)
    covariance = np.cov(white.numpy(), rowvar=False, bias=True)
    values = np.linalg.eigvalsh(np.cov(rows.double().numpy(), rowvar=False, bias=True))
    floor = 1e-4 * values.mean()
    np.testing.assert_allclose(covariance, np.diag(np.diagonal(covariance)), atol=1e-2)
    np.testing.assert_allclose(np.sort(np.diagonal(covariance)), np.sort(values / (values + floor)), rtol=1e-2)


def test_a_saved_detector_gives_the_same_scores(tmp_path: Path) -> None:
    detector = fitted(standardise="whiten", permutation="hard")
    restored = detector.method.restore(detector.state_dict(), detector.report)
    assert_same(restored.state_dict(), detector.state_dict())
    detector.save(tmp_path / "cflow.andon")
    test = good_images(3, 1)
    expected = detector.predict(test)
    for again in (restored, load(tmp_path / "cflow.andon")):
        found = again.predict(test)
        assert np.array_equal(found.image_scores, expected.image_scores)
        assert np.array_equal(found.anomaly_maps, expected.anomaly_maps)


def test_states_that_do_not_fit() -> None:
    detector = fitted(standardise="whiten", permutation="hard")
    huge = torch.tensor([[12, 16], [2**31, 2**31]])
    changes: list[tuple[dict[str, torch.Tensor | None], str]] = [
        ({"references": None}, "lacks the tensor references"),
        ({"surplus": torch.zeros(1)}, "unknown tensor surplus"),
        ({"flows.1.blocks.0.offset": torch.zeros(3)}, r"tensor flows.1.blocks.0.offset .* is \[3\], not \[128\]"),
        ({"references": torch.tensor([0.0, math.nan])}, "tensor references .* not finite"),
        ({"grids": torch.zeros((2, 2), dtype=torch.int64)}, "tensor grids"),
        ({"grids": huge}, r"tensor grids .* outside 1..\[48, 64\]"),
        ({"flows.0.blocks.1.mixing": torch.zeros(64, dtype=torch.int64)}, "flows.0.blocks.1.mixing .* permutation"),
    ]
    for change, message in changes:
        state = {**detector.state_dict(), **change}
        with pytest.raises(DetectorError, match=message):
            detector.method.restore({n: tensor for n, tensor in state.items() if tensor is not None}, detector.report)


@pytest.mark.parametrize("options", [{}, {"standardise": "whiten", "permutation": "hard", "anomaly": "log-likelihood"}])
def test_it_exports(options: dict[str, Any]) -> None:
    detector = fitted(n=2, meta_epochs=1, sigma=2.0, **options)
    batch = detector.transform.normalise(np.stack(good_images(1, 1)))
    program = torch.export.export(detector, (batch,))
    torch.testing.assert_close(program.module()(batch), detector(batch), rtol=1e-5, atol=1e-5)


def test_the_embedded_preset_learns_from_adapted_features() -> None:
    method = create_method("cflow", preset="embedded", transform={"size": (64, 64)}, budget=0.02)
    detector = method.fit(good_images(4, 0))
    assert any("features adapted" in note for note in detector.report.notes)
    other = method.restore(detector.state_dict(), detector.report)
    test = good_images(2, 1)
    assert np.array_equal(detector.predict(test).anomaly_maps, other.predict(test).anomaly_maps)


def test_presets() -> None:
    study = create_method("cflow", preset="study").config
    assert isinstance(study, CflowConfig)
    assert (study.fibres, study.learning_rate, study.meta_epochs * study.sub_epochs) == (64, 1e-4, 100)
    assert (study.backbone, study.layers) == ("wide_resnet50_2", ("layer2", "layer3", "layer4"))
    assert (study.coupling_blocks, study.condition, study.clamp, study.train_batch_size) == (8, 128, 1.9, 32)
    released = create_method("cflow", preset="released-code").config
    assert isinstance(released, CflowConfig)
    assert (released.schedule, released.permutation) == ("constant", "hard")


def test_errors_of_the_user() -> None:
    with pytest.raises(TrainingError, match="no images"):
        make().fit([])
    for option, value in [("condition", 6), ("layers", ("layer1", "layer1")), ("fibres", 0), ("budget", 0)]:
        with pytest.raises(ConfigError, match=option):
            make(**{option: value})
    detector = fitted()
    other = make(transform={"size": (64, 64)}).restore(detector.state_dict(), detector.report)
    with pytest.raises(DataError, match="another input size"):
        other.predict(good_images(1, 0))
