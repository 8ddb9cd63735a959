"""One stage of features: its Gaussians, and its scores on the scale of good images that it has not seen."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from andon.methods.positional_gaussians.gaussians import Gaussians, cell_distances, nearest_within

__all__ = ["StageGaussians", "chosen_radius", "usual_distances"]

_NEIGHBOURHOOD = 5
"""Cells over which what is usual at one is averaged, where the grid is as fine as 28 × 28; 3 where it is coarser."""
_FINE = 20
_ENOUGH = 1.01
"""A smaller radius is taken where it is no worse than by this factor."""


class StageGaussians(nn.Module):
    """The Gaussians of a stage.

    Buffers: ``grid`` int64 ``[2]``; ``radius`` int64 ``[1]``: tolerance of pose in cells; ``mean`` float32 ``[P, d]``
    and ``whitening`` float32 ``[P, d, d]``; ``usual`` float32 ``[2, P]``: mean and standard deviation of the distances
    of good images at each cell; ``overall`` float32 ``[2]``: the same of all cells together; ``scores`` float32
    ``[2]``: the same of the images' scores.
    """

    grid: torch.Tensor
    radius: torch.Tensor
    mean: torch.Tensor
    whitening: torch.Tensor
    usual: torch.Tensor
    overall: torch.Tensor
    scores: torch.Tensor

    def __init__(self, grid: torch.Tensor, radius: torch.Tensor, gaussians: Gaussians, top: float) -> None:
        super().__init__()
        positions = len(gaussians.mean)
        self.register_buffer("grid", grid)
        self.register_buffer("radius", radius)
        self.register_buffer("mean", gaussians.mean)
        self.register_buffer("whitening", gaussians.whitening)
        self.register_buffer("usual", torch.tensor([0.0, 1.0], device=grid.device).repeat(positions, 1).T.contiguous())
        self.register_buffer("overall", torch.tensor([0.0, 1.0], device=grid.device))
        self.register_buffer("scores", torch.tensor([0.0, 1.0], device=grid.device))
        self.top = top
        self.read()

    def read(self) -> None:
        """Takes grid and radius from the buffers; to be called when they were loaded."""
        self.size = (int(self.grid[0]), int(self.grid[1]))
        self._radius = int(self.radius[0])

    def faults(self, max_radius: int) -> str:
        """What cannot be in the buffers, by name; "" where all can."""
        height, width = (int(v) for v in self.grid)
        if min(height, width) < 1 or height * width != len(self.mean):
            return f"grid is {height} × {width} for {len(self.mean)} positions"
        if not 0 <= int(self.radius[0]) <= max_radius:
            return f"radius is {int(self.radius[0])}, not within 0..{max_radius}"
        if not all(bool((moments[1] > 0).all()) for moments in (self.usual, self.overall, self.scores)):
            return "the standard deviations must be positive"
        return ""

    def distances(self, maps: torch.Tensor) -> torch.Tensor:
        """Of float32 ``[B, d, h, w]`` each cell's distance to the nearest Gaussian within the radius, ``[B, h, w]``."""
        found = cell_distances(maps, Gaussians(self.mean, self.whitening), self._radius)
        return nearest_within(found, self._radius)

    def image_scores(self, distances: torch.Tensor) -> torch.Tensor:
        """``[B]``: mean of the largest standardised distances, itself standardised."""
        return (self._largest(distances) - self.scores[0]) / self.scores[1]

    def standardised(self, distances: torch.Tensor) -> torch.Tensor:
        """Distances ``[B, h, w]`` with mean 0 and standard deviation 1 over all cells of good images."""
        return (distances - self.overall[0]) / self.overall[1]

    @torch.no_grad()
    def calibrate(self, distances: torch.Tensor, mix: float) -> None:
        """Takes what is usual from distances ``[N, h, w]`` of at least two good images that were not learned from."""
        self.usual.copy_(usual_distances(distances, mix))
        self.overall.copy_(_moments(distances.flatten()))
        largest = self._largest(distances)
        self.scores.copy_(_moments(largest))

    def _largest(self, distances: torch.Tensor) -> torch.Tensor:
        unusual = (distances.flatten(1) - self.usual[0]) / self.usual[1]
        count = max(1, round(self.top * unusual.shape[1]))
        return unusual.topk(count, dim=1).values.mean(1)


def usual_distances(distances: torch.Tensor, mix: float) -> torch.Tensor:
    """Mean and standard deviation of good images' distances at each cell, float32 ``[2, P]``.

    Some cells are harder than others: a distance that is alarming in the middle of a plain plate is an everyday one at
    an edge that moves. Few images know little of one cell, so both moments are averaged over the cells around it and
    mixed with those of all cells.

    Args:
        distances: ``[N, h, w]``, at least two images.
        mix: weight of all cells' moments, 0 to 1.
    """
    height, width = distances.shape[1:]
    window = _NEIGHBOURHOOD if min(height, width) >= _FINE else 3
    own = torch.stack([distances.mean(0), distances.var(0)])[None]
    around = F.avg_pool2d(F.pad(own, (window // 2,) * 4, mode="replicate"), window, 1)[0].flatten(1)
    mixed = (1 - mix) * around + mix * around.mean(1, keepdim=True)
    # Where good images do not vary at all there is no scale but their own units.
    return torch.stack([mixed[0], torch.where(mixed[1] > 0, mixed[1], 1.0).sqrt()])


def chosen_radius(distances: torch.Tensor) -> int:
    """The tolerance of pose that good images ask for.

    With a larger radius all distances fall, since the least of more is taken. Where parts move a little the large
    ones, at edges, fall more, and the spread beside the mean falls; where images have no common position (a texture)
    the small ones fall just as much, and tolerance only hides defects. Taken is the smallest radius whose coefficient
    of variation is within 1 % of the least.

    Args:
        distances: ``[R + 1, N, h, w]`` of good images that were not learned from, for radius 0, 1, …, R.
    """
    flat = distances.flatten(1)
    variation = flat.std(1) / flat.mean(1).clamp(min=torch.finfo(flat.dtype).tiny)
    return int((variation <= _ENOUGH * variation.min()).nonzero()[0])


def _moments(values: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation, ``[2]``; 1 for one of 0."""
    mean, deviation = values.double().mean(), values.double().std()
    return torch.stack([mean, torch.where(deviation > 0, deviation, 1.0)])
