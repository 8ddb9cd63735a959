"""Gradient magnitude similarity on several scales (section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional as F

__all__ = ["gms_loss", "gradient_magnitude", "gradient_similarity", "mean_filter", "similarity_map"]

_LEAST = 1e-12
"""Of a squared gradient: beneath the root, so that it has a derivative where an image is even."""


def gradient_magnitude(images: torch.Tensor) -> torch.Tensor:
    """Size of the gradient by Prewitt's filters of float ``[B, C, H, W]``, which goes on evenly at its edges."""
    wide = F.pad(images, (1, 1, 1, 1), mode="replicate")
    across = wide[..., 2:] - wide[..., :-2]
    down = wide[..., 2:, :] - wide[..., :-2, :]
    across = (across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :]) / 3
    down = (down[..., :-2] + down[..., 1:-1] + down[..., 2:]) / 3
    return (across.square() + down.square() + _LEAST).sqrt()


def gradient_similarity(x: torch.Tensor, y: torch.Tensor, constant: float) -> torch.Tensor:
    """``(2·g(x)·g(y) + c) / (g(x)² + g(y)² + c)`` at every pixel and channel, ``[B, C, H, W]``, at most 1 (alike).

    Xue, Zhang, Mou & Bovik, Gradient magnitude similarity deviation (IEEE TIP 2014; arXiv 1308.3052), equation 4.
    """
    one, two = gradient_magnitude(x), gradient_magnitude(y)
    return (2 * one * two + constant) / (one.square() + two.square() + constant)


def _scales(x: torch.Tensor, y: torch.Tensor, scales: int, constant: float, gradients: str) -> Iterator[torch.Tensor]:
    """The similarity at each scale, ``[B, 1, h, w]``."""
    if gradients == "grey":
        x, y = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    for scale in range(scales):
        if scale:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        yield gradient_similarity(x, y, constant).mean(1, keepdim=True)


def gms_loss(x: torch.Tensor, y: torch.Tensor, scales: int, constant: float, gradients: str) -> torch.Tensor:
    """One less the similarity, mean over pixels, then over scales; a scalar."""
    return torch.stack([1 - found.mean() for found in _scales(x, y, scales, constant, gradients)]).mean()


def similarity_map(x: torch.Tensor, y: torch.Tensor, scales: int, constant: float, gradients: str) -> torch.Tensor:
    """Mean over scales of the similarity, each brought to the images' size (bilinear): ``[B, 1, H, W]``.

    Args:
        x, y: float ``[B, 3, H, W]``.
        scales: how many; each has half the sides of the one before.
        constant: c.
        gradients: "grey" or "colours".
    """
    size = x.shape[2:]
    found = _scales(x, y, scales, constant, gradients)
    return torch.stack([F.interpolate(each, size, mode="bilinear") for each in found]).mean(0)


def mean_filter(maps: torch.Tensor, window: int) -> torch.Tensor:
    """Mean over windows of an odd side of ``[B, 1, H, W]``; at the edges over what there is of them."""
    return F.avg_pool2d(maps, window, stride=1, padding=window // 2, count_include_pad=False)
