"""Convolutions of frozen networks: the same as torch's own, whichever way they are computed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from andon._tools.convolution import FrozenConv2d, convolved


@given(
    st.sampled_from([1, 3, 5]),
    st.sampled_from([(1, 1), (2, 2), (2, 1)]),
    st.sampled_from([(0, 0), (1, 1), (2, 1)]),
    st.booleans(),
    st.integers(5, 9),
    st.integers(5, 9),
    st.booleans(),
    st.sampled_from([1, 2]),
)
@settings(deadline=None, max_examples=60)
def test_it_is_torchs_convolution(
    kernel: int,
    stride: tuple[int, int],
    padding: tuple[int, int],
    depthwise: bool,
    height: int,
    width: int,
    channels_last: bool,
    threads: int,
) -> None:
    generator = torch.Generator().manual_seed(height * width)
    x = torch.randn(2, 4, height, width, generator=generator)
    weight = torch.randn(4 if depthwise else 6, 1 if depthwise else 4, kernel, kernel, generator=generator)
    bias = torch.randn(len(weight), generator=generator)
    groups = 4 if depthwise else 1
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = convolved(x, weight, bias, stride, padding, groups)
    finally:
        torch.set_num_threads(before)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), stride, padding, groups=groups)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last) or not channels_last


def test_a_layer_learns_as_torchs_own_does() -> None:
    own, reference = FrozenConv2d(3, 4, 3, 2, padding=1), nn.Conv2d(3, 4, 3, 2, padding=1)
    own.load_state_dict(reference.state_dict())
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for layer in (own, reference):
        layer(x).square().sum().backward()
    assert own.weight.grad is not None
    assert reference.weight.grad is not None
    assert torch.equal(own.weight.grad, reference.weight.grad)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_left_to_torch(dtype: torch.dtype) -> None:
    x, weight = torch.ones(1, 2, 4, 4, dtype=dtype), torch.ones(3, 2, 1, 1, dtype=dtype)
    assert torch.equal(convolved(x, weight, None), F.conv2d(x, weight))


def test_an_exported_graph_has_the_standard_convolution() -> None:
    program = torch.export.export(FrozenConv2d(2, 3, 1).requires_grad_(False), (torch.zeros(1, 2, 4, 4),))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert any("conv2d" in name or "convolution" in name for name in names)
    assert not any("mkldnn" in name for name in names)
