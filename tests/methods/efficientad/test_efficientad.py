"""EfficientAD: training, resuming, scores, and the parts of a step against independent calculations."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from andon._tools.seeds import step_generator
from andon.core import AndonError, ConfigError, DetectorError, ImageArray, TrainingError, WeightsError
from andon.data.images import Images
from andon.data.transform import Transform
from andon.methods import FitRun, create_method, load
from andon.methods._autoencoder import Autoencoder
from andon.methods._teachers import DescribedImages, Split, on_grid
from andon.methods.efficientad import EfficientAd, EfficientAdConfig, EfficientAdDetector
from andon.methods.efficientad import method as efficientad
from andon.methods.efficientad.augmentation import PenaltyImages, colour_jitter
from andon.methods.efficientad.networks import Networks
from andon.methods.efficientad.pdn import PDN, SAMPLING, load_teacher, output_size
from andon.methods.efficientad.training import EfficientAdStage, hard_feature_loss
from tests.methods.trainings import same

SIDE = 64

# Random filters of a whole teacher take a second to make orthogonal: once a seed is enough.
made = lru_cache(load_teacher)


@pytest.fixture(scope="module", autouse=True)
def _teachers_are_made_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(efficientad, "load_teacher", lambda size, weights: copy.deepcopy(made(size, weights)))
        yield


SMALL: Mapping[str, Any] = {
    "transform": Transform(size=(SIDE, SIDE)),
    "weights": "random",
    "student_width": 0.06,
    "latent": 4,
    "autoencoder_width": 4,
    "steps": 5,
    "train_batch_size": 2,
    "learning_rate": 2e-3,
    "validation_share": 0.3,
    "penalty_images": 3,
    "batch_size": 4,
}


def method(**options: Any) -> EfficientAd:
    return EfficientAd(EfficientAdConfig(**{**SMALL, **options}))


def images(count: int = 5, seed: int = 0, blot: bool = False) -> list[ImageArray]:
    """A disc that moves a little over stripes; with a bright blot where asked for."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    result = []
    for _ in range(count):
        dy, dx = rng.uniform(-2, 2, 2)
        grey = np.where(np.hypot(y - 30 - dy, x - 34 - dx) < 14, 180, 70 + 25 * np.sin(x / 4 + dx))
        grey = grey[..., None] * np.array([1.0, 0.9, 0.8]) + rng.normal(0, 2, (SIDE, SIDE, 3))
        if blot:
            grey[38:46, 20:28] = (20, 40, 220)
        result.append(np.clip(grey, 0, 255).astype(np.uint8))
    return result


def fit(method: EfficientAd, shown: list[ImageArray], **options: Any) -> EfficientAdDetector:
    detector = method.fit(shown, **options)
    assert isinstance(detector, EfficientAdDetector)
    return detector


@pytest.fixture(scope="module")
def fitted() -> EfficientAdDetector:
    return fit(method(), images())


def split(config: EfficientAdConfig, count: int = 5) -> Split:
    return Split.of(Images(images(count)), config.validation_share, 0, validate_on_all=config.extra_normalisation)


def described(config: EfficientAdConfig) -> DescribedImages:
    teacher = load_teacher(config.size, config.weights)[0]
    return DescribedImages(
        teacher, split(config).train, config.transform, config.memory_limit, torch.device("cpu"), lambda *_: None
    )


def stage(config: EfficientAdConfig) -> EfficientAdStage:
    penalty = None if config.penalty == "none" else PenaltyImages(config)
    return EfficientAdStage(
        config,
        Networks.initialised(config, 384, 0),
        described(config),
        split(config).train,
        penalty,
        seed=0,
        device=torch.device("cpu"),
    )


# The contract


