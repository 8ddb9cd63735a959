"""Minimal filtering against torch's convolution in float64, and its transforms against their definition."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from andon._tools.seeds import step_generator
from andon.methods.efficientad import winograd


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (2, 4), (3, 4)])
def test_transforms_filter_a_line(m: int, r: int) -> None:
    a, g, b = winograd.transforms(m, r)
    generator = step_generator(0, m, r)
    line = torch.randn(m + r - 1, dtype=torch.float64, generator=generator)
    weights = torch.randn(r, dtype=torch.float64, generator=generator)
    expected = F.conv1d(line[None, None], weights[None, None])[0, 0]
    torch.testing.assert_close(a @ ((g @ weights) * (b @ line)), expected, rtol=1e-10, atol=1e-10)


def test_published_transforms_of_two_outputs_of_three_weights() -> None:
    """Lavin & Gray, section 4.1: F(2, 3), up to the signs and factors that cancel between G and B."""
    _, g, b = winograd.transforms(2, 3)
    published_g = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float64)
    published_b = torch.tensor([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], dtype=torch.float64)
    for place in range(4):
        ours, theirs = torch.outer(g[place], b[place]), torch.outer(published_g[place], published_b[place])
        torch.testing.assert_close(ours.abs(), theirs.abs())


@pytest.mark.parametrize("r", [3, 4])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("size", [(6, 6), (13, 10), (4, 17)])
def test_convolution_and_its_gradients(r: int, last: bool, size: tuple[int, int]) -> None:
    generator = step_generator(1, r)
    batch = torch.randn((2, 5, *size), generator=generator)
    if last:
        batch = batch.to(memory_format=torch.channels_last)
    batch.requires_grad_()
    weight = torch.randn((7, 5, r, r), generator=generator, requires_grad=True)
    bias = torch.randn(7, generator=generator, requires_grad=True)
    found = winograd.convolution(batch, weight, bias)
    wide = [tensor.detach().double().requires_grad_() for tensor in (batch, weight, bias)]
    expected = F.conv2d(*wide)
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)
    gradient = torch.randn(found.shape, generator=generator)
    ours = torch.autograd.grad(found, (batch, weight, bias), gradient)
    theirs = torch.autograd.grad(expected, wide, gradient.double())
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=2e-4)


def test_gradients_that_are_not_wanted_are_not_made() -> None:
    generator = step_generator(2)
    batch = torch.randn((1, 4, 9, 9), generator=generator)
    weight = torch.randn((3, 4, 4, 4), generator=generator)
    by_batch = torch.autograd.grad(winograd.convolution(batch.requires_grad_(), weight).sum(), batch)[0]
    torch.testing.assert_close(
        by_batch, torch.autograd.grad(F.conv2d(batch, weight).sum(), batch)[0], atol=1e-4, rtol=0
    )
    weight.requires_grad_()
    by_weight = torch.autograd.grad(winograd.convolution(batch.detach(), weight).sum(), weight)[0]
    torch.testing.assert_close(
        by_weight, torch.autograd.grad(F.conv2d(batch, weight).sum(), weight)[0], atol=1e-3, rtol=0
    )
    with torch.inference_mode():
        assert not winograd.convolution(batch, weight).requires_grad


def test_an_image_does_not_depend_on_its_batch_mates() -> None:
    generator = step_generator(3)
    batch, weight = torch.randn((5, 8, 12, 12), generator=generator), torch.randn((6, 8, 4, 4), generator=generator)
    together = winograd.convolution(batch, weight)
    for i in range(5):
        assert torch.equal(winograd.convolution(batch[i : i + 1], weight), together[i : i + 1])


def test_rounding_at_the_sizes_of_a_patch_description_network() -> None:
    generator = step_generator(4)
    batch = torch.randn((1, 128, 30, 30), generator=generator).relu()
    weight = torch.randn((128, 128, 4, 4), generator=generator) / (128 * 16) ** 0.5
    assert winograd.worthwhile(batch, weight)
    assert not winograd.worthwhile(batch, weight[:64])
    assert not winograd.worthwhile(batch.double(), weight)
    assert not winograd.worthwhile(batch[..., :18, :18], weight)
    exact = F.conv2d(batch.double(), weight.double())
    error = (winograd.convolution(batch, weight) - exact).abs().max()
    assert float(error) < 3e-5 * float(exact.std())
