from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from torch.nn import functional as F

from andon.training.losses import focal_loss, ssim, ssim_map


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("gamma", "smooth"), [(2.0, 1e-5), (2.0, 0.0), (4.0, 0.01), (0.0, 0.1)])
def test_focal_loss_is_its_formula(classes: int, gamma: float, smooth: float) -> None:
    probabilities = (random(2, classes, 5, 7) * 6).softmax(1)
    target = (random(2, 1, 5, 7, seed=1) * classes).long()
    total = 0.0
    for b in range(2):
        for i in range(5):
            for j in range(7):
                p = smooth
                for k in range(classes):
                    label = 1 - smooth if k == int(target[b, 0, i, j]) else smooth / (classes - 1)
                    p += label * float(probabilities[b, k, i, j])
                total -= (1 - p) ** gamma * np.log(p)
    assert float(focal_loss(probabilities, target, gamma, smooth)) == pytest.approx(total / 70, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int64])
def test_focal_loss_without_focus_is_the_cross_entropy(dtype: torch.dtype) -> None:
    logits = random(3, 2, 4, 4) * 4
    target = random(3, 4, 4, seed=2) > 0.5
    loss = focal_loss(logits.softmax(1), target.to(dtype), gamma=0, smooth=0)
    assert float(loss) == pytest.approx(float(F.cross_entropy(logits, target.long())))
    assert float(focal_loss(logits.softmax(1), target[:, None].to(dtype), gamma=0, smooth=0)) == float(loss)


def test_focal_loss_stays_finite_and_falls_with_certainty() -> None:
    target = torch.ones(1, 4, 4)

    def loss(p: float) -> float:
        return float(focal_loss(torch.tensor([1 - p, p]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4), target))

    values = [loss(p) for p in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert np.isfinite(values).all()
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(0, abs=1e-6)


def test_focal_losses_gradient() -> None:
    logits = (random(1, 2, 3, 3) * 4).requires_grad_()
    target = random(1, 3, 3, seed=1) > 0.5
    assert torch.autograd.gradcheck(lambda x: focal_loss(x.softmax(1), target), (logits,))


def literal_ssim(x: torch.Tensor, y: torch.Tensor, window: int, sigma: float, data_range: float) -> np.ndarray:
    """Wang et al. 2004, equation 13, with scipy's filter of a two-dimensional window."""
    line = np.arange(window) - window // 2
    kernel = np.exp(-(line[:, None] ** 2 + line[None, :] ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    result = np.zeros(x.shape)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            p, q = x[b, c].numpy(), y[b, c].numpy()
            mean_p, mean_q, pp, qq, pq = (
                correlate(image, kernel, mode="constant") for image in (p, q, p * p, q * q, p * q)
            )
            result[b, c] = ((2 * mean_p * mean_q + c1) * (2 * (pq - mean_p * mean_q) + c2)) / (
                (mean_p**2 + mean_q**2 + c1) * (pp - mean_p**2 + qq - mean_q**2 + c2)
            )
    return result


@pytest.mark.parametrize(("window", "sigma", "data_range"), [(11, 1.5, 1.0), (5, 0.8, 2.0), (1, 1.0, 1.0)])
def test_ssim_is_its_formula(window: int, sigma: float, data_range: float) -> None:
    x, y = random(2, 3, 20, 26), random(2, 3, 20, 26, seed=1)
    y = 0.6 * x + 0.4 * y
    expected = literal_ssim(x, y, window, sigma, data_range)
    np.testing.assert_allclose(ssim_map(x, y, window, sigma, data_range).numpy(), expected, rtol=1e-9)
    assert float(ssim(x, y, window, sigma, data_range)) == pytest.approx(expected.mean())
    single = ssim_map(x.float(), y.float(), window, sigma, data_range)
    np.testing.assert_allclose(single.numpy(), expected, atol=2e-4)


def test_ssim_of_the_same_is_one_and_of_the_negative_below_zero() -> None:
    x = random(1, 1, 32, 32)
    assert float(ssim(x, x)) == pytest.approx(1)
    assert float(ssim(x, 1 - x)) < 0


def test_ssim_does_not_depend_on_the_batch() -> None:
    """An image's similarities, not only their mean, whatever else is in the batch."""
    x, y = random(4, 3, 16, 16), random(4, 3, 16, 16, seed=1) * 300
    torch.testing.assert_close(ssim_map(x, y)[:1], ssim_map(x[:1], y[:1]))


def test_ssims_gradient() -> None:
    x, y = random(1, 1, 6, 6).requires_grad_(), random(1, 1, 6, 6, seed=1)
    assert torch.autograd.gradcheck(lambda a: ssim(a, y, window=5), (x,))


def test_ssim_refuses_an_even_window() -> None:
    with pytest.raises(ValueError, match="odd"):
        ssim(random(1, 1, 8, 8), random(1, 1, 8, 8), window=4)