def test_scores_do_not_depend_on_batch_mates(fitted: EfficientAdDetector) -> None:
    batch = fitted.transform.normalise(np.stack(images(5, seed=1)))
    together = fitted.predict_batch(batch)
    assert together.anomaly_maps is not None
    assert together.anomaly_maps.shape == (5, SIDE, SIDE)
    assert together.anomaly_maps.dtype == together.image_scores.dtype == np.float32
    for i in range(5):
        alone = fitted.predict_batch(batch[i : i + 1])
        np.testing.assert_allclose(alone.image_scores, together.image_scores[i : i + 1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(alone.anomaly_maps, together.anomaly_maps[i : i + 1], rtol=1e-5, atol=1e-5)


def test_same_seed_same_result_and_another_seed_another(fitted: EfficientAdDetector) -> None:
    before = torch.get_rng_state()
    assert same(fitted, fit(method(), images()))
    assert torch.equal(before, torch.get_rng_state())
    assert not same(fitted, fit(method(), images(), seed=1))


OF_FEATURES = {"teacher": "andon-features", "layers": ("cells",), "weights": "embedded", "steps": 1, "penalty": "none"}


@pytest.fixture(scope="module")
def of_features() -> EfficientAdDetector:
    """A detector whose teacher is an extractor."""
    return fit(method(**OF_FEATURES), images(3))


@pytest.mark.parametrize("teacher", ["pdn", "andon-features"])
def test_state_and_file_round_trips_are_exact(
    teacher: str, fitted: EfficientAdDetector, of_features: EfficientAdDetector, tmp_path: Path
) -> None:
    detector = fitted if teacher == "pdn" else of_features
    assert any("adapted" in note for note in detector.report.notes) == (teacher != "pdn")
    state = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    detector.save(tmp_path / "detector")
    expected = detector.predict(images(2, seed=2))
    for again in (detector.method.restore(state, detector.report), load(tmp_path / "detector")):
        assert isinstance(again, EfficientAdDetector)
        assert same(detector, again)
        found = again.predict(images(2, seed=2))
        np.testing.assert_array_equal(found.anomaly_maps, expected.anomaly_maps)
        np.testing.assert_array_equal(found.image_scores, expected.image_scores)


def test_what_is_loaded_needs_no_teacher_from_elsewhere(
    fitted: EfficientAdDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_there(*_: Any) -> Any:
        raise AssertionError("weights are looked for")

    monkeypatch.setattr(efficientad, "load_teacher", not_there)
    again = method(weights="imagenet").restore(fitted.state_dict(), fitted.report)
    np.testing.assert_array_equal(again.predict(images(1)).image_scores, fitted.predict(images(1)).image_scores)


def test_wrong_states_are_refused_by_name(fitted: EfficientAdDetector, of_features: EfficientAdDetector) -> None:
    name, state = "student.conv1.bias", fitted.state_dict()

    def refused(changed: Mapping[str, torch.Tensor], message: str) -> None:
        with pytest.raises(DetectorError, match=message):
            fitted.method.restore(changed, fitted.report)

    refused({n: t for n, t in state.items() if n != name}, f"lacks the tensor {name}")
    refused({**state, name: torch.zeros(3)}, rf"tensor {name} of the saved state is \[3\], not \[8\]")
    refused({**state, "extra": torch.zeros(3)}, "unknown tensor extra")
    refused({**state, "teacher.conv1.bias": torch.full((128,), torch.nan)}, "teacher.conv1.bias .* not finite")
    refused({**state, "quantiles": torch.zeros((2, 2), dtype=torch.float64)}, "std and quantiles")
    state = of_features.state_dict()
    for changed, report, message in (
        ({**state, "teacher.std": torch.zeros(32)}, of_features.report, "std and quantiles"),
        (state, replace(of_features.report, weights=()), "which weights its teacher had"),
        ({**state, "teacher.extractor.projection": torch.zeros(3)}, of_features.report, "extractor"),
    ):
        with pytest.raises(DetectorError, match=message):
            of_features.method.restore(changed, report)


@pytest.mark.parametrize("teacher", ["pdn", "andon-features"])
def test_detectors_can_be_exported(teacher: str, fitted: EfficientAdDetector, of_features: EfficientAdDetector) -> None:
    detector = fitted if teacher == "pdn" else of_features
    batch = detector.transform.normalise(np.stack(images(1, seed=1)))
    exported = torch.export.export(detector, (batch,)).module()
    for found, expected in zip(exported(batch), detector(batch), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_is_missing_or_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no images"):
        method().fit([])
    with pytest.raises(AndonError, match="no such folder"):
        method(penalty=str(tmp_path / "nowhere")).fit(images())
    with pytest.raises(WeightsError, match="no file"):
        method(weights=str(tmp_path / "teacher.pth")).fit(images())
    with pytest.raises(TrainingError, match="the same everywhere"):
        method(penalty="none").fit([np.full((SIDE, SIDE, 3), 90, np.uint8)] * 3)
    for options, message in (
        ({"layers": ["cells"]}, "layers must"),
        ({"teacher": "andon-features"}, "layers must"),
        ({"transform": {"normalisation": "unit"}}, "imagenet"),
        ({"transform": {"size": (63, 64)}}, "at least 64"),
        ({"quantiles": (0.9, 0.9)}, "smaller first"),
    ):
        with pytest.raises(ConfigError, match=message):
            create_method("efficientad", options, preset="paper")


def test_report_tells_losses_stages_weights_and_what_was_shortened() -> None:
    report = method(steps=30, budget=0.1).fit(images()).report
    assert report.n_train == 5
    assert list(report.seconds) == ["teacher", "training", "normalisation"]
    assert set(report.curves) == {"hard features", "penalty", "autoencoder", "student-autoencoder", "loss"}
    assert report.curves["loss"][-1][0] == 3
    assert report.weights[0].part == "efficientad_teacher_small"
    assert not report.weights[0].pretrained
    assert "penalty images: rendered, seed 0, 3 of them" in report.notes
    assert "maps normalised on 2 held-out images" in report.notes
    assert "shortened training: 3 steps instead of 30 (budget 0.1)" in report.notes


@pytest.mark.parametrize("killed_at", [0, 3, 5])
def test_a_killed_training_ends_where_it_would_have_ended(
    killed_at: int, fitted: EfficientAdDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five steps: killed in the middle of one, or (5) while the maps are normalised."""
    steps = 0
    losses = EfficientAdStage.losses

    def counted(self: Any, *arguments: Any) -> Any:
        nonlocal steps
        if steps == killed_at:
            steps += 1000
            raise KeyboardInterrupt
        steps += 1
        return losses(self, *arguments)

    def killed_progress(stage: str, done: int, total: int) -> None:
        if stage == "normalisation" and killed_at == 5 and steps < 1000:
            raise KeyboardInterrupt

    monkeypatch.setattr(EfficientAdStage, "losses", counted)
    kept: dict[str, Any] = {"checkpoints": tmp_path, "checkpoint_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        method().fit(images(), run=FitRun(progress=killed_progress, **kept))
    resumed = fit(method(), images(), run=FitRun(**kept))
    assert steps == (5 if killed_at == 5 else 1000 + 5), "a step that was done is not done again"
    assert same(fitted, resumed)


# Training


def test_losses_fall_and_a_blot_is_found_where_it_is() -> None:
    trained = method(steps=120, train_batch_size=1, student_width=0.12, autoencoder_width=8, learning_rate=3e-3)
    detector = trained.fit(images(10))
    curves = detector.report.curves
    for loss in ("hard features", "autoencoder"):
        values = [value for _, value in curves[loss]]
        assert np.mean(values[-10:]) < 0.7 * np.mean(values[:10]), loss
    good, bad = detector.predict(images(6, seed=5)), detector.predict(images(6, seed=5, blot=True))
    assert bad.image_scores.min() > good.image_scores.max()
    assert bad.anomaly_maps is not None
    for found in bad.anomaly_maps:
        row, column = np.unravel_index(found.argmax(), found.shape)
        assert 38 - 8 <= row < 46 + 8
        assert 20 - 8 <= column < 28 + 8


def test_learning_rate_decays_at_the_given_part(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    step = torch.optim.Adam.step

    def watched(self: torch.optim.Adam, *arguments: Any) -> Any:
        seen.append(self.param_groups[0]["lr"])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    method(steps=20, penalty="none").fit(images(3))
    assert seen == pytest.approx([2e-3] * 19 + [2e-4])


def test_paper_is_the_default_and_presets_are_valid() -> None:
    paper = EfficientAdConfig()
    assert (paper.steps, paper.learning_rate, paper.weight_decay) == (70_000, 1e-4, 1e-5)
    assert (paper.decay_at, paper.decay, paper.hard_quantile) == (0.95, 0.1, 0.999)
    assert (paper.quantiles, paper.latent, paper.train_batch_size) == ((0.9, 0.995), 64, 1)
    study = create_method("efficientad", preset="study").config
    assert (study.size, study.epochs, study.validation_share) == ("medium", 250, 0.05)
    released = create_method("efficientad", preset="released-code").config
    # StepLR(0.95 · 250) stepped once an epoch: the learning rate falls at epoch 237, by the paper's factor.
    assert released == study.model_copy(update={"size": "small", "decay_at": 0.948})
    assert released.decay == paper.decay
    assert create_method("efficientad", preset="embedded").config.weights == "embedded"


def test_epochs_are_counted_in_trained_images() -> None:
    detector = method(epochs=4, train_batch_size=1, penalty="none").fit(images(5))
    assert detector.report.curves["loss"][-1][0] == 4 * 3


def test_one_pass_over_all_images_gives_the_losses_of_three() -> None:
    """The formulas of algorithm 1, computed plainly: three student passes, all channels, teacher not merged."""
    run = stage(method(dropout=0.0).config)
    plain = made("small", "random")[0]
    mean, std, networks = run.described.mean, run.described.std, run.networks
    batch = run.batch(0)
    losses = run.losses(batch)

    def teacher(x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = (plain(x) - mean[:, None, None]) / std[:, None, None]
        return output

    said, jittered = networks.student(batch.images), networks.student(batch.augmented)
    assert batch.penalty is not None
    nothing, decoded = networks.student(batch.penalty), networks.autoencoder(batch.augmented)
    distance = (teacher(batch.images) - said[:, :384]).square()
    hard = distance[distance >= torch.quantile(distance, 0.999)].mean()
    expected = {
        "hard features": hard,
        "penalty": nothing[:, :384].square().mean(),
        "autoencoder": (teacher(batch.augmented) - decoded).square().mean(),
        "student-autoencoder": (decoded - jittered[:, 384:]).square().mean(),
    }
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-6)
    parameters = list(networks.parameters())
    ours = torch.autograd.grad(sum(losses.values(), start=torch.zeros(())), parameters)
    theirs = torch.autograd.grad(sum(expected.values(), start=torch.zeros(())), parameters)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("limit", [1.0, 2.0 * 384 * 64 * 4 / 2**30, 0.0])
def test_teacher_statistics_and_outputs_whatever_is_kept(limit: float) -> None:
    config = method(memory_limit=limit).config
    train, transform = split(config).train, config.transform
    plain = made("small", "random")[0]
    batch = transform.normalise(np.stack([train.resized(i, transform) for i in range(3)]))
    raw = plain(batch).double()
    std, mean = torch.std_mean(raw, (0, 2, 3), correction=0)
    known = described(config)
    torch.testing.assert_close(known.mean, mean.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(known.std, std.float(), rtol=1e-5, atol=1e-6)
    assert len(known.kept) == {1.0: 3, 0.0: 0}.get(limit, 2)
    expected = (raw - mean[:, None, None]) / std[:, None, None]
    chosen = torch.tensor([2, 0])
    torch.testing.assert_close(known(chosen, batch[chosen]), expected[chosen].float(), rtol=1e-3, atol=1e-4)


def test_held_out_images_are_not_trained_on_and_normalise_the_maps(fitted: EfficientAdDetector) -> None:
    train, validation, overlaps = split(method().config)
    trained_on = {train.fingerprint(i) for i in range(len(train))}
    held_out = {validation.fingerprint(i) for i in range(len(validation))}
    assert (len(trained_on), len(held_out), overlaps) == (3, 2, False)
    assert not trained_on & held_out
    batch = fitted.transform.normalise(
        np.stack([validation.resized(i, fitted.transform) for i in range(len(validation))])
    )
    maps = fitted.coarse_maps(batch).double().numpy()
    expected = [[np.quantile(maps[:, k], q) for q in (0.9, 0.995)] for k in range(2)]
    np.testing.assert_allclose(fitted.quantiles.numpy(), expected, rtol=1e-5)
    everything = split(method(extra_normalisation=True).config)
    assert (len(everything.train), len(everything.validation), everything.overlaps) == (3, 5, True)
    alone = split(method().config, count=1)
    assert (len(alone.train), len(alone.validation), alone.overlaps) == (1, 1, True)


def test_map_is_normalised_averaged_padded_and_enlarged(fitted: EfficientAdDetector) -> None:
    batch = fitted.transform.normalise(np.stack(images(2, seed=3)))
    maps = fitted.coarse_maps(batch)
    quantiles = fitted.quantiles.numpy()
    scaled = np.mean(
        [0.1 * (maps[:, k].double().numpy() - low) / (high - low) for k, (low, high) in enumerate(quantiles)], axis=0
    )
    for padding, mode in (("zeros", "constant"), ("edge", "edge")):
        found = method(map_padding=padding).restore(fitted.state_dict(), fitted.report).predict_batch(batch)
        padded = np.pad(scaled, ((0, 0), (4, 4), (4, 4)), mode=mode)  # type: ignore[call-overload]
        expected = F.interpolate(torch.from_numpy(padded)[:, None], (SIDE, SIDE), mode="bilinear")[:, 0].numpy()
        np.testing.assert_allclose(found.anomaly_maps, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.image_scores, expected.max((1, 2)), rtol=1e-4, atol=1e-5)


# The parts


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9, 0.999])
def test_hard_features_are_those_at_or_above_numpys_quantile(quantile: float) -> None:
    generator = step_generator(0, "hard")
    for values in (torch.rand(1000, generator=generator), torch.randint(0, 7, (2, 7, 11), generator=generator).float()):
        array = values.numpy().ravel().astype(np.float64)
        expected = array[array >= np.quantile(array, quantile)].mean()
        assert float(hard_feature_loss(values, quantile)) == pytest.approx(expected, rel=1e-5)


def test_hard_feature_loss_of_few_elements() -> None:
    assert float(hard_feature_loss(torch.tensor([3.0]))) == 3
    assert float(hard_feature_loss(torch.tensor([1.0, 2.0]), 0.999)) == 2


def test_only_hard_features_have_a_gradient() -> None:
    distance = torch.arange(2001.0, requires_grad=True)
    hard_feature_loss(distance, 0.999).backward()  # type: ignore[no-untyped-call]
    assert distance.grad is not None
    np.testing.assert_allclose(distance.grad.numpy(), np.where(np.arange(2001) >= 1998, 1 / 3, 0), rtol=1e-6)


def test_colour_jitter_against_opencv_and_closed_forms() -> None:
    image = np.random.default_rng(0).random((9, 7, 3), np.float32)
    tensor = torch.from_numpy(image.transpose(2, 0, 1))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    for kind, other in ((0, np.zeros_like(image)), (1, np.full_like(image, grey.mean())), (2, grey[..., None])):
        for factor in (0.8, 1.0, 1.2):
            expected = np.clip(factor * image + (1 - factor) * other, 0, 1)
            found = colour_jitter(tensor, kind, factor).numpy().transpose(1, 2, 0)
            np.testing.assert_allclose(found, expected, atol=2e-6)


def test_batches_are_functions_of_the_step_and_the_jittered_image_is_the_same_image() -> None:
    run, again = stage(method().config), stage(method().config)
    batch = run.batch(7)
    for one, other in zip(batch, again.batch(7), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(batch.augmented, batch.images)
    still = stage(method(jitter=0.0).config).batch(7)
    torch.testing.assert_close(still.augmented, still.images, rtol=1e-4, atol=1e-5)


def test_penalty_images_are_centres_of_images_twice_as_large() -> None:
    config = method(penalty_grey=0.0, transform=Transform(size=(64, 96))).config
    source = PenaltyImages(config)
    crops = [source.image(number, np.random.default_rng(number)) for number in range(4)]
    whole = [source.source.image(i, 192)[64:128, 48:144] for i in range(3)]
    assert all(any(np.array_equal(crop, one) for one in whole) for crop in crops)
    grey = PenaltyImages(method(penalty_grey=1.0).config).image(0, np.random.default_rng(0))
    assert (grey == grey[..., :1]).all()


def test_autoencoder_is_the_papers_at_256() -> None:
    network = Autoencoder((256, 256), (56, 56), 384)
    sizes = [layer.size for layer in network.decoder if isinstance(layer, torch.nn.Upsample)]
    assert sizes == [(s, s) for s in (3, 8, 15, 32, 63, 127, 56)]

    def count(inputs: int, outputs: int, kernel: int) -> int:
        return (inputs * kernel * kernel + 1) * outputs

    expected = count(3, 32, 4) + count(32, 32, 4) + count(32, 64, 4) + 2 * count(64, 64, 4) + count(64, 64, 8)
    expected += 6 * count(64, 64, 4) + count(64, 64, 3) + count(64, 384, 3)
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize("size", [(64, 64), (96, 130), (200, 150)])
def test_autoencoder_has_one_bottleneck_vector_and_the_students_grid_at_any_size(size: tuple[int, int]) -> None:
    grid = output_size(*size)
    network = Autoencoder(size, grid, 6, latent=3, width=4).eval()
    image = torch.rand((2, 3, *size), generator=step_generator(0))
    assert network.encoder(image).shape == (2, 3, 1, 1)
    assert network(image).shape == (2, 6, *grid)
    assert PDN("small", 4, width=0.05)(image).shape[2:] == grid


def test_features_are_read_at_the_centres_of_the_patches() -> None:
    """Features that are their own pixel coordinates come out as the patches' centres: 16, 20, 24 …"""
    height, width, cell = 96, 128, 8
    y, x = np.mgrid[: height // cell, : width // cell] * cell + (cell - 1) / 2
    features = torch.from_numpy(np.stack([y, x])[None].astype(np.float32))
    found = on_grid(features, (height, width), output_size(height, width), SAMPLING)[0].numpy()
    rows, columns = output_size(height, width)
    np.testing.assert_allclose(found[0], np.broadcast_to(16 + 4 * np.arange(rows)[:, None], (rows, columns)), rtol=1e-5)
    np.testing.assert_allclose(found[1], np.broadcast_to(16 + 4 * np.arange(columns), (rows, columns)), rtol=1e-5)
