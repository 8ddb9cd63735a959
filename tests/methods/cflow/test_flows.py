"""Flows against autograd's Jacobian, closed forms, literal loops and a known Gaussian."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from andon.methods._flows import soft_clamp
from andon.methods.cflow.flows import (
    ConditionalFlow,
    CouplingBlock,
    positional_encoding,
    random_rotation,
    standard_normal_log_density,
)
from andon.methods.cflow.grid import GridFlow

KINDS = [("tanh", "soft"), ("tanh", "hard"), ("arctan", "soft"), ("arctan", "hard")]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(channels: int = 7, condition: int = 8, blocks: int = 3, **options: Any) -> ConditionalFlow:
    """A flow far from the identity, as after a training."""
    flow = ConditionalFlow(channels, condition, blocks, generator=generator(3), **options)
    noise = generator(4)
    with torch.no_grad():
        for block in flow.coupling_blocks():
            block.weight_out.mul_(12)
            block.scale_parameter.add_(torch.randn(block.scale_parameter.shape, generator=noise))
            block.offset.add_(torch.randn(block.offset.shape, generator=noise))
    if flow.affine_input:
        flow.set_input(
            torch.randn(channels, generator=noise),
            torch.eye(channels) + 0.3 * torch.randn((channels, channels), generator=noise),
        )
    return flow


@pytest.mark.parametrize(("height", "width", "dimensions"), [(3, 5, 8), (4, 4, 128), (1, 2, 4)])
def test_positional_encoding_equals_a_literal_loop(height: int, width: int, dimensions: int) -> None:
    found = positional_encoding(dimensions, height, width)
    half = dimensions // 2
    for row in range(height):
        for column in range(width):
            for k in range(half // 2):
                wavelength = 10_000 ** (2 * k / half)
                expected = [
                    math.sin(column / wavelength),
                    math.cos(column / wavelength),
                    math.sin(row / wavelength),
                    math.cos(row / wavelength),
                ]
                at = found[row * width + column]
                actual = [at[2 * k], at[2 * k + 1], at[half + 2 * k], at[half + 2 * k + 1]]
                np.testing.assert_allclose(np.array(actual), expected, atol=1e-6)
    assert len(torch.unique(found, dim=0)) == height * width


@pytest.mark.parametrize("dimensions", [0, 6, -4])
def test_positional_encoding_refuses_other_dimensions(dimensions: int) -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        positional_encoding(dimensions, 2, 2)


def test_soft_clamp() -> None:
    values = torch.tensor([-1e4, -1.0, 0.0, 0.5, 1e4], dtype=torch.float64)
    np.testing.assert_allclose(soft_clamp(values, 1.9, "tanh"), 1.9 * np.tanh(values.numpy()), rtol=1e-12)
    expected = 2 * 1.9 / np.pi * np.arctan(values.numpy() / 1.9)
    np.testing.assert_allclose(soft_clamp(values, 1.9, "arctan"), expected, rtol=1e-12)
    at_zero = torch.zeros((), dtype=torch.float64)
    for kind, slope in (("tanh", 1.9), ("arctan", 2 / math.pi)):
        derivative = torch.autograd.functional.jacobian(lambda v, k=kind: soft_clamp(v, 1.9, k), at_zero)
        assert float(derivative) == pytest.approx(slope)


def test_random_rotations_are_rotations_and_even() -> None:
    rotation = random_rotation(40, generator(0)).double()
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(40), atol=1e-6)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1, abs=1e-5)
    assert torch.equal(random_rotation(40, generator(0)), random_rotation(40, generator(0)))
    # On SO(3) every entry has mean 0 and variance 1/3, and the trace has mean 0 and variance 1.
    many = torch.stack([random_rotation(3, generator(seed)) for seed in range(3000)])
    assert float(many.mean(dim=0).abs().max()) < 0.05
    np.testing.assert_allclose(many.var(dim=0), np.full((3, 3), 1 / 3), atol=0.04)
    traces = many.diagonal(dim1=1, dim2=2).sum(dim=1)
    assert float(traces.var()) == pytest.approx(1, abs=0.1)


def test_standard_normal_log_density() -> None:
    z = torch.randn((5, 3), generator=generator(0), dtype=torch.float64)
    expected = multivariate_normal(np.zeros(3), np.eye(3)).logpdf(z.numpy())
    np.testing.assert_allclose(standard_normal_log_density(z), expected)


def test_a_block_equals_its_formula() -> None:
    flow = make(channels=5, condition=4, blocks=1, permutation="hard")
    (block,) = flow.coupling_blocks()
    x = np.random.default_rng(0).normal(size=5)
    c = np.random.default_rng(1).normal(size=4)
    p = {name: tensor.detach().double().numpy() for name, tensor in block.named_parameters()}
    u = np.concatenate([p["weight_passive"], p["weight_condition"]], axis=1)
    hidden = np.maximum(u @ np.concatenate([x[:3], c]) + p["bias_hidden"], 0)
    out = 0.1 * (p["weight_out"] @ hidden + p["bias_out"])
    log_scale = 1.9 * np.tanh(out[:2])
    g = 0.1 * 2 * np.log1p(np.exp(0.5 * p["scale_parameter"]))
    y = (np.concatenate([x[:3], x[3:] * np.exp(log_scale) + out[2:]]) * g + p["offset"])[block.mixing.numpy()]
    found, log_det = block.double()(torch.tensor(x)[None], torch.tensor(c)[None])
    np.testing.assert_allclose(found[0].detach(), y, rtol=1e-6)
    assert float(log_det.detach()) == pytest.approx(log_scale.sum() + np.log(g).sum(), rel=1e-6)


def test_a_fresh_block_has_scale_one_and_no_offset() -> None:
    block = CouplingBlock(6, 4, limit=1.9, clamping="tanh", permutation="hard", generator=generator(0))
    np.testing.assert_allclose(block.scale.detach(), np.ones(6), rtol=1e-5)
    assert float(block.offset.detach().abs().max()) == 0
    assert sorted(block.mixing.tolist()) == list(range(6))


@pytest.mark.parametrize(("clamping", "permutation"), KINDS)
@pytest.mark.parametrize("affine", [False, True])
def test_the_inverse_undoes_the_flow(clamping: Any, permutation: Any, affine: bool) -> None:
    flow = make(clamping=clamping, permutation=permutation, affine_input=affine).double()
    x = torch.randn((50, 7), generator=generator(0), dtype=torch.float64)
    c = torch.randn((50, 8), generator=generator(1), dtype=torch.float64)
    z, log_det = flow(x, c)
    assert float((z - x).detach().abs().mean()) > 0.5
    back, inverse_log_det = flow.inverse(z, c)
    np.testing.assert_allclose(back.detach(), x, atol=1e-6)
    np.testing.assert_allclose(inverse_log_det.detach(), -log_det.detach(), atol=1e-6)


@pytest.mark.parametrize(("clamping", "permutation"), KINDS)
@pytest.mark.parametrize("affine", [False, True])
def test_log_determinant_equals_autograds_jacobian(clamping: Any, permutation: Any, affine: bool) -> None:
    flow = make(clamping=clamping, permutation=permutation, affine_input=affine).double()
    for seed in range(3):
        x = torch.randn((1, 7), generator=generator(seed), dtype=torch.float64)
        c = torch.randn((1, 8), generator=generator(seed + 10), dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(lambda v, c=c: flow(v, c)[0][0], x)[:, 0]
        expected = float(torch.linalg.slogdet(jacobian).logabsdet)
        assert float(flow(x, c)[1].detach()) == pytest.approx(expected, abs=1e-5)


def test_likelihood_of_the_identity_and_of_an_affine_flow() -> None:
    """With networks that say nothing only fixed maps are left: the density is a Gaussian's."""
    flow = ConditionalFlow(4, 4, 3, affine_input=True, generator=generator(0)).double()
    with torch.no_grad():
        for block in flow.coupling_blocks():
            block.weight_out.zero_()
            block.bias_out.zero_()
    x, c = torch.randn((20, 4), generator=generator(1), dtype=torch.float64), torch.zeros((20, 4), dtype=torch.float64)
    standard = multivariate_normal(np.zeros(4), np.eye(4)).logpdf(x.numpy())
    np.testing.assert_allclose(flow.log_likelihood(x, c).detach(), standard, atol=1e-4)

    root = np.random.default_rng(0).normal(size=(4, 4)) + 2 * np.eye(4)
    mean = np.arange(4.0)
    flow.set_input(torch.tensor(mean), torch.tensor(np.linalg.inv(root).T))
    with torch.no_grad():
        scale = torch.tensor(3.0, dtype=torch.float64)
        block = flow.coupling_blocks()[-1]
        block.scale_parameter.fill_(float(2 * torch.log(torch.expm1(0.5 * scale / 0.1))))
    expected = multivariate_normal(mean, root @ root.T / 9).logpdf(x.numpy())
    np.testing.assert_allclose(flow.log_likelihood(x, c).detach(), expected, rtol=1e-4)


