"""f-AnoGAN: networks and penalty against their formulas, the turns against two optimisers, scores, state."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from andon.core import DetectorError
from andon.data import as_images
from andon.methods import FitRun, Fitting, check_method, create_method
from andon.methods.f_anogan import FAnogan, FAnoganConfig, FAnoganDetector
from andon.methods.f_anogan.networks import Critic, Encoder, Generator, ResidualBlock, initialise
from andon.methods.f_anogan.training import Batch, EncoderStage, GanStage, gradient_penalty
from tests.methods.trainings import (
    assert_goes_on_after_a_kill,
    assert_is_saved_and_exported,
    assert_seed_decides,
    detection,
    good_images,
)

SMALL: dict[str, Any] = {
    "transform": {"size": (16, 16)},
    "patch": 16,
    "width": 4,
    "latent": 6,
    "train_batch_size": 4,
    "critic_steps": 7,
    "encoder_steps": 4,
}


def make(**options: Any) -> FAnogan:
    method = create_method("f-anogan", {**SMALL, **options}, preset="paper")
    assert isinstance(method, FAnogan)
    return method


def test_defaults_and_presets() -> None:
    config = FAnoganConfig()
    assert (config.patch, config.latent, config.width, config.train_batch_size) == (64, 128, 64, 64)
    assert (config.steps_a_turn, config.penalty_weight, config.momentum, config.second_momentum) == (5, 10, 0.0, 0.9)
    assert (config.learning_rate, config.encoder_learning_rate, config.encoder_steps) == (1e-4, 5e-5, 50_000)
    assert (config.kappa, config.encoder_range) == (1.0, "tanh")
    for preset in FAnogan.presets:
        assert create_method("f-anogan", preset=preset).config.patch in (32, 64)  # type: ignore[attr-defined]


# Networks


def block_parameters(inputs: int, outputs: int, *, grows: bool) -> int:
    middle = outputs if grows else inputs
    convolutions = 9 * inputs * middle + 9 * middle * outputs + outputs + inputs * outputs + outputs
    return convolutions + 2 * inputs + 2 * middle


def test_networks_have_the_authors_layers() -> None:
    w, latent = 64, 128
    down = [(w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w), (8 * w, 8 * w)]
    halving = 27 * w + w + sum(block_parameters(*pair, grows=False) for pair in down)
    up = [(8 * w, 8 * w), (8 * w, 4 * w), (4 * w, 2 * w), (2 * w, w)]
    generator = (latent + 1) * 16 * 8 * w + sum(block_parameters(*pair, grows=True) for pair in up) + 2 * w + 27 * w + 3
    with torch.device("meta"):
        networks = (
            Critic(64, w),
            Encoder(64, latent, w, 0.01, bounded=True),
            Generator(64, latent, w, 0.01),
        )
        assert networks[2](torch.zeros(2, latent)).shape == (2, 3, 64, 64)
        assert networks[1](torch.zeros(2, 3, 64, 64)).shape == (2, latent)
        assert networks[0](torch.zeros(2, 3, 64, 64)).shape == (2,)
        assert networks[0].features(torch.zeros(2, 3, 64, 64)).shape == (2, 4 * 4 * 8 * w)
    expected = [halving + 16 * 8 * w + 1, halving + (16 * 8 * w + 1) * latent, generator]
    assert [sum(p.numel() for p in n.parameters()) for n in networks] == expected == [7_491_841, 8_532_352, 8_540_483]


@pytest.mark.parametrize("side", [16, 32, 128])
def test_other_patches_end_at_four_pixels_too(side: int) -> None:
    latent = torch.zeros(1, 5)
    assert Generator(side, 5, 2, 0.01).eval()(latent).shape == (1, 3, side, side)
    assert Encoder(side, 5, 2, 0.01, bounded=True).eval()(torch.zeros(1, 3, side, side)).shape == (1, 5)


@pytest.mark.parametrize("resample", ["up", "down"])
def test_a_block_equals_its_formula(resample: Any) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(3, 5, resample, lambda channels: nn.GroupNorm(1, channels, eps=1e-5)).double()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)

    def norm(y: torch.Tensor) -> torch.Tensor:
        mean, variance = y.mean((1, 2, 3), keepdim=True), y.var((1, 2, 3), unbiased=False, keepdim=True)
        return (y - mean) / (variance + 1e-5).sqrt()

    def resized(y: torch.Tensor) -> torch.Tensor:
        if resample == "up":
            return y.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return (y[..., ::2, ::2] + y[..., 1::2, ::2] + y[..., ::2, 1::2] + y[..., 1::2, 1::2]) / 4

    inside = norm(x).clamp_min(0)
    inside = F.conv2d(resized(inside) if resample == "up" else inside, block.conv1.weight, padding=1)
    inside = F.conv2d(norm(inside).clamp_min(0), block.conv2.weight, block.conv2.bias, padding=1)
    beside = F.conv2d(resized(x), block.shortcut.weight, block.shortcut.bias)
    torch.testing.assert_close(block(x), beside + (inside if resample == "up" else resized(inside)))


def test_initial_weights_are_glorots_and_hes() -> None:
    generator = Generator(64, 32, 16, 0.01)
    initialise(generator, 0)
    state = generator.state_dict()
    for name, variance in {
        "first.weight": 2 / (32 + 2048),
        "blocks.0.conv1.weight": 4 / (9 * 256),
        "blocks.2.conv2.weight": 4 / (9 * 64),
        "blocks.1.shortcut.weight": 2 / (128 + 64),
        "last.weight": 4 / (9 * (16 + 3)),
    }.items():
        assert float(state[name].var()) == pytest.approx(variance, rel=0.15), name
        assert float(state[name].abs().max()) <= (3 * variance) ** 0.5
    assert float(state["blocks.0.conv2.bias"].abs().max()) == 0
    critic = Critic(64, 16)
    initialise(critic, 0)
    assert float(critic.first.weight.detach().var()) == pytest.approx(2 / (9 * (3 + 16)), rel=0.2)


# Training


class Plane(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, -4.0, 12.0]))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return patches.flatten(1) @ self.weight


def test_the_penalty_of_a_plane_is_that_of_its_slope() -> None:
    critic = Plane()
    penalty = gradient_penalty(critic, torch.randn(5, 3, 1, 1))
    assert float(penalty.detach()) == pytest.approx((13 - 1) ** 2, rel=1e-5)
    penalty.backward()
    assert critic.weight.grad is not None
    torch.testing.assert_close(critic.weight.grad, 2 * 12 * critic.weight.detach() / 13)


def test_the_penalty_is_that_of_differences() -> None:
    torch.manual_seed(0)
    critic = Critic(16, 2).double()
    patches, step = torch.randn(1, 3, 16, 16, dtype=torch.float64), 1e-5
    slopes = []
    with torch.no_grad():
        for place in range(patches.numel()):
            moved = torch.zeros(patches.numel(), dtype=torch.float64)
            moved[place] = step
            moved = moved.view_as(patches)
            slopes.append(float(critic(patches + moved) - critic(patches - moved)) / (2 * step))
    expected = (np.linalg.norm(slopes) - 1) ** 2
    assert float(gradient_penalty(critic, patches).detach()) == pytest.approx(expected, rel=1e-5)


def fitting_of(**options: Any) -> Fitting:
    return Fitting(make(**options), as_images(good_images(6, side=16)), 0, FitRun())


def networks() -> tuple[Encoder, Generator, Critic]:
    made = Encoder(16, 6, 4, 0.01, bounded=True), Generator(16, 6, 4, 0.01), Critic(16, 4)
    for seed, network in enumerate(made):
        initialise(network, seed)
    return made


def test_the_turns_are_those_of_two_optimisers() -> None:
    _, generator, critic = (network.double() for network in networks())
    stage = GanStage(fitting_of(), copy.deepcopy(generator), copy.deepcopy(critic))
    assert stage.full_steps == 8
    ours = stage.optimiser()
    of_generator = torch.optim.Adam(generator.parameters(), 1e-4, betas=(0.0, 0.9))
    of_critic = torch.optim.Adam(critic.parameters(), 1e-4, betas=(0.0, 0.9))
    for number in range(8):
        batch = stage.batch(number)
        batch = Batch(batch.patches.double(), batch.noise.double(), batch.mixing.double(), batch.generator)
        assert batch.generator == (number == 5)
        losses = stage.losses(batch)
        assert set(losses) == {"critic", "penalty", "generator"}
        moving = {name for name, loss in losses.items() if loss.requires_grad}
        assert moving == ({"generator"} if number == 5 else {"critic", "penalty"})
        ours.zero_grad(set_to_none=True)
        torch.stack([losses[name] for name in sorted(moving)]).sum().backward()
        ours.step()

        of_generator.zero_grad()
        of_critic.zero_grad()
        if number == 5:
            (-critic(generator(batch.noise)).mean()).backward()
            of_generator.step()
            continue
        made = generator(batch.noise).detach()
        between = (batch.patches * (1 - batch.mixing) + made * batch.mixing).requires_grad_()
        slopes = torch.autograd.grad(critic(between).sum(), between, create_graph=True)[0]
        penalty = 10 * ((slopes.flatten(1).norm(dim=1) - 1) ** 2).mean()
        (critic(made).mean() - critic(batch.patches).mean() + penalty).backward()
        of_critic.step()
        assert float(losses["penalty"].detach()) == pytest.approx(float(penalty.detach()), rel=1e-3)
    for mine, theirs in ((stage.generator, generator), (stage.critic, critic)):
        for (name, a), b in zip(mine.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9, msg=name)


def test_the_encoder_learns_alone() -> None:
    encoder, generator, critic = networks()
    stage = EncoderStage(fitting_of(kappa=0.5), encoder, generator, critic)
    before = copy.deepcopy((encoder, generator, critic))
    optimiser, batch = stage.optimiser(), stage.batch(0)
    losses = stage.losses(batch)
    with torch.no_grad():
        given = before[1].eval()(copy.deepcopy(before[0])(batch))
        pixels = ((given - batch) ** 2).mean()
        features = ((before[2].features(given) - before[2].features(batch)) ** 2).mean()
    assert float(losses["pixels"].detach()) == pytest.approx(float(pixels), rel=1e-4)
    assert float(losses["features"].detach()) == pytest.approx(0.5 * float(features), rel=1e-4)
    torch.stack(list(losses.values())).sum().backward()
    optimiser.step()
    for old, new in zip(before[1:], (generator, critic), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(old.state_dict().values(), new.state_dict().values(), strict=True))
        assert all(p.grad is None for p in new.parameters())
    assert not torch.equal(before[0].last.weight, encoder.last.weight)


@pytest.fixture(scope="module")
def trained() -> FAnoganDetector:
    options: dict[str, Any] = {"critic_steps": 100, "learning_rate": 2e-3, "norm_momentum": 0.1}
    options |= {"encoder_steps": 150, "encoder_learning_rate": 3e-3, "encoder_range": "none", "flip_probability": 0.0}
    detector = make(**options).fit(good_images(8, side=16), seed=2)
    assert isinstance(detector, FAnoganDetector)
    return detector


def test_training_gives_images_back_and_finds_defects(trained: FAnoganDetector) -> None:
    curves = trained.report.curves
    assert {name for name in curves if name.startswith("gan/")} == {
        "gan/critic",
        "gan/penalty",
        "gan/generator",
        "gan/loss",
    }
    pixels = [value for _, value in curves["encoder/pixels"]]
    assert np.mean(pixels[-10:]) < 0.7 * np.mean(pixels[:5])
    of_images, of_pixels = detection(trained, 16)
    assert of_images > 0.9
    assert of_pixels > 0.8


def test_the_score_is_pixels_and_features(trained: FAnoganDetector) -> None:
    batch = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        scores, maps = trained(batch)
        given = trained.generator(trained.encoder(2 * batch - 1))
        pixels = ((given - 2 * batch + 1) ** 2).mean((1, 2, 3))
        features = ((trained.critic.features(given) - trained.critic.features(2 * batch - 1)) ** 2).mean(1)
    torch.testing.assert_close(scores, pixels + features)
    torch.testing.assert_close(maps, (given - 2 * batch + 1).abs().mean(1))


# The contract


def test_a_saved_and_an_exported_detector_score_the_same(trained: FAnoganDetector, tmp_path: Path) -> None:
    assert_is_saved_and_exported(trained, tmp_path, 16)
    with pytest.raises(DetectorError, match=r"encoder\.first"):
        make(width=2).restore(trained.state_dict(), trained.report)


def test_the_seed_decides() -> None:
    assert_seed_decides(make())


@pytest.mark.parametrize(("stage", "steps"), [("gan", 3), ("encoder", 2)])
def test_goes_on_bit_for_bit_after_being_killed(tmp_path: Path, stage: str, steps: int) -> None:
    assert_goes_on_after_a_kill(make(), tmp_path, stage, steps)


def test_the_contract_is_kept() -> None:
    report = check_method("f-anogan", {**SMALL, "critic_steps": 2, "encoder_steps": 2}, preset="paper")
    assert [item for item in report.items if item.outcome == "broken"] == []
