"""DSR: training, resuming, scores, and the parts of a step against independent calculations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

import andon
from andon.core import ConfigError, DetectorError, ImageArray, TrainingError, WeightsError
from andon.data import Images, Transform
from andon.methods import FitRun, Fitting, create_method
from andon.methods.dsr import Dsr, DsrConfig, DsrDetector, training
from andon.methods.dsr.codebook import load_discrete_latent_model
from andon.methods.dsr.subspaces import compare, encode, render, restore
from andon.methods.dsr.training import DecoderStage, UpsamplingStage, learn_mean_codes
from andon.training import Stage, TrainingReport
from tests.methods.trainings import same

SIDE = 64
SMALL: Mapping[str, Any] = {
    "transform": Transform(size=(SIDE, SIDE), normalisation="unit"),
    "weights": "embedded",
    "epoch_samples": 6,
    "epochs": 2,
    "upsampling_epochs": 1,
    "train_batch_size": 3,
    "learning_rate": 5e-3,
    "subspace_width": 4,
    "decoder_width": 4,
    "decoder_bottleneck": 4,
    "decoder_hidden": 8,
    "decoder_residual": 4,
    "detection_width": 4,
    "upsampling_width": 4,
    "score_window": 7,
}


def method(**options: Any) -> Dsr:
    return Dsr(DsrConfig(**{**SMALL, **options}))


def fit(images: list[ImageArray], *, seed: int = 0, run: FitRun | None = None, **options: Any) -> DsrDetector:
    detector = method(**options).fit(images, seed=seed, run=run)
    assert isinstance(detector, DsrDetector)
    return detector


def good_images(count: int = 5, seed: int = 0) -> list[ImageArray]:
    """A disc that moves a little over stripes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    result = []
    for _ in range(count):
        dy, dx = rng.uniform(-3, 3, 2)
        disc = np.hypot(y - 30 - dy, x - 34 - dx) < 14
        grey = np.where(disc, 200, 70 + 25 * np.sin(x / 4 + dx))
        grey = grey[..., None] * np.array([1.0, 0.9, 0.8]) + rng.normal(0, 2, (SIDE, SIDE, 3))
        result.append(np.clip(grey, 0, 255).astype(np.uint8))
    return result


@pytest.fixture(scope="module")
def fitted() -> DsrDetector:
    return fit(good_images())


# The contract


def test_scores_do_not_depend_on_batch_mates(fitted: DsrDetector) -> None:
    batch = fitted.transform.normalise(np.stack(good_images(5, seed=1)))
    together = fitted.predict_batch(batch)
    for i in range(5):
        alone = fitted.predict_batch(batch[i : i + 1])
        np.testing.assert_array_equal(alone.image_scores, together.image_scores[i : i + 1])
        np.testing.assert_array_equal(alone.anomaly_maps, together.anomaly_maps[i : i + 1])
    assert together.anomaly_maps is not None
    assert together.anomaly_maps.shape == (5, SIDE, SIDE)
    assert together.anomaly_maps.dtype == together.image_scores.dtype == np.float32


def test_training_leaves_nothing_of_a_batch_in_the_networks() -> None:
    """No running statistics: that nothing else than weights is learned is what keeps images apart."""
    networks = stage_of(DecoderStage, good_images(1)).networks
    assert not list(networks.buffers())


def test_same_seed_same_result_and_another_seed_another(fitted: DsrDetector) -> None:
    before = torch.get_rng_state()
    assert same(fitted, fit(good_images()))
    assert torch.equal(before, torch.get_rng_state())
    assert not same(fitted, fit(good_images(), seed=1))


