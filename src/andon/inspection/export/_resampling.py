"""The transform's resizing as tensor operations of a fixed size, equal to the libraries' to the last grey level.

Pillow and OpenCV compute it in whole numbers: weights are rounded to units of 2⁻²² and 2⁻¹¹. A graph of float32 holds
whole numbers below 2²⁴ exactly, too few for the product of a weight and a grey level. So numbers are split in two, and
sums, each of them exact, are put together without ever holding the whole.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from andon.data import Transform

__all__ = ["Resize", "antialias_weights", "bilinear_taps"]

_PILLOW_BITS = 22
_HALF_BITS = 11
_OPENCV_ONE = 1 << 11
_BLOCK = 32
"""Output positions of one matrix product: each looks only at the part of the axis that it needs."""

IntArray = npt.NDArray[np.int64]


class Resize(nn.Module):
    """``Transform.resize`` without its crop, for images of one size.

    Args:
        transform: says how.
        size: (height, width) of the images.
    """

    def __init__(self, transform: Transform, size: tuple[int, int]) -> None:
        super().__init__()
        (height, width), (to_height, to_width) = size, transform.size
        steps: list[nn.Module] = []
        if size == transform.size:
            pass
        elif transform.antialias:
            # Pillow leaves out an axis that keeps its length, and rounds to grey levels between the two.
            steps += [_AntialiasedAxis(antialias_weights(width, to_width))] if width != to_width else []
            steps += [_Turned(_AntialiasedAxis(antialias_weights(height, to_height)))] if height != to_height else []
            if len(steps) == 2 and _down_first(nn.Sequential(*steps), transform, size):
                steps.reverse()
        else:
            steps.append(_Bilinear(size, transform.size))
        self.steps = nn.Sequential(*steps)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Grey levels as float32 ``[3, H, W]`` to ``[3, h, w]``, whole numbers 0..255 both."""
        resized: torch.Tensor = self.steps(image)
        return resized


def antialias_weights(n_in: int, n_out: int) -> IntArray:
    """Pillow's bilinear filter, widened with the reduction, as int64 ``[n_out, n_in]`` in units of 2⁻²².

    A triangle of half width max(1, n_in/n_out) about (i + ½)·n_in/n_out, cut off at the borders, normalised to sum 1 in
    double precision, rounded.
    """
    scale = n_in / n_out
    support = max(scale, 1.0)
    weights = np.zeros((n_out, n_in), dtype=np.int64)
    for i in range(n_out):
        centre = (i + 0.5) * scale
        first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), n_in)
        taps = np.maximum(1 - np.abs((np.arange(first, last) - centre + 0.5) * (1 / support)), 0)
        weights[i, first:last] = np.floor(0.5 + taps / taps.sum() * (1 << _PILLOW_BITS))
    return weights


def _down_first(across_first: nn.Module, transform: Transform, size: tuple[int, int]) -> bool:
    """Whether Pillow takes the height first; for which sizes differs from version to version, so it is tried."""
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = transform.model_copy(update={"crop": None}).resize(noise)
    found = across_first(torch.from_numpy(noise).permute(2, 0, 1).to(torch.float32)).permute(1, 2, 0)
    # By the other order about a tenth of the pixels differ; by this one a few at most, under filters of many pixels.
    return bool((found.numpy() != expected).mean() > 0.005)


