"""Shrunk Gaussians at the cells of a grid, and what distance to them is usual where nothing is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from andon.methods._gaussians import StreamingGaussian, positions_first, whitened

__all__ = ["Gaussians", "cell_distances", "cells_of", "merged", "nearest_within", "shrinkage", "shrunk_gaussians"]

_WORKING_BYTES = 32 * 2**20
"""Working memory of the distances."""


class Gaussians(NamedTuple):
    """One at every position.

    Attributes:
        mean: float32 ``[P, d]``.
        whitening: float32 ``[P, d, d]``, lower triangular: ``‖W·(x − μ)‖`` is the Mahalanobis distance.
    """

    mean: torch.Tensor
    whitening: torch.Tensor


def merged(parts: Sequence[StreamingGaussian]) -> StreamingGaussian:
    """Statistics of the union of vectors; the parts stay as they are."""
    positions, d = parts[0].mean.shape
    total = StreamingGaussian(positions, d, parts[0].mean.device)
    for part in parts:
        total.join(part)
    return total


def shrinkage(covariance: torch.Tensor, fourth: torch.Tensor, n: int) -> torch.Tensor:
    """Weight of the scaled identity in each covariance (Ledoit & Wolf 2004, section 3.3), ``[P]`` in 0..1.

    At least 1/n: of two or three vectors, whose mean is taken from themselves, the estimate is far too small.

    Args:
        covariance: of ``n`` vectors (divided by n), float ``[P, d, d]``.
        fourth: mean of ‖x − μ‖⁴ over the vectors, or a part of them, ``[P]``.
        n: at least 1.
    """
    squares = covariance.square().sum((1, 2))
    trace = covariance.diagonal(dim1=1, dim2=2).sum(1)
    distance = squares - trace.square() / covariance.shape[1]
    error = ((fourth - squares) / n).clamp(min=0)
    # A covariance that is a multiple of the identity already is no further from it.
    return torch.where(distance > 0, error / distance, 1.0).clamp(min=1 / n, max=1)


@torch.no_grad()
def shrunk_gaussians(statistics: StreamingGaussian, vectors: torch.Tensor, epsilon: float) -> Gaussians:
    """A Gaussian at every position, its covariance drawn towards what is usual at all of them.

    ``(1 − ρ)·S + (ρ + ε)·v·I``, v the mean variance over positions and dimensions, ρ by Ledoit and Wolf. With the own
    variance of a position in the place of v, those where hardly anything varies (a plain ground) would be shrunk to
    next to nothing and call every speck of noise a defect.

    Args:
        statistics: of all vectors.
        vectors: float32 ``[P, m, d]``, all of them or a part, from which the error of the covariances is estimated.
        epsilon: ε.
    """
    n = statistics.count
    variance = float(statistics.scatter.diagonal(dim1=1, dim2=2).double().mean()) / n
    variance = variance if variance > 0 else 1.0

    def shrunk(part: slice) -> torch.Tensor:
        covariance = statistics.scatter[part].double() / n
        fourth = (vectors[part].double() - statistics.mean[part, None]).square().sum(2).square().mean(1)
        weight = shrinkage(covariance, fourth, n)
        covariance *= (1 - weight)[:, None, None]
        covariance.diagonal(dim1=1, dim2=2).add_(((weight + epsilon) * variance)[:, None])
        return covariance

    white = torch.empty_like(statistics.scatter)
    for _ in whitened(shrunk, white):
        pass
    return Gaussians(statistics.mean.float(), white)


def cells_of(maps: torch.Tensor) -> torch.Tensor:
    """Vectors of a feature map, ``[B, d, h, w]`` to ``[P, B, d]``."""
    return positions_first(maps.flatten(2))


def cell_distances(maps: torch.Tensor, gaussians: Gaussians, radius: int) -> torch.Tensor:
    """Mahalanobis distances to the Gaussians at and around each cell.

    Args:
        maps: float32 ``[B, d, h, w]``.
        gaussians: of the h·w positions, row by row.
        radius: r, in cells.

    Returns:
        float32 ``[2·r + 1, 2·r + 1, B, h, w]``: of offset (i − r, j − r) the distance of a cell's vector to the
        Gaussian that lies so far from it; infinite where that lies outside the image.
    """
    batch, d, height, width = maps.shape
    side = 2 * radius + 1
    # Every Gaussian meets the vectors around it, and then each distance goes to the cell that its vector is of.
    wide = F.pad(maps, (radius,) * 4)
    seen = torch.stack([wide[:, :, i : i + height, j : j + width] for i in range(side) for j in range(side)])
    rows = cells_of(seen.flatten(0, 1))
    chunk = max(1, _WORKING_BYTES // (4 * rows.shape[1] * d))
    found = []
    for start in range(0, height * width, chunk):
        part = slice(start, start + chunk)
        centred = rows[part] - gaussians.mean[part, None]
        found.append(torch.linalg.vector_norm(torch.bmm(centred, gaussians.whitening[part].transpose(1, 2)), dim=2))
    distances = torch.cat(found).T.reshape(side * side, batch, height, width)
    wide = F.pad(distances, (radius,) * 4, value=torch.inf)
    back = [
        wide[(side - 1 - i) * side + side - 1 - j, :, i : i + height, j : j + width]
        for i in range(side)
        for j in range(side)
    ]
    return torch.stack(back).reshape(side, side, batch, height, width)


def nearest_within(distances: torch.Tensor, radius: int) -> torch.Tensor:
    """The least of ``cell_distances`` within a smaller radius: ``[B, h, w]``."""
    most = distances.shape[0] // 2
    inside = distances[most - radius : most + radius + 1, most - radius : most + radius + 1]
    return inside.flatten(0, 1).amin(0)
