"""DRAEM: artificial anomalies, training, prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter, uniform_filter
from sklearn.metrics import roc_auc_score

import andon
from andon.core import AndonError, DetectorError, TrainingError
from andon.data import as_images
from andon.methods import FitRun, Fitting, create_method
from andon.methods.draem import Draem, DraemConfig, DraemDetector
from andon.methods.draem.anomalies import AUGMENTATIONS, augment_texture, simulate_anomaly
from andon.methods.draem.networks import DraemNetworks
from andon.methods.draem.training import DraemStage
from andon.training import steps_of_epochs
from tests.methods.trainings import assert_goes_on_after_a_kill, assert_seed_decides, same

SMALL: dict[str, Any] = {
    "transform": {"size": (64, 64)},
    "reconstructive_width": 4,
    "discriminative_width": 4,
    "n_textures": 4,
    "epochs": 2,
    "train_batch_size": 4,
    "learning_rate": 2e-3,
    "score_window": 5,
}

LEARNING: dict[str, Any] = {
    "reconstructive_width": 8,
    "epochs": 60,
    "train_batch_size": 2,
    "learning_rate": 5e-3,
    "anomaly_probability": 0.8,
    "perlin_exponents": (1, 3),
    "rotation_probability": 0.0,
}


def good_images(n: int, seed: int = 0) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    ground = gaussian_filter(np.random.default_rng(99).uniform(0, 255, (64, 64, 3)), (4, 4, 0))
    ground = (ground - ground.mean()) * 4 + 128
    return [np.clip(ground + rng.normal(0, 6, ground.shape), 0, 255).astype(np.uint8) for _ in range(n)]


def make(**options: Any) -> Draem:
    method = create_method("draem", {**SMALL, **options}, preset="paper")
    assert isinstance(method, Draem)
    return method


def stage_of(n: int = 6, seed: int = 0, **options: Any) -> DraemStage:
    networks = DraemNetworks(SMALL["reconstructive_width"], SMALL["discriminative_width"])
    return DraemStage(Fitting(make(**options), as_images(good_images(n)), seed, FitRun()), networks)


# Configuration


def test_defaults_are_the_papers_and_presets_are_valid() -> None:
    config = DraemConfig.model_validate({})
    assert (config.reconstructive_width, config.discriminative_width) == (128, 64)
    assert (config.epochs, config.train_batch_size, config.learning_rate) == (700, 8, 1e-4)
    assert config.beta == (0.1, 1.0)
    assert config.transform.normalisation == "unit"
    for options in Draem.presets.values():
        assert DraemConfig.model_validate(options).epochs > 0
    assert DraemConfig.model_validate(Draem.presets["released-code"]).score_window == 1
    assert DraemConfig.model_validate(Draem.presets["study"]).textures == "noise"


@pytest.mark.parametrize(
    "options",
    [
        {"transform": {"size": (250, 256)}},
        {"transform": {"size": (32, 32)}},
        {"transform": {"size": (64, 64), "normalisation": "imagenet"}},
        {"beta": (0.5, 0.2)},
        {"beta": (0.0, 1.0)},
        {"score_window": 4},
        {"perlin_exponents": (3, 1)},
        {"decay_at": (1.5,)},
    ],
)
def test_refuses_nonsense(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must be"):
        DraemConfig.model_validate(options)


# Artificial anomalies


def test_anomaly_is_equation_2() -> None:
    rng = np.random.default_rng(0)
    image, texture = rng.random((2, 8, 9, 3)).astype(np.float32)
    mask = (rng.random((8, 9)) > 0.5).astype(np.float32)
    result = simulate_anomaly(image, texture, mask, 0.3)
    inside = mask[..., None]
    np.testing.assert_allclose(
        result, (1 - inside) * image + 0.7 * (inside * image) + 0.3 * (inside * texture), atol=1e-6
    )
    np.testing.assert_array_equal(result[mask == 0], image[mask == 0])
    np.testing.assert_allclose(simulate_anomaly(image, texture, mask, 1.0)[mask == 1], texture[mask == 1], atol=1e-6)


@pytest.mark.parametrize("textures", ["rendered", "noise"])
def test_pixels_change_in_the_mask_only(textures: str) -> None:
    stage = stage_of(textures=textures, rotation_probability=0.0, beta=(0.8, 1.0))
    with_anomaly = changed = masked = 0
    originals = [torch.from_numpy(p).permute(2, 0, 1).float().div(255) for p in good_images(6)]
    for step in range(25):
        batch = stage.batch(step)
        assert batch.target.shape == batch.shown.shape == (4, 3, 64, 64)
        assert batch.mask.shape == (4, 1, 64, 64)
        assert batch.shown.dtype == batch.target.dtype == batch.mask.dtype == torch.float32
        assert 0 <= float(batch.shown.min()) <= float(batch.shown.max()) <= 1
        for index, target in zip(stage.order(step), batch.target, strict=True):
            torch.testing.assert_close(target, originals[index])
        outside = (batch.mask == 0).expand_as(batch.target)
        assert torch.equal(batch.shown[outside], batch.target[outside])
        differs = (batch.shown != batch.target).any(1, keepdim=True)
        changed, masked = changed + int(differs.sum()), masked + int(batch.mask.sum())
        with_anomaly += int(batch.mask.flatten(1).any(1).sum())
    assert changed > 0.95 * masked > 0  # a texture may agree with the image here and there
    assert 0.3 < with_anomaly / 100 < 0.65  # half of them, less those whose mask is empty


def test_batches_are_a_function_of_seed_and_step() -> None:
    first, second = stage_of(rotation_probability=0.5), stage_of(rotation_probability=0.5)
    reference = [first.batch(step) for step in (3, 0)]
    for ours, theirs in zip(reference, [second.batch(3), second.batch(0)], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not torch.equal(reference[0].target, stage_of(seed=1, rotation_probability=0.5).batch(3).target)


def test_rotated_images_are_targets_too() -> None:
    """The rotation comes before the anomaly: both sides of a pair are rotated, and the corners are black."""
    batch = stage_of(rotation_probability=1.0, rotation=45.0).batch(0)
    good = (batch.mask == 0).expand_as(batch.target)
    assert torch.equal(batch.shown[good], batch.target[good])
    originals = [torch.from_numpy(p).permute(2, 0, 1).float().div(255) for p in good_images(6)]
    assert not any(torch.equal(target, original) for target in batch.target for original in originals)
    assert float(batch.target[:, :, 0, 0].min()) == 0


def test_textures_come_from_a_folder(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 30, 3), (255, 0, 0), np.uint8)).save(tmp_path / "red.png")
    stage = stage_of(
        textures=str(tmp_path),
        texture_augmentations=0,
        beta=(1.0, 1.0),
        anomaly_probability=1.0,
        rotation_probability=0,
    )
    seen = 0
    for step in range(3):
        batch = stage.batch(step)
        for shown, mask in zip(batch.shown, batch.mask, strict=True):
            inside = shown[:, mask[0] == 1]
            seen += inside.shape[1]
            torch.testing.assert_close(inside, torch.tensor([[1.0], [0], [0]]).expand_as(inside))
    assert seen > 100
    detector = make(textures=str(tmp_path), epochs=1).fit(good_images(2))
    assert any("1 images" in note for note in detector.report.notes)
    with pytest.raises(AndonError, match="no such folder"):
        make(textures=str(tmp_path / "none")).fit(good_images(2))


def test_augmentations_keep_shape_and_type_and_change_something() -> None:
    texture = good_images(1)[0]
    for augment in AUGMENTATIONS:
        results = [augment(np.random.default_rng(seed), texture) for seed in range(4)]
        assert all(r.shape == texture.shape and r.dtype == np.uint8 for r in results), augment.__name__
        assert any(not np.array_equal(r, texture) for r in results), augment.__name__
    np.testing.assert_array_equal(
        augment_texture(texture, np.random.default_rng(4)), augment_texture(texture, np.random.default_rng(4))
    )
    np.testing.assert_array_equal(augment_texture(texture, np.random.default_rng(4), 0), texture)


# Training and prediction


@pytest.fixture(scope="module")
def trained() -> DraemDetector:
    detector = make(**LEARNING).fit(good_images(8), seed=2)
    assert isinstance(detector, DraemDetector)
    report = detector.report
    assert set(report.curves) == {"l2", "ssim", "focal", "loss"}
    for name in ("l2", "ssim", "focal"):
        values = [value for _, value in report.curves[name]]
        assert np.mean(values[-10:]) < 0.7 * np.mean(values[:5]), name
    assert report.n_train == 8
    assert report.notes == ("textures of the anomalies: rendered, seed 0, 4 images",)
    return detector


def test_finds_anomalies_that_it_was_not_shown(trained: DraemDetector) -> None:
    good = good_images(8, seed=5)
    bad = [image.copy() for image in good_images(8, seed=6)]
    rng = np.random.default_rng(0)
    corners = rng.integers(8, 40, (8, 2))
    for image, (y, x) in zip(bad, corners, strict=True):
        image[y : y + 14, x : x + 14] = 255 * rng.integers(0, 2, 3)
    prediction = trained.predict(good + bad)
    assert roc_auc_score([0] * 8 + [1] * 8, prediction.image_scores) > 0.85
    maps = prediction.anomaly_maps
    assert maps is not None
    defective = np.zeros((8, 64, 64), bool)
    for region, (y, x) in zip(defective, corners, strict=True):
        region[y : y + 14, x : x + 14] = True
    assert roc_auc_score(defective.ravel(), maps[8:].ravel()) > 0.8


def test_prediction_is_probability_and_largest_window(trained: DraemDetector) -> None:
    prediction = trained.predict(good_images(3, seed=5))
    maps = prediction.anomaly_maps
    assert maps is not None
    assert maps.shape == (3, 64, 64)
    assert maps.dtype == np.float32
    assert 0 <= maps.min() <= maps.max() <= 1
    expected = [uniform_filter(m, 5, mode="constant").max() for m in maps]
    np.testing.assert_allclose(prediction.image_scores, expected, atol=1e-6)


def test_score_does_not_depend_on_batch_mates(trained: DraemDetector) -> None:
    batch = trained.transform.normalise(np.stack(good_images(5, seed=7)))
    batch[3] = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    together = trained.predict_batch(batch)
    alone = [trained.predict_batch(batch[i : i + 1]) for i in range(5)]
    np.testing.assert_allclose(together.image_scores, [p.image_scores[0] for p in alone], atol=1e-5)
    assert together.anomaly_maps is not None
    for index, single in enumerate(alone):
        assert single.anomaly_maps is not None
        np.testing.assert_allclose(together.anomaly_maps[index], single.anomaly_maps[0], atol=1e-5)


def test_state_makes_the_same_detector(trained: DraemDetector, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    trained.save(tmp_path / "draem.safetensors")
    restored = make(**LEARNING).restore(trained.state_dict(), trained.report)
    assert torch.equal(torch.get_rng_state(), before)
    expected = trained.predict(good_images(2, seed=5))
    for copy in (restored, andon.load(tmp_path / "draem.safetensors")):
        found = copy.predict(good_images(2, seed=5))
        np.testing.assert_array_equal(found.image_scores, expected.image_scores)
        np.testing.assert_array_equal(found.anomaly_maps, expected.anomaly_maps)  # type: ignore[arg-type]
        assert same(copy, trained)
        assert copy.report == trained.report


def test_state_of_another_kind_is_refused(trained: DraemDetector) -> None:
    state, report = trained.state_dict(), trained.report
    name = "networks.discriminative.decoder_segment.fin_out.0.weight"
    with pytest.raises(DetectorError, match=name):
        make(**LEARNING).restore({n: t for n, t in state.items() if n != name}, report)
    with pytest.raises(DetectorError, match=name):
        make(**LEARNING).restore({**state, name: torch.zeros(1)}, report)
    with pytest.raises(DetectorError, match="surplus"):
        make(**LEARNING).restore({**state, "surplus": torch.zeros(1)}, report)
    with pytest.raises(DetectorError, match="reconstructive"):
        make().restore(state, report)


def test_can_be_exported(trained: DraemDetector) -> None:
    batch = trained.transform.normalise(np.stack(good_images(1, seed=7)))
    exported = torch.export.export(trained, (batch,)).module()
    for ours, theirs in zip(trained(batch), exported(batch), strict=True):
        torch.testing.assert_close(theirs, ours)


def test_same_seed_same_result_and_no_global_state() -> None:
    assert_seed_decides(make(), good_images(4))


def test_goes_on_bit_for_bit_after_being_killed(tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 5, "rotation_probability": 0.5}
    method = make(**options)
    assert_goes_on_after_a_kill(method, tmp_path, "", 3, good_images(4))
    with pytest.raises(TrainingError, match="another run"):
        method.fit(good_images(4, seed=1), seed=2, run=FitRun(checkpoints=tmp_path))


def test_budget_shortens_and_says_so() -> None:
    done: list[int] = []
    run = FitRun(progress=lambda stage, i, n: done.append(n))
    report = make(epochs=10, budget=0.3).fit(good_images(4), run=run).report
    assert done[-1] == 3
    assert steps_of_epochs(10, 4, 4) == 10
    assert "shortened training: 3 steps instead of 10 (budget 0.3)" in report.notes


@pytest.mark.parametrize("initialisation", ["normal", "torch"])
def test_initial_weights(initialisation: str) -> None:
    networks = DraemNetworks(16, 4)
    networks.initialise(0, initialisation)
    weight = networks.state_dict()["reconstructive.encoder.block4.3.weight"]
    expected = 0.02 if initialisation == "normal" else (128 * 9) ** -0.5 / 3**0.5
    assert float(weight.std()) == pytest.approx(expected, rel=0.02)
    assert float(weight.mean()) == pytest.approx(0, abs=expected / 50)
    factors = networks.state_dict()["reconstructive.encoder.block4.1.weight"]
    assert float(factors.std()) == pytest.approx(0.02 if initialisation == "normal" else 0, abs=0.005)


def test_needs_images() -> None:
    with pytest.raises(TrainingError, match="no images"):
        make().fit([])
