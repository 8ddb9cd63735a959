"""Convolutions with fewer multiplications on CPUs: Winograd's minimal filtering in two dimensions.

Lavin & Gray, Fast algorithms for convolutional neural networks, CVPR 2016, arXiv 1509.09308: ``Aᵀ[(GgGᵀ)⊙(BᵀdB)]A`` for
tiles of m × m outputs of an r × r filter, from (m + r − 1)² instead of m²r² multiplications. The products over channels
are matrix products, one for each place of a tile, and so are the transforms. Rounding differs from a plain
convolution's by a few units of float32's last place.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

import torch

__all__ = ["convolution", "transformed_filters", "transforms", "worthwhile"]

_POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 2), Fraction(-2))
"""Where the polynomials are evaluated, besides infinity: few and small, which keeps rounding small."""
_TILE = {3: 4, 4: 3}
"""Outputs along a tile's side for a filter's side: tiles of 6 × 6 inputs."""
_CHANNELS = 128
"""From so many channels on, in and out, transforms cost less than they save."""
_OUTPUTS = 256


@lru_cache
def transforms(m: int, r: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(A ``[m, n]``, G ``[n, r]``, B ``[n, n]``, already transposed as they stand left of a tile), n = m + r − 1.

    Toom and Cook's interpolation at n − 1 points and infinity: A and G evaluate polynomials of m and r coefficients, B
    is the transposed interpolation. Exact fractions, rounded once to float64.
    """
    n = m + r - 1
    points = _POINTS[: n - 1]
    if len(points) < n - 1:
        raise ValueError(f"tiles of {n} × {n} need more points than there are")
    evaluate = [[p**power for power in range(n)] for p in points] + [[Fraction(0)] * (n - 1) + [Fraction(1)]]

    def rows(count: int) -> list[list[Fraction]]:
        return [row[:count] for row in evaluate[:-1]] + [[Fraction(0)] * (count - 1) + [Fraction(1)]]

    interpolate = _inverse(evaluate)
    a, g, b = (
        torch.tensor([[float(value) for value in row] for row in matrix], dtype=torch.float64)
        for matrix in (rows(m), rows(r), interpolate)
    )
    return a.T.contiguous(), g, b.T.contiguous()


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """Gauss–Jordan on fractions."""
    n = len(matrix)
    work = [[*row, *(Fraction(int(i == j)) for j in range(n))] for i, row in enumerate(matrix)]
    for column in range(n):
        pivot = next(row for row in range(column, n) if work[row][column] != 0)
        work[column], work[pivot] = work[pivot], work[column]
        scale = work[column][column]
        work[column] = [value / scale for value in work[column]]
        for row in range(n):
            if row != column and work[row][column] != 0:
                factor = work[row][column]
                work[row] = [a - factor * b for a, b in zip(work[row], work[column], strict=True)]
    return [row[n:] for row in work]


@lru_cache
def _kronecker(m: int, r: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same for both directions at once, float32: ``[m², n²]``, ``[n², r²]``, ``[n², n²]``."""
    return tuple(torch.kron(t, t).float() for t in transforms(m, r))  # type: ignore[return-value]


def worthwhile(batch: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether ``convolution`` is faster here than torch's: many channels, many outputs, float32, on a CPU."""
    outputs, inputs, height, width = weight.shape
    return (
        batch.device.type == "cpu"
        and batch.dtype == torch.float32
        and height == width
        and height in _TILE
        and min(outputs, inputs) >= _CHANNELS
        and (batch.shape[2] - height + 1) * (batch.shape[3] - width + 1) >= _OUTPUTS
    )


def convolution(
    batch: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    filters: torch.Tensor | None = None,
) -> torch.Tensor:
    """``torch.nn.functional.conv2d(batch, weight, bias)``: stride 1, no padding.

    Each image is computed by itself, so its values do not depend on the others, and neither does the memory, which is
    that of one image's tiles; with gradients (n / m)² times the batch is kept.

    Args:
        batch: float32 ``[B, C, H, W]``.
        weight: float32 ``[K, C, r, r]``, r 3 or 4.
        bias: float32 ``[K]``.
        filters: ``transformed_filters(weight)``, where they are at hand.

    Returns:
        float32 ``[B, K, H − r + 1, W − r + 1]``, channels last in memory.
    """
    keep = torch.is_grad_enabled() and weight.requires_grad
    result: torch.Tensor = _Convolution.apply(batch, weight, bias, filters, keep)  # type: ignore[no-untyped-call]
    return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        batch: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        filters: torch.Tensor | None,
        keep: bool,
    ) -> torch.Tensor:
        outputs, _, r, _ = weight.shape
        m = _TILE[r]
        a, _, _ = _kronecker(m, r)
        grid = _grid(batch, r)
        filters = transformed_filters(weight) if filters is None else filters
        size = (batch.shape[2] - r + 1, batch.shape[3] - r + 1)
        result = torch.empty(
            (len(batch), outputs, *size),
            dtype=batch.dtype,
            device=batch.device,
            memory_format=torch.channels_last,
        )
        kept = []
        for image, place in zip(batch, result.permute(0, 2, 3, 1), strict=True):
            tiles = _transformed(image, r, grid)
            pieces = a @ torch.bmm(tiles, filters).flatten(1)
            if bias is not None:
                pieces.view(-1, outputs).add_(bias)
            place.copy_(_untiled(pieces, m, grid, outputs, size))
            if keep:
                kept.append(tiles)
        # Transformed tiles are what the filter's gradient needs: making them anew would cost a sixth of the step.
        ctx.save_for_backward(weight, *kept)
        ctx.shape, ctx.grid, ctx.has_bias = batch.shape, grid, bias is not None
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, *kept = ctx.saved_tensors
        outputs, inputs, r, _ = weight.shape
        m, grid = _TILE[r], ctx.grid
        n = m + r - 1
        a, g, b = _kronecker(m, r)
        (gradient,) = gradients
        for_batch, for_weight, for_bias, *_ = ctx.needs_input_grad
        back = transformed_filters(weight).transpose(1, 2) if for_batch else None
        to_batch = gradient.new_empty((ctx.shape[0], *ctx.shape[2:], inputs)) if for_batch else None
        summed = gradient.new_zeros((n * n, inputs, outputs)) if for_weight else None
        for number, image in enumerate(gradient):
            # Tiles of the gradient do not overlap: m by m, zeros beyond the edges.
            pieces = _tiles(image, m, m, grid)
            products = (a.T @ pieces.flatten(1)).view(n * n, -1, outputs)
            if summed is not None:
                summed.baddbmm_(kept[number].transpose(1, 2), products)
            if to_batch is not None and back is not None:
                _add_overlapping(to_batch[number], b.T @ torch.bmm(products, back).flatten(1), m, n, grid)
        to_weight = None
        if summed is not None:
            to_weight = (g.T @ summed.flatten(1)).view(r, r, inputs, outputs).permute(3, 2, 0, 1).contiguous()
        return (
            None if to_batch is None else to_batch.permute(0, 3, 1, 2),
            to_weight,
            gradient.sum((0, 2, 3)) if for_bias and ctx.has_bias else None,
            None,
            None,
        )


