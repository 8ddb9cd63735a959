"""Random weights: orthogonal, the same everywhere, and features that stay alive."""

from __future__ import annotations

import pytest
import torch

from andon._tools.networks import unfilled
from andon.features.resnet import ARCHITECTURES, ResNet
from andon.weights.initialisation import calibrate_batch_norm, orthogonal_initialisation, pink_noise
from andon.weights.state_dicts import state_dict_sha256


def random_resnet(name: str = "resnet18", last_stage: int = 4, seed: int = 0) -> ResNet:
    network = unfilled(lambda: ResNet(ARCHITECTURES[name], last_stage=last_stage))
    orthogonal_initialisation(network, seed)
    return network


def test_filters_are_orthogonal_with_norm_root_two() -> None:
    network = random_resnet(last_stage=2)
    rows = network.get_submodule("layer2.0.conv1").get_parameter("weight").flatten(1).double()
    torch.testing.assert_close(rows @ rows.T, 2 * torch.eye(128, dtype=torch.float64), atol=2e-3, rtol=0)


def test_seed_and_nothing_else_decides() -> None:
    state = torch.get_rng_state()
    first = state_dict_sha256(random_resnet(last_stage=2).state_dict())
    assert state_dict_sha256(random_resnet(last_stage=2).state_dict()) == first
    assert state_dict_sha256(random_resnet(last_stage=2, seed=1).state_dict()) != first
    assert torch.equal(torch.get_rng_state(), state), "the global generator was touched"


def test_number_of_threads_does_not_matter() -> None:
    threads = torch.get_num_threads()
    found = []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            found.append(state_dict_sha256(random_resnet(last_stage=2).state_dict()))
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


def test_stages_that_are_not_built_do_not_change_the_others() -> None:
    short, long = random_resnet(last_stage=2).state_dict(), random_resnet(last_stage=3).state_dict()
    assert all(torch.equal(tensor, long[name]) for name, tensor in short.items())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_features_neither_vanish_nor_explode_nor_die(name: str) -> None:
    network = random_resnet(name, last_stage=4 if name == "resnet18" else 3)
    wanted = range(1, network.last_stage + 1)
    with torch.no_grad():
        stages = network.stages(pink_noise((4, 3, 128, 128), 99).float(), wanted)
    for features in stages:
        assert 0.5 < features.square().mean().sqrt() < 4
        spread = features.var((0, 2, 3))
        assert (spread > 1e-3).float().mean() > 0.99


def test_calibration_standardises_what_it_saw() -> None:
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 4, 1), torch.nn.BatchNorm2d(4)
    )
    batch = pink_noise((4, 3, 32, 32), 5) * 7 + 3
    calibrate_batch_norm(layers, batch)
    with torch.no_grad():
        out = layers.double()(batch)
    # Both norms' statistics are rounded to 2⁻¹⁶ and the parameters to float32, hence the tolerance.
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(4, dtype=torch.float64), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.var((0, 2, 3), correction=0), torch.ones(4, dtype=torch.float64), atol=1e-2, rtol=0)


def test_a_dead_channel_stays_finite() -> None:
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1, bias=False), torch.nn.BatchNorm2d(2))
    torch.nn.init.zeros_(layers[0].weight)
    calibrate_batch_norm(layers, pink_noise((2, 3, 8, 8), 0))
    with torch.no_grad():
        assert torch.equal(layers(torch.ones(1, 3, 4, 4)), torch.zeros(1, 2, 4, 4))


def test_pink_noise_has_the_spectrum_of_natural_images() -> None:
    noise = pink_noise((16, 3, 128, 128), 0)
    torch.testing.assert_close(noise.mean((2, 3)), torch.zeros(16, 3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(noise.var((2, 3)), torch.ones(16, 3, dtype=torch.float64))
    power = torch.fft.rfft2(noise).abs().square().mean((0, 1))
    # Amplitude 1/f: along a line of frequencies the power falls by four as the frequency doubles.
    low, high = power[8:12, 0].mean(), power[16:24, 0].mean()
    assert 3 < low / high < 5.5