@pytest.mark.parametrize(("clamping", "permutation"), KINDS)
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_grid_form_equals_the_flow(
    clamping: Any, permutation: Any, affine: bool, layout: torch.memory_format
) -> None:
    flow = make(clamping=clamping, permutation=permutation, affine_input=affine)
    encoding = positional_encoding(8, 40, 60)
    features = torch.randn((3, 7, 40, 60), generator=generator(0)).contiguous(memory_format=layout)
    before = features.clone()
    grid = GridFlow(flow, encoding)
    found = grid(features)
    rows = features.permute(0, 2, 3, 1).reshape(-1, 7)
    with torch.no_grad():
        expected = flow.log_likelihood(rows, encoding.repeat(3, 1)).view(3, 40, 60)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
    assert torch.equal(features, before)
    np.testing.assert_allclose(grid(features[1:2]), found[1:2], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="40 × 59 positions, not 2400"):
        grid(features[..., :59])


def test_the_same_generator_gives_the_same_flow() -> None:
    first, second = (ConditionalFlow(6, 4, 2, generator=generator(5)).state_dict() for _ in range(2))
    other = ConditionalFlow(6, 4, 2, generator=generator(6)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["blocks.0.weight_passive"], other["blocks.0.weight_passive"])


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="at least 2 channels"):
        ConditionalFlow(1, 4, 2, generator=generator(0))
    with pytest.raises(ValueError, match="no affine map"):
        ConditionalFlow(2, 4, 1, generator=generator(0)).set_input(torch.zeros(2), torch.eye(2))