def bilinear_taps(n_in: int, n_out: int) -> tuple[IntArray, IntArray]:
    """OpenCV's plain interpolation: positions and weights in units of 2⁻¹¹, int64 ``[n_out, 2]`` both."""
    where = ((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5).astype(np.float32)
    first = np.floor(where)
    right = where - first
    weights = np.rint(np.stack([np.float32(1) - right, right], axis=1) * np.float32(_OPENCV_ONE)).astype(np.int64)
    positions = np.stack([first, first + 1], axis=1).astype(np.int64)
    return np.clip(positions, 0, n_in - 1), weights


class _AntialiasedAxis(nn.Module):
    """Pillow's: the last axis times a constant matrix, rounded half up to grey levels.

    With a weight as upper·2¹¹ + lower: ⌊(Σ w·x + 2²¹) / 2²²⌋ = ⌊(Σ upper·x + ⌊Σ lower·x / 2¹¹⌋ + 2¹⁰) / 2¹¹⌋. Both sums
    are below 2²⁴ for up to 32 pixels under the filter, and nearly always for a hundred.

    Args:
        weights: int64 ``[n_out, n_in]`` in units of 2⁻²².
    """

    def __init__(self, weights: IntArray) -> None:
        super().__init__()
        self.spans: list[tuple[int, int, int]] = []
        for number, start in enumerate(range(0, len(weights), _BLOCK)):
            rows = weights[start : start + _BLOCK]
            used = np.flatnonzero(rows.any(axis=0))
            first, last = int(used[0]), int(used[-1]) + 1
            parts = np.concatenate([rows >> _HALF_BITS, rows & ((1 << _HALF_BITS) - 1)])[:, first:last]
            self.spans.append((first, last, len(rows)))
            self.register_buffer(f"block_{number}", torch.from_numpy(parts.T.astype(np.float32).copy()))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        uppers, lowers = [], []
        for number, (first, last, n) in enumerate(self.spans):
            sums = image[..., first:last] @ self.get_buffer(f"block_{number}")
            uppers.append(sums[..., :n])
            lowers.append(sums[..., n:])
        upper, lower, half = torch.cat(uppers, dim=-1), torch.cat(lowers, dim=-1), float(1 << _HALF_BITS)
        return torch.clamp(torch.floor((upper + torch.floor(lower / half) + half / 2) / half), 0.0, 255.0)


class _Turned(nn.Module):
    """A step along the last axis, taken along the one before."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.step = step

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        turned: torch.Tensor = self.step(image.transpose(-1, -2))
        return turned.transpose(-1, -2)


class _Bilinear(nn.Module):
    """OpenCV's: of two neighbours along each axis, with its rounding.

    Across: s = ⌊(a₀·x₀ + a₁·x₁) / 2⁴⌋, below 2¹⁵. Down: ⌊(⌊b₀·s₀ / 2¹⁶⌋ + ⌊b₁·s₁ / 2¹⁶⌋ + 2) / 2²⌋. A product b·s
    can have 26 bits; with s as upper·2⁸ + lower, ⌊b·s / 2¹⁶⌋ = ⌊(b·upper + ⌊b·lower / 2⁸⌋) / 2⁸⌋.
    """

    def __init__(self, size: tuple[int, int], to: tuple[int, int]) -> None:
        super().__init__()
        for axis, n_in, n_out in (("down", size[0], to[0]), ("across", size[1], to[1])):
            positions, weights = bilinear_taps(n_in, n_out)
            for tap in (0, 1):
                self.register_buffer(f"{axis}_{tap}", torch.from_numpy(positions[:, tap].copy()))
                self.register_buffer(f"{axis}_weight_{tap}", torch.from_numpy(weights[:, tap].astype(np.float32)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor | None = None
        for tap in (0, 1):
            rows = image.index_select(-2, self.get_buffer(f"down_{tap}"))
            across = sum(
                rows.index_select(-1, self.get_buffer(f"across_{side}")) * self.get_buffer(f"across_weight_{side}")
                for side in (0, 1)
            )
            s = torch.floor(torch.as_tensor(across) / 16)
            upper = torch.floor(s / 256)
            lower = s - upper * 256
            weight = self.get_buffer(f"down_weight_{tap}")[:, None]
            part = torch.floor((weight * upper + torch.floor(weight * lower / 256)) / 256)
            total = part if total is None else total + part
        assert total is not None
        return torch.clamp(torch.floor((total + 2) / 4), 0.0, 255.0)
