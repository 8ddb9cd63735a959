"""Upsampling and smoothing against torch's and scipy's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from andon.methods._maps import _smoothed, gaussian_smooth, upsample, upsample_and_smooth


def random_maps(batch: int, height: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(batch, height, width, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.3, 1.0, 4.0, 9.0]),
    st.integers(0, 99),
)
def test_smoothing_is_scipys(batch: int, height: int, width: int, sigma: float, seed: int) -> None:
    maps = random_maps(batch, height, width, seed)
    expected = np.stack([gaussian_filter(m.numpy().astype(np.float64), sigma) for m in maps])
    np.testing.assert_allclose(gaussian_smooth(maps, sigma).numpy(), expected, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
def test_upsampling_is_torchs(height: int, width: int, rows: int, columns: int, seed: int) -> None:
    maps = random_maps(2, height, width, seed)
    expected = F.interpolate(maps[:, None], size=(rows, columns), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(upsample(maps, (rows, columns)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.1, 1.7, 4.0, 9.0])
def test_lines_are_smoothed_as_by_scipy_bit_for_bit(sigma: float) -> None:
    for n in (1, 5, 60):  # shorter and longer than the Gaussian
        lines = np.random.default_rng(n).normal(size=(n, 7))
        np.testing.assert_array_equal(_smoothed(lines, sigma), gaussian_filter1d(lines, sigma, axis=0, mode="reflect"))


def test_both_at_once_is_one_after_the_other() -> None:
    maps = random_maps(3, 16, 12, 0)
    expected = np.stack([gaussian_filter(m.numpy(), 4.0) for m in upsample(maps, (64, 50))])
    np.testing.assert_allclose(upsample_and_smooth(maps, (64, 50), 4.0).numpy(), expected, atol=1e-5)


def test_a_map_does_not_depend_on_its_batch_mates() -> None:
    maps = random_maps(5, 28, 28, 0)
    together = upsample_and_smooth(maps, (224, 224), 4.0)
    for i in range(5):
        assert torch.equal(upsample_and_smooth(maps[i : i + 1], (224, 224), 4.0)[0], together[i])


def test_float64_stays_float64() -> None:
    maps = random_maps(1, 9, 9, 0).double()
    np.testing.assert_allclose(gaussian_smooth(maps, 2.0)[0].numpy(), gaussian_filter(maps[0].numpy(), 2.0), atol=1e-13)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="must be"):
        gaussian_smooth(torch.zeros(1, 1, 4, 4), 1.0)
    with pytest.raises(ValueError, match="sigma"):
        gaussian_smooth(torch.zeros(1, 4, 4), -1.0)