def test_training_reaches_the_entropy_of_a_known_conditional_density() -> None:
    """x | c is Gaussian with mean A·c and a correlated covariance: no density has a lower expected −log p than its
    entropy, and a flow of affine couplings can be that density."""
    rng = np.random.default_rng(0)
    root = np.array([[1.0, 0, 0], [0.8, 0.5, 0], [-0.4, 0.3, 0.7]])
    slope = rng.normal(size=(3, 4))
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * root @ root.T)[1]

    def sample(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        c = rng.uniform(-1, 1, (n, 4))
        x = c @ slope.T + rng.normal(size=(n, 3)) @ root.T
        return torch.from_numpy(x).float(), torch.from_numpy(c).float()

    flow = ConditionalFlow(3, 4, 4, generator=generator(0))
    test = sample(20_000)
    with torch.no_grad():
        before = float(-flow.log_likelihood(*test).mean())
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for step in range(400):
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * 0.5 * (1 + math.cos(math.pi * step / 400))
        loss = -flow.log_likelihood(*sample(512)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        after = float(-flow.log_likelihood(*test).mean())
    sampling = 4 * math.sqrt(3 / 2 / 20_000)  # −log p of a 3-dimensional Gaussian has the variance 3/2
    assert before > entropy + 1
    assert entropy - sampling < after < entropy + 0.05