def test_state_round_trip_is_exact(fitted: DsrDetector, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    fitted.save(tmp_path / "dsr.safetensors")
    restored = method().restore({name: tensor.clone() for name, tensor in fitted.state_dict().items()}, fitted.report)
    assert torch.equal(before, torch.get_rng_state())
    one = fitted.predict(good_images(2, seed=2))
    for copy in (restored, andon.load(tmp_path / "dsr.safetensors")):
        assert same(fitted, copy)
        assert copy.report == fitted.report
        other = copy.predict(good_images(2, seed=2))
        np.testing.assert_array_equal(one.anomaly_maps, other.anomaly_maps)
        np.testing.assert_array_equal(one.image_scores, other.image_scores)


def test_a_saved_state_needs_no_codebook_from_elsewhere(fitted: DsrDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("weights are looked for")

    monkeypatch.setattr("andon.methods.dsr.method.load_discrete_latent_model", refuse)
    copy = method(weights="absent.safetensors").restore(fitted.state_dict(), fitted.report)
    assert same(fitted, copy)


def test_wrong_states_are_refused_by_name(fitted: DsrDetector) -> None:
    name = "networks.detection.unet.decoder.fin_out.0.bias"
    state, report = fitted.state_dict(), fitted.report
    with pytest.raises(DetectorError, match=f"lacks the tensor {name}"):
        method().restore({n: t for n, t in state.items() if n != name}, report)
    with pytest.raises(DetectorError, match=rf"tensor {name} of the saved state is \[3\], not \[2\]"):
        method().restore({**state, name: torch.zeros(3)}, report)
    with pytest.raises(DetectorError, match="unknown tensor extra"):
        method().restore({**state, "extra": torch.zeros(3)}, report)
    name = "latents._vq_vae_top._embedding.weight"
    with pytest.raises(DetectorError, match=rf"{name} .* not finite"):
        method().restore({**state, name: torch.full_like(state[name], torch.nan)}, report)


def test_no_images_is_said() -> None:
    with pytest.raises(TrainingError, match="no images"):
        method().fit([])


@pytest.mark.parametrize("options", [{}, {"decoder": "general", "restriction_mean": True, "upsampling_epochs": 0}])
def test_can_be_exported(options: dict[str, Any]) -> None:
    detector = fit(good_images(2), epochs=0.5, upsampling_epochs=options.pop("upsampling_epochs", 0.5), **options)
    batch = detector.transform.normalise(np.stack(good_images(2, seed=7)))
    exported = torch.export.export(detector, (batch,)).module()
    for ours, theirs in zip(detector(batch), exported(batch), strict=True):
        torch.testing.assert_close(theirs, ours)


def test_report_tells_losses_stages_weights_and_what_was_shortened() -> None:
    report = fit(good_images(), epochs=20, upsampling_epochs=10, budget=0.1).report
    assert report.n_train == 5
    assert list(report.seconds) == ["decoders", "upsampling"]
    assert set(report.curves) == {
        "decoders/coarse features", "decoders/fine features", "decoders/reconstruction", "decoders/focal",
        "decoders/loss", "upsampling/focal",
    }  # fmt: skip
    assert report.curves["decoders/loss"][-1][0] == 4
    assert report.weights[0].part == "dsr_discrete_latent_model"
    assert any(note.startswith("codebook: ") and "embedded" in note for note in report.notes)
    assert "shortened training: 6 steps instead of 60 (budget 0.1)" in report.notes


@pytest.mark.parametrize("killed_at", [2, 4, 5, 6])
def test_a_killed_training_ends_where_it_would_have_ended(
    killed_at: int, fitted: DsrDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four steps of the decoders, two of the up-sampling module: killed in the middle of a step of either."""
    calls = 0
    original = training.mask_loss

    def kill(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == killed_at:
            raise KeyboardInterrupt
        return original(*arguments)

    run = FitRun(checkpoints=tmp_path, checkpoint_seconds=0)
    monkeypatch.setattr(training, "mask_loss", kill)
    with pytest.raises(KeyboardInterrupt):
        fit(good_images(), run=run)
    resumed = fit(good_images(), run=run)
    assert calls == 7, "a step that was done is not done again"
    assert same(fitted, resumed)


# Training


def test_losses_fall() -> None:
    options = {"epochs": 8, "epoch_samples": 6, "upsampling_epochs": 0, "rotation_probability": 0}
    curves = fit(good_images(), learning_rate=1e-2, **options).report.curves
    for loss in ("coarse features", "fine features", "reconstruction"):
        values = [value for _, value in curves[loss]]
        assert np.mean(values[-3:]) < 0.6 * np.mean(values[:2]), loss


def test_without_the_upsampling_module_the_map_is_the_detection_modules() -> None:
    trained = fit(good_images(), upsampling_epochs=0)
    assert list(trained.report.seconds) == ["decoders"]
    batch = trained.transform.normalise(np.stack(good_images(2, seed=3)))
    maps = trained.predict_batch(batch).anomaly_maps
    for i in range(2):
        views = compare(trained.latents, trained.networks, batch[i : i + 1])
        np.testing.assert_array_equal(maps[i], views.mask[0, 1].numpy())


def test_image_score_is_the_largest_local_mean_of_the_detection_mask(fitted: DsrDetector) -> None:
    batch = fitted.transform.normalise(np.stack(good_images(3, seed=4)))
    scores = fitted.predict_batch(batch).image_scores
    for i in range(3):
        mask = compare(fitted.latents, fitted.networks, batch[i : i + 1]).mask[0, 1].double().numpy()
        expected = uniform_filter(mask, size=7, mode="constant").max()
        assert scores[i] == pytest.approx(expected, rel=1e-5)


def test_general_decoder_renders_unchanged_codes_alike() -> None:
    trained = fit(good_images(), decoder="general", upsampling_epochs=0, epochs=1)
    assert not any(name.startswith("networks.reconstruction.") for name in trained.state_dict())
    latents, networks = trained.latents, trained.networks
    encoding = encode(latents, trained.transform.normalise(np.stack(good_images(1))))
    coarse, fine = latents.top.look_up(encoding.coarse_codes), latents.bottom.look_up(encoding.fine_codes)
    assert torch.equal(networks.render(latents, coarse, fine), render(latents, coarse, fine))


def test_restriction_around_the_mean_begins_with_the_mean_codes() -> None:
    images = good_images(4)
    stage = stage_of(DecoderStage, images, restriction_mean=True, decoder="general", upsampling_epochs=0)
    latents, networks = stage.latents, stage.networks
    encoding = encode(latents, SMALL["transform"].normalise(np.stack(images)))
    codes = latents.top.look_up(encoding.coarse_codes), latents.bottom.look_up(encoding.fine_codes)
    learn_mean_codes(stage.fitting, latents, networks)
    means = networks.mean_coarse, networks.mean_fine
    for mean, level in zip(means, codes, strict=True):
        assert mean is not None
        np.testing.assert_allclose(mean.numpy(), level.numpy().mean(0), rtol=1e-4, atol=1e-5)
    coarse, fine, image = restore(latents, networks, *codes)
    assert torch.equal(coarse[2], means[0])
    assert torch.equal(fine[3], means[1])
    assert torch.equal(image[0], image[1])


def test_mean_codes_are_a_part_of_the_state() -> None:
    options = {"restriction_mean": True, "decoder": "general", "upsampling_epochs": 0, "epochs": 1}
    trained = fit(good_images(), **options)
    state = trained.state_dict()
    assert state["networks.mean_fine"].shape == (128, SIDE // 4, SIDE // 4)
    assert state["networks.mean_coarse"].abs().max() > 0
    copy = method(**options).restore(state, trained.report)
    one, other = trained.predict(good_images(1, seed=5)), copy.predict(good_images(1, seed=5))
    np.testing.assert_array_equal(one.anomaly_maps, other.anomaly_maps)


def captured(
    options: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch, count: int = 10
) -> tuple[DecoderStage, UpsamplingStage]:
    """The stages that a fit would train, without training."""
    stages: list[Any] = []

    def record(self: Fitting, stage: Stage[Any]) -> TrainingReport:
        stages.append(stage)
        return TrainingReport(stage.steps, 0.0, {})

    monkeypatch.setattr(Fitting, "train", record)
    create_method("dsr", {**options, "weights": "embedded"}, preset="paper").fit(good_images(count))
    assert [stage.name for stage in stages] == ["decoders", "upsampling"]
    return stages[0], stages[1]


def test_the_studys_schedule_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 8; second stage to epoch 350 with a decay at 280, then the up-sampling module to 500."""
    narrow = {k: v for k, v in SMALL.items() if k.endswith(("width", "bottleneck", "hidden", "residual"))}
    preset = {**Dsr.presets["study"], **narrow, "transform": SMALL["transform"].model_dump()}
    decoders, upsampling = captured(preset, monkeypatch)
    assert (decoders.steps, upsampling.steps) == (438, 188)  # 10 images: 1.25 steps an epoch
    optimiser = decoders.optimiser()
    assert optimiser.defaults["lr"] == 2e-4
    assert isinstance(optimiser, torch.optim.Adam)
    factors = [decoders.schedule()(step) for step in range(decoders.steps)]
    first = round(280 * 1.25)
    assert factors == pytest.approx([1.0] * first + [0.1] * (438 - first))
    assert len(decoders.batch(0).indices) == 8


def test_the_authors_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 epochs of 8,000 images in batches of 8; half as many of the up-sampling module."""
    narrow = {k: v for k, v in SMALL.items() if k.endswith(("width", "bottleneck", "hidden", "residual", "transform"))}
    stages = captured(narrow, monkeypatch, count=2)
    assert [stage.steps for stage in stages] == [100_000, 50_000]
    schedule = stages[1].schedule()
    assert [schedule(step) for step in (0, 39_999, 40_000, 45_000)] == pytest.approx([1, 1, 0.2, 0.04])


def test_each_optimiser_has_its_own_stage_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = {k: v for k, v in SMALL.items() if k.endswith(("width", "bottleneck", "hidden", "residual", "transform"))}
    stages = captured(narrow, monkeypatch, count=2)
    networks = stages[0].networks
    assert stages[0].modules() == stages[1].modules() == {"networks": networks}
    upsampling = {id(p) for p in networks.upsampling.parameters()}
    rest, trained = ({id(p) for group in s.optimiser().param_groups for p in group["params"]} for s in stages)
    assert trained == upsampling
    assert rest == {id(p) for p in networks.parameters()} - upsampling


# Parts of a step


def stage_of(
    kind: type[DecoderStage | UpsamplingStage], images: list[ImageArray], **options: Any
) -> DecoderStage | UpsamplingStage:
    recipe, (latents, _) = method(**options), load_discrete_latent_model("embedded")
    networks = recipe._networks(latents)
    networks.initialise(0)
    return kind(Fitting(recipe, Images(images), 0, FitRun()), latents, networks)


@pytest.mark.parametrize("kind", [DecoderStage, UpsamplingStage])
def test_what_is_known_of_an_image_is_what_it_would_be_computed_to(kind: type[DecoderStage | UpsamplingStage]) -> None:
    per_image = sum(
        part[0].numel() * part.element_size()
        for part in stage_of(kind, good_images(1)).describe(torch.rand(1, 3, SIDE, SIDE))
    )
    stage = stage_of(kind, good_images(), memory_limit=3.5 * per_image / 2**30)
    indices, usable = torch.tensor([4, 0, 2, 1]), torch.tensor([True, True, False, True])
    batch = SMALL["transform"].normalise(np.stack([good_images()[i] for i in indices.tolist()]))
    batch[2] = batch[2].flip(1)
    found = stage.look_up(indices, usable, batch)
    assert stage.known is not None
    assert len(stage.known) == 3, "images beyond the memory limit are not kept"
    assert stage.known.get(3) is stage.known.get(4) is None
    for part, expected in zip(found, stage.describe(batch), strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-3, atol=1e-4)
    # Known rows come from memory, not from the images handed in.
    remembered = stage.look_up(indices[1:2], usable[1:2], torch.zeros_like(batch[1:2]))
    kept = stage.known.get(0)
    assert kept is not None
    assert torch.equal(remembered[0][0], kept[0])
    stage.close()
    assert stage.known is None


def test_smudges_lie_beneath_the_mask_alone_and_have_one_colour() -> None:
    image, mask = good_images(1)[0], np.zeros((SIDE, SIDE), np.float32)
    mask[10:20, 30:50] = 1
    smudged = training._smudged(image, mask, np.random.default_rng(0), 0.8)
    plain = image.transpose(2, 0, 1) / 255
    np.testing.assert_allclose(smudged[:, mask == 0], plain[:, mask == 0], atol=1e-6)
    # beneath, each channel is a·image + b with one a for all: the transparency
    fits = [np.polyfit(plain[c][mask > 0], smudged[c][mask > 0], 1) for c in range(3)]
    slopes = [slope for slope, _ in fits]
    np.testing.assert_allclose(slopes, slopes[0], atol=1e-4)
    assert 0 <= slopes[0] < 0.8
    assert all(-1e-4 <= offset <= 1 - slopes[0] + 1e-4 for _, offset in fits)


def test_batches_are_functions_of_their_number() -> None:
    for kind in (DecoderStage, UpsamplingStage):
        one, other = stage_of(kind, good_images()), stage_of(kind, good_images())
        other.batch(0)
        first, second = one.batch(3), other.batch(3)
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.mask, second.mask)
        assert not torch.equal(first.images, one.batch(4).images)


def test_anomalies_and_rotations_come_as_often_as_asked() -> None:
    options = {"train_batch_size": 200, "anomaly_probability": 0.5, "rotation_probability": 0.4}
    decoders = stage_of(DecoderStage, good_images(), **options).batch(0)
    assert 0.5 < decoders.untouched.float().mean() < 0.7
    altered = decoders.mask.flatten(1).any(1).float().mean()
    assert 0.2 < altered < 0.55  # masks may be empty
    always = stage_of(UpsamplingStage, good_images(), train_batch_size=100, anomaly_probability=0.0).batch(0)
    assert not always.mask.any()
    assert 0.5 < always.untouched.float().mean() < 0.9


@pytest.mark.parametrize("twice", [False, True])
def test_focal_loss_in_closed_form(twice: bool) -> None:
    probabilities = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    mask = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).view(1, 1, 2, 2)
    p = np.exp([0.9, 0.1]) / np.exp([0.9, 0.1]).sum() if twice else np.array([0.9, 0.1])
    expected = -(3 * (1 - p[0]) ** 2 * np.log(p[0]) + (1 - p[1]) ** 2 * np.log(p[1])) / 4
    assert training.mask_loss(
        DsrConfig.model_validate({"softmax_twice": twice}), probabilities, mask
    ).item() == pytest.approx(expected, rel=1e-3)


# Configuration


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transform": {"normalisation": "imagenet"}}, "normalisation must be 'unit'"),
        ({"transform": {"size": [256, 200], "normalisation": "unit"}}, "multiples of 32"),
        ({"transform": {"size": [32, 32], "normalisation": "unit"}}, "at least 64"),
        ({"score_window": 4}, "must be odd"),
        ({"decay_at": [280]}, "parts of the training"),
        ({"perlin_exponents": [3, 1]}, "the smaller first"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_method("dsr", options, preset="paper")


def test_a_size_alone_keeps_the_normalisation() -> None:
    assert create_method("dsr", {"transform": {"size": [96, 64]}}).config.transform == Transform(
        size=(96, 64), normalisation="unit"
    )


def test_missing_codebook_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.safetensors"):
        method(weights=str(tmp_path / "absent.safetensors")).fit(good_images(1))