def transformed_filters(weight: torch.Tensor) -> torch.Tensor:
    """``GgGᵀ``: ``[n², C, K]``."""
    outputs, inputs, r, _ = weight.shape
    _, g, _ = _kronecker(_TILE[r], r)
    return (g @ weight.permute(2, 3, 1, 0).reshape(r * r, -1)).view(-1, inputs, outputs)


def _grid(batch: torch.Tensor, r: int) -> tuple[int, int]:
    """(rows, columns) of tiles."""
    m = _TILE[r]
    return -(-(batch.shape[2] - r + 1) // m), -(-(batch.shape[3] - r + 1) // m)


def _tiles(image: torch.Tensor, side: int, step: int, grid: tuple[int, int]) -> torch.Tensor:
    """Tiles of ``[C, H, W]``, ``side`` wide and ``step`` apart, zeros beyond the edges: ``[side², tiles, C]``."""
    rows, columns = grid
    channels = len(image)
    height, width = (rows - 1) * step + side, (columns - 1) * step + side
    last = image.permute(1, 2, 0)
    if (height, width) != last.shape[:2] or not last.is_contiguous():
        padded = last.new_zeros((height, width, channels))
        kept_rows, kept_columns = min(height, last.shape[0]), min(width, last.shape[1])
        padded[:kept_rows, :kept_columns] = last[:kept_rows, :kept_columns]
        last = padded
    down, across, _ = last.stride()
    view = last.as_strided(
        (side, side, rows, columns, channels), (down, across, step * down, step * across, 1), last.storage_offset()
    )
    return view.reshape(side * side, -1, channels)


def _transformed(image: torch.Tensor, r: int, grid: tuple[int, int]) -> torch.Tensor:
    """``BᵀdB`` of every tile of ``[C, H, W]``: ``[n², tiles, C]``."""
    m = _TILE[r]
    tiles = _tiles(image, m + r - 1, m, grid)
    return (_kronecker(m, r)[2] @ tiles.flatten(1)).view_as(tiles)


def _untiled(pieces: torch.Tensor, m: int, grid: tuple[int, int], channels: int, size: tuple[int, int]) -> torch.Tensor:
    """``[m², tiles · C]`` to ``[height, width, C]``."""
    rows, columns = grid
    whole = pieces.view(m, m, rows, columns, channels).permute(2, 0, 3, 1, 4)
    return whole.reshape(rows * m, columns * m, channels)[: size[0], : size[1]]


def _add_overlapping(out: torch.Tensor, pieces: torch.Tensor, m: int, n: int, grid: tuple[int, int]) -> None:
    """Sum of overlapping tiles ``[n², tiles · C]`` into ``[H, W, C]``: the transpose of ``_tiles``."""
    rows, columns = grid
    channels = out.shape[2]
    whole = pieces.new_zeros(((rows - 1) * m + n, (columns - 1) * m + n, channels))
    parts = pieces.view(n, n, rows, columns, channels)
    for i in range(n):
        for j in range(n):
            whole[i : i + m * rows : m, j : j + m * columns : m][:rows, :columns] += parts[i, j]
    out.copy_(whole[: out.shape[0], : out.shape[1]])
