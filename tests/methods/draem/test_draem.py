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

from andon.core import AndonError
from andon.data.images import Images, as_images
from andon.methods import create_method
from andon.methods.draem.method import _AUGMENTATIONS, Draem, DraemConfig, _Batches, augment_texture, simulate_anomaly
from andon.training.loop import steps_of_epochs

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


def pictures(n: int, seed: int = 0) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    ground = gaussian_filter(np.random.default_rng(99).uniform(0, 255, (64, 64, 3)), (4, 4, 0))
    ground = (ground - ground.mean()) * 4 + 128
    return [np.clip(ground + rng.normal(0, 6, ground.shape), 0, 255).astype(np.uint8) for _ in range(n)]


def make(**options: Any) -> Draem:
    method = create_method("draem", {**SMALL, **options})
    assert isinstance(method, Draem)
    return method


def batches(n: int = 6, seed: int = 0, **options: Any) -> _Batches:
    return _Batches(DraemConfig.model_validate({**SMALL, **options}), as_images(pictures(n)), seed)


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
    make_batch = batches(textures=textures, rotation_probability=0.0, beta=(0.8, 1.0))
    with_anomaly = changed = masked = 0
    originals = [torch.from_numpy(p).permute(2, 0, 1).float().div(255) for p in pictures(6)]
    for step in range(25):
        batch = make_batch(step)
        assert batch.target.shape == batch.shown.shape == (4, 3, 64, 64)
        assert batch.mask.shape == (4, 1, 64, 64)
        assert batch.shown.dtype == batch.target.dtype == batch.mask.dtype == torch.float32
        assert 0 <= float(batch.shown.min()) <= float(batch.shown.max()) <= 1
        for index, target in zip(make_batch.order(step), batch.target, strict=True):
            torch.testing.assert_close(target, originals[index])
        outside = (batch.mask == 0).expand_as(batch.target)
        assert torch.equal(batch.shown[outside], batch.target[outside])
        differs = (batch.shown != batch.target).any(1, keepdim=True)
        changed, masked = changed + int(differs.sum()), masked + int(batch.mask.sum())
        with_anomaly += int(batch.mask.flatten(1).any(1).sum())
    assert changed > 0.95 * masked > 0  # a texture may agree with the image here and there
    assert 0.3 < with_anomaly / 100 < 0.65  # half of them, less those whose mask is empty


def test_batches_are_a_function_of_seed_and_step() -> None:
    first, second = batches(rotation_probability=0.5), batches(rotation_probability=0.5)
    reference = [first(step) for step in (3, 0)]
    for ours, theirs in zip(reference, [second(3), second(0)], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not torch.equal(reference[0].target, batches(seed=1, rotation_probability=0.5)(3).target)


def test_turned_images_are_targets_too() -> None:
    """The rotation comes before the anomaly: both sides of a pair are turned, and the corners are black."""
    batch = batches(rotation_probability=1.0, rotation=45.0)(0)
    good = (batch.mask == 0).expand_as(batch.target)
    assert torch.equal(batch.shown[good], batch.target[good])
    originals = [torch.from_numpy(p).permute(2, 0, 1).float().div(255) for p in pictures(6)]
    assert not any(torch.equal(target, original) for target in batch.target for original in originals)
    assert float(batch.target[:, :, 0, 0].min()) == 0


def test_textures_come_from_a_folder(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 30, 3), (255, 0, 0), np.uint8)).save(tmp_path / "red.png")
    make_batch = batches(
        textures=str(tmp_path),
        texture_augmentations=0,
        beta=(1.0, 1.0),
        anomaly_probability=1.0,
        rotation_probability=0,
    )
    seen = 0
    for step in range(3):
        batch = make_batch(step)
        for shown, mask in zip(batch.shown, batch.mask, strict=True):
            inside = shown[:, mask[0] == 1]
            seen += inside.shape[1]
            torch.testing.assert_close(inside, torch.tensor([[1.0], [0], [0]]).expand_as(inside))
    assert seen > 100
    method = make(textures=str(tmp_path), epochs=1)
    report = method.fit(pictures(2))
    assert any("1 images" in note for note in report.notes)
    with pytest.raises(AndonError, match="no such folder"):
        make(textures=str(tmp_path / "none")).fit(pictures(2))


def test_augmentations_keep_shape_and_type_and_change_something() -> None:
    texture = pictures(1)[0]
    for augment in _AUGMENTATIONS:
        results = [augment(np.random.default_rng(seed), texture) for seed in range(4)]
        assert all(r.shape == texture.shape and r.dtype == np.uint8 for r in results), augment.__name__
        assert any(not np.array_equal(r, texture) for r in results), augment.__name__
    np.testing.assert_array_equal(
        augment_texture(texture, np.random.default_rng(4)), augment_texture(texture, np.random.default_rng(4))
    )
    np.testing.assert_array_equal(augment_texture(texture, np.random.default_rng(4), 0), texture)


# Training and prediction


@pytest.fixture(scope="module")
def trained() -> Draem:
    method = make(**LEARNING)
    report = method.fit(pictures(8), seed=2)
    assert set(report.curves) == {"l2", "ssim", "focal", "loss"}
    for name in ("l2", "ssim", "focal"):
        values = [value for _, value in report.curves[name]]
        assert np.mean(values[-10:]) < 0.7 * np.mean(values[:5]), name
    assert report.n_train == 8
    assert report.notes == ("textures of the anomalies: rendered, seed 0, 4 images",)
    return method


