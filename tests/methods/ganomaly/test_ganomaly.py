"""GANomaly: networks by the authors' names, a step against their two optimisers, scores, state."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from andon.core import DetectorError
from andon.data import as_images
from andon.methods import FitRun, Fitting, check_method, create_method
from andon.methods.ganomaly import Ganomaly, GanomalyConfig, GanomalyDetector
from andon.methods.ganomaly.networks import Discriminator, Generator, initialise
from andon.methods.ganomaly.training import GanomalyStage
from tests.methods.trainings import (
    assert_goes_on_after_a_kill,
    assert_is_saved_and_exported,
    assert_seed_decides,
    detection,
    good_images,
)

SMALL: dict[str, Any] = {"width": 4, "latent": 8, "epochs": 8, "train_batch_size": 4}


def make(**options: Any) -> Ganomaly:
    method = create_method("ganomaly", {**SMALL, **options}, preset="paper")
    assert isinstance(method, Ganomaly)
    return method


def test_defaults_and_presets() -> None:
    config = GanomalyConfig()
    assert (config.patch, config.latent, config.width, config.train_batch_size) == (32, 100, 64, 64)
    assert (config.adversarial_weight, config.contextual_weight, config.encoder_weight) == (1, 50, 1)
    assert (config.learning_rate, config.momentum, config.epochs) == (2e-3, 0.5, 25)
    assert create_method("ganomaly", preset="authors-code").config.score == "l2"  # type: ignore[attr-defined]
    for preset in Ganomaly.presets:
        assert create_method("ganomaly", preset=preset).config.patch in (32, 64)  # type: ignore[attr-defined]


# Networks


def encoder_parameters(side: int, outputs: int, w: int) -> int:
    total, side = 3 * w * 16, side // 2
    while side > 4:
        total, w, side = total + w * 2 * w * 16 + 2 * 2 * w, 2 * w, side // 2
    return total + w * outputs * 16


def decoder_parameters(side: int, latent: int, w: int) -> int:
    total, outputs = 3 * w * 16, w
    while side > 8:
        total, outputs, side = total + 2 * outputs * outputs * 16 + 2 * outputs, 2 * outputs, side // 2
    return total + latent * outputs * 16 + 2 * outputs


@pytest.mark.parametrize(("side", "published"), [(32, 3_206_528), (64, 10_729_856)])
def test_networks_have_the_authors_layers(side: int, published: int) -> None:
    with torch.device("meta"):
        generator, discriminator = Generator(side, 100, 64), Discriminator(side, 64)
        assert generator(torch.zeros(2, 3, side, side))[0].shape == (2, 3, side, side)
        assert discriminator(torch.zeros(2, 3, side, side)).shape == (2,)
        assert discriminator.features(torch.zeros(2, 3, side, side)).shape[2:] == (4, 4)
    expected = 2 * encoder_parameters(side, 100, 64) + decoder_parameters(side, 100, 64)
    assert sum(p.numel() for p in generator.parameters()) == expected == published
    assert sum(p.numel() for p in discriminator.parameters()) == encoder_parameters(side, 1, 64)


def test_tensors_have_the_authors_names() -> None:
    names = {n: tuple(t.shape) for n, t in Generator(32, 100, 64, 1).state_dict().items()}
    assert names["encoder1.main.initial-conv-3-64.weight"] == (64, 3, 4, 4)
    assert names["encoder2.main.extra-layers-0-64-conv.weight"] == (64, 64, 3, 3)
    assert names["encoder1.main.pyramid-64-128-conv.weight"] == (128, 64, 4, 4)
    assert names["encoder1.main.pyramid-256-batchnorm.running_var"] == (256,)
    assert names["encoder1.main.final-256-1-conv.weight"] == (100, 256, 4, 4)
    assert names["decoder.main.initial-100-256-convt.weight"] == (100, 256, 4, 4)
    assert names["decoder.main.pyramid-256-128-convt.weight"] == (256, 128, 4, 4)
    assert names["decoder.main.final-64-3-convt.weight"] == (64, 3, 4, 4)
    assert not any("bias" in name for name in names if "conv" in name)


def test_initial_weights() -> None:
    generator = Generator(32, 32, 32)
    initialise(generator, 0)
    for name, tensor in generator.state_dict().items():
        if name.endswith("weight"):
            mean = 1.0 if "batchnorm" in name else 0.0
            assert float(tensor.mean()) == pytest.approx(mean, abs=0.02)
            assert float(tensor.std()) == pytest.approx(0.02, rel=0.5 if "batchnorm" in name else 0.1), name


# Training


def stage_of(**options: Any) -> GanomalyStage:
    method = make(**options)
    generator, discriminator = Generator(32, 8, 4), Discriminator(32, 4)
    initialise(generator, 0)
    initialise(discriminator, 1)
    return GanomalyStage(Fitting(method, as_images(good_images(6)), 0, FitRun()), generator, discriminator)


def test_a_step_is_that_of_the_authors_two_optimisers() -> None:
    stage = stage_of()
    stage.generator.double(), stage.discriminator.double()
    generator, discriminator = copy.deepcopy(stage.generator), copy.deepcopy(stage.discriminator)
    of_generator = torch.optim.Adam(generator.parameters(), 2e-3, betas=(0.5, 0.999))
    of_discriminator = torch.optim.Adam(discriminator.parameters(), 2e-3, betas=(0.5, 0.999))
    ours = stage.optimiser()
    for step in range(3):
        batch = stage.batch(step).double()
        losses = stage.losses(batch)
        ours.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        ours.step()

        given, described, again = generator(batch)
        real, made = discriminator(batch), discriminator(given.detach())
        adversarial = ((discriminator.features(batch) - discriminator.features(given)) ** 2).mean()
        contextual, encoder = (given - batch).abs().mean(), ((again - described) ** 2).mean()
        of_generator.zero_grad()
        (adversarial + 50 * contextual + encoder).backward(retain_graph=True)
        said = -0.5 * (torch.sigmoid(real).log().mean() + (1 - torch.sigmoid(made)).log().mean())
        of_discriminator.zero_grad()
        gradients = torch.autograd.grad(said, list(discriminator.parameters()))
        of_generator.step()
        for parameter, gradient in zip(discriminator.parameters(), gradients, strict=True):
            parameter.grad = gradient
        of_discriminator.step()

        expected = {
            "adversarial": adversarial,
            "contextual": 50 * contextual,
            "encoder": encoder,
            "discriminator": said,
        }
        for name, loss in losses.items():
            assert float(loss.detach()) == pytest.approx(float(expected[name].detach()), rel=1e-6), (step, name)
    for mine, theirs in ((stage.generator, generator), (stage.discriminator, discriminator)):
        for (name, a), b in zip(mine.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9, msg=name)


def test_a_discriminator_that_has_won_begins_anew() -> None:
    stage = stage_of(restart_below=100.0)
    first = {n: p.clone() for n, p in stage.discriminator.named_parameters()}
    stage.losses(stage.batch(0))
    assert all(torch.equal(p, first[n]) for n, p in stage.discriminator.named_parameters())
    stage.losses(stage.batch(1))
    assert not any(torch.equal(p, first[n]) for n, p in stage.discriminator.named_parameters() if p.ndim > 1)
    assert int(stage.referee.restarts) == 1
    detector = make(restart_below=100.0, epochs=4).fit(good_images(4))
    assert detector.report.notes == ("the discriminator began anew 3 time(s)",)


@pytest.fixture(scope="module")
def trained() -> GanomalyDetector:
    detector = make(width=8, epochs=120, learning_rate=2e-3).fit(good_images(8), seed=2)
    assert isinstance(detector, GanomalyDetector)
    return detector


def test_training_gives_images_back_and_finds_defects(trained: GanomalyDetector) -> None:
    curves = trained.report.curves
    assert set(curves) == {"adversarial", "contextual", "encoder", "discriminator", "loss"}
    contextual = [value for _, value in curves["contextual"]]
    assert np.mean(contextual[-10:]) < 0.4 * np.mean(contextual[:5])
    images, pixels = detection(trained)
    assert images > 0.8
    assert pixels > 0.8


@pytest.mark.parametrize("score", ["l1", "l2"])
def test_the_score_is_the_distance_of_the_descriptions(trained: GanomalyDetector, score: str) -> None:
    config = trained.config.model_copy(update={"score": score, "transform": trained.transform})
    detector = GanomalyDetector(config, trained.generator).eval()
    batch = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        scores, maps = detector(batch)
        said = trained.generator.encoder1(2 * batch - 1)
        given = trained.generator.decoder(said)
        apart = (said - trained.generator.encoder2(given)).view(2, -1)
    expected = (
        F.l1_loss(apart, torch.zeros_like(apart), reduction="none").sum(1) if score == "l1" else apart.pow(2).mean(1)
    )
    torch.testing.assert_close(scores, expected)
    torch.testing.assert_close(maps, (given - 2 * batch + 1).abs().mean(1))


def test_of_several_patches_the_worst_counts() -> None:
    detector = make(transform={"size": (64, 64)}, epochs=1, sigma=1.0).fit(good_images(4, side=64))
    assert isinstance(detector, GanomalyDetector)
    prediction = detector.predict(good_images(2, 3, 64))
    with torch.no_grad():
        batch = 2 * detector.transform.normalise(np.stack(good_images(2, 3, 64))) - 1
        each = [detector.judge(batch[..., y : y + 32, x : x + 32])[0] for y in (0, 32) for x in (0, 32)]
    np.testing.assert_allclose(prediction.image_scores, torch.stack(each).amax(0), rtol=1e-4)
    assert prediction.anomaly_maps is not None
    assert prediction.anomaly_maps.shape == (2, 64, 64)


# The contract


def test_a_saved_and_an_exported_detector_score_the_same(trained: GanomalyDetector, tmp_path: Path) -> None:
    assert_is_saved_and_exported(trained, tmp_path)
    with pytest.raises(DetectorError, match="generator"):
        make(width=4).restore(trained.state_dict(), trained.report)


def test_the_seed_decides() -> None:
    assert_seed_decides(make(epochs=2))


def test_goes_on_bit_for_bit_after_being_killed(tmp_path: Path) -> None:
    assert_goes_on_after_a_kill(make(restart_below=0.7), tmp_path, "training", 3)


def test_the_contract_is_kept() -> None:
    report = check_method("ganomaly", {**SMALL, "epochs": 1}, preset="paper")
    assert [item for item in report.items if item.outcome == "broken"] == []
