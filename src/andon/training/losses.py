"""Losses of reconstructions and segmentations."""

from __future__ import annotations

from functools import lru_cache

import torch

__all__ = ["focal_loss", "ssim", "ssim_map"]


def focal_loss(
    probabilities: torch.Tensor, target: torch.Tensor, gamma: float = 2.0, smooth: float = 1e-5
) -> torch.Tensor:
    """``−(1 − p)^γ · log p`` of the true class's probability p, mean over all pixels; a scalar.

    Lin et al., Focal loss for dense object detection (ICCV 2017; arXiv 1708.02002), equation 4, with labels smoothed
    as in the loss of DRAEM's and DSR's repositories: with K classes, p is
    ``(1 − s)·p_true + s/(K − 1)·(1 − p_true) + s``, which keeps the logarithm finite. γ = 0 and s = 0 give the
    cross-entropy.

    Args:
        probabilities: float ``[B, K, H, W]``, 0 … 1, sum 1 over the classes (a softmax's output).
        target: class of every pixel, ``[B, H, W]`` or ``[B, 1, H, W]``, of any type.
        gamma: how much well-classified pixels are discounted.
        smooth: s.
    """
    classes = probabilities.shape[1]
    if target.ndim == 4:
        target = target.squeeze(1)
    if classes == 2:
        true = torch.where(target > 0, probabilities[:, 1], probabilities[:, 0])  # a gather's backward is far slower
    else:
        true = probabilities.gather(1, target.long().unsqueeze(1)).squeeze(1)
    if smooth:
        true = true * (1 - smooth) + (1 - true) * (smooth / (classes - 1)) + smooth
    loss = -true.log()
    if gamma:
        loss = loss * (1 - true) ** gamma
    return loss.mean()


@lru_cache(maxsize=32)
def _window(length: int, size: int, sigma: float) -> torch.Tensor:
    """A Gaussian filter of a line as a matrix, float64 ``[length, length]``; the line goes on with zeros."""
    offsets = torch.arange(-(size // 2), size // 2 + 1, dtype=torch.float64)
    weights = torch.exp(-offsets.square() / (2 * sigma**2))
    weights /= weights.sum()
    apart = torch.arange(length)[None, :] - torch.arange(length)[:, None] + size // 2
    return torch.where((apart >= 0) & (apart < size), weights[apart.clamp(0, size - 1)], 0.0)


def ssim_map(
    x: torch.Tensor, y: torch.Tensor, window: int = 11, sigma: float = 1.5, data_range: float = 1.0
) -> torch.Tensor:
    """Structural similarity at every pixel and channel, float ``[B, C, H, W]``, at most 1 (alike).

    Wang, Bovik, Sheikh & Simoncelli, Image quality assessment (IEEE TIP 2004), equation 13: a Gaussian window,
    K₁ = 0.01, K₂ = 0.03. Images continue with zeros beyond their edges.

    Args:
        x, y: float ``[B, C, H, W]``.
        window: side of the window in pixels, odd.
        sigma: the Gaussian's standard deviation in pixels.
        data_range: largest less smallest value that images can have.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"the window must be odd, not {window}")
    # The window is separable: a product with a band matrix from either side, which is faster than a convolution of
    # single channels, forwards and even more so backwards. What is known of y alone needs no gradient in training.
    rows = _window(x.shape[2], window, sigma).to(x)
    columns = _window(x.shape[3], window, sigma).to(x).T
    mean_x, square_x, product = (rows @ torch.cat([x, x * x, x * y], dim=1) @ columns).chunk(3, dim=1)
    mean_y, square_y = (rows @ torch.cat([y, y * y], dim=1) @ columns).chunk(2, dim=1)
    mean_xx, mean_yy, mean_xy = mean_x * mean_x, mean_y * mean_y, mean_x * mean_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    contrast: torch.Tensor = (2 * (product - mean_xy) + c2) / (square_x - mean_xx + square_y - mean_yy + c2)
    luminance: torch.Tensor = (2 * mean_xy + c1) / (mean_xx + mean_yy + c1)
    return luminance * contrast


def ssim(
    x: torch.Tensor, y: torch.Tensor, window: int = 11, sigma: float = 1.5, data_range: float = 1.0
) -> torch.Tensor:
    """Mean of ``ssim_map``, a scalar; ``1 - ssim(x, y)`` is the loss."""
    return ssim_map(x, y, window, sigma, data_range).mean()