def test_finds_anomalies_that_it_was_not_shown(trained: Draem) -> None:
    good = pictures(8, seed=5)
    bad = [image.copy() for image in pictures(8, seed=6)]
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


def test_prediction_is_probability_and_largest_window(trained: Draem) -> None:
    prediction = trained.predict(pictures(3, seed=5))
    maps = prediction.anomaly_maps
    assert maps is not None
    assert maps.shape == (3, 64, 64)
    assert maps.dtype == np.float32
    assert 0 <= maps.min() <= maps.max() <= 1
    expected = [uniform_filter(m, 5, mode="constant").max() for m in maps]
    np.testing.assert_allclose(prediction.image_scores, expected, atol=1e-6)


def test_score_does_not_depend_on_batch_mates(trained: Draem) -> None:
    batch = trained.transform.normalise(np.stack(pictures(5, seed=7)))
    batch[3] = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    together = trained.predict_batch(batch)
    alone = [trained.predict_batch(batch[i : i + 1]) for i in range(5)]
    np.testing.assert_allclose(together.image_scores, [p.image_scores[0] for p in alone], atol=1e-5)
    assert together.anomaly_maps is not None
    for index, single in enumerate(alone):
        assert single.anomaly_maps is not None
        np.testing.assert_allclose(together.anomaly_maps[index], single.anomaly_maps[0], atol=1e-5)


def test_state_makes_the_same_method(trained: Draem) -> None:
    restored = make(**LEARNING)
    restored.load_state_dict(trained.state_dict())
    a, b = trained.predict(pictures(2, seed=5)), restored.predict(pictures(2, seed=5))
    np.testing.assert_array_equal(a.image_scores, b.image_scores)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, restored.state_dict()[name])


def test_state_of_another_kind_is_refused(trained: Draem) -> None:
    state = trained.state_dict()
    name = "discriminative.decoder_segment.fin_out.0.weight"
    with pytest.raises(AndonError, match=name):
        make(**LEARNING).load_state_dict({n: t for n, t in state.items() if n != name})
    with pytest.raises(AndonError, match=name):
        make(**LEARNING).load_state_dict({**state, name: torch.zeros(1)})
    with pytest.raises(AndonError, match="surplus"):
        make(**LEARNING).load_state_dict({**state, "surplus": torch.zeros(1)})
    with pytest.raises(AndonError, match="reconstructive"):
        make().load_state_dict(state)


def same(a: Draem, b: Draem) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_same_seed_same_result_and_no_global_state() -> None:
    torch.manual_seed(1)
    first = make()
    before = torch.get_rng_state()
    first.fit(pictures(4), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = make(), make()
    second.fit(pictures(4), seed=3)
    other.fit(pictures(4), seed=4)
    assert same(first, second)
    assert not same(first, other)


def test_goes_on_bit_for_bit_after_being_killed(tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 5, "rotation_probability": 0.5}
    whole = make(**options)
    expected = whole.fit(pictures(4), seed=2)

    class KilledError(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if done >= 3:
            raise KilledError

    killed = make(**options)
    killed.checkpoints, killed.checkpoint_seconds = tmp_path, 0.0
    with pytest.raises(KilledError):
        killed.fit(pictures(4), seed=2, progress=stop)
    with pytest.raises(AndonError, match="nothing yet"):
        killed.predict(pictures(1))
    resumed = make(**options)
    resumed.checkpoints = tmp_path
    report = resumed.fit(pictures(4), seed=2)
    assert same(whole, resumed)
    assert report.curves == expected.curves

    other = make(**options)
    other.checkpoints = tmp_path
    with pytest.raises(AndonError, match="another run"):
        other.fit(pictures(4, seed=1), seed=2)


def test_budget_shortens_and_says_so() -> None:
    method = make(epochs=10, budget=0.3)
    done: list[int] = []
    report = method.fit(pictures(4), progress=lambda stage, i, n: done.append(n))
    assert done[-1] == 3
    assert steps_of_epochs(10, 4, 4) == 10
    assert "shortened training: 3 steps instead of 10 (budget 0.3)" in report.notes


@pytest.mark.parametrize("initialisation", ["normal", "torch"])
def test_initial_weights(initialisation: str) -> None:
    method = make(reconstructive_width=16, initialisation=initialisation)
    networks = method._new_networks()
    networks.initialise(0, initialisation)
    weight = networks.state_dict()["reconstructive.encoder.block4.3.weight"]
    expected = 0.02 if initialisation == "normal" else (128 * 9) ** -0.5 / 3**0.5
    assert float(weight.std()) == pytest.approx(expected, rel=0.02)
    assert float(weight.mean()) == pytest.approx(0, abs=expected / 50)


def test_needs_images_and_training() -> None:
    with pytest.raises(AndonError, match="no images"):
        make().fit([])
    with pytest.raises(AndonError, match="nothing yet"):
        make().predict(Images(pictures(1)))
    with pytest.raises(AndonError, match="nothing yet"):
        make().state_dict()
