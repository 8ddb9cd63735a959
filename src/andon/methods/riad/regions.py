"""Which regions of an image are removed, and how it is put together again (section 3.1)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

__all__ = ["draw_subsets", "inpainted", "pixel_subsets"]


def draw_subsets(size: tuple[int, int], side: int, count: int, rng: np.random.Generator) -> torch.Tensor:
    """A random division of an image's regions into ``count`` disjoint subsets that differ by at most one in number.

    Args:
        size: (height, width) of the image in pixels.
        side: of a region in pixels; at the right and lower edges a part of one may be left.

    Returns:
        The number of each region's subset, uint8 ``[⌈height / side⌉, ⌈width / side⌉]``.
    """
    rows, columns = -(-size[0] // side), -(-size[1] // side)
    return torch.from_numpy((rng.permutation(rows * columns) % count).astype(np.uint8).reshape(rows, columns))


def pixel_subsets(subsets: torch.Tensor, side: int, size: tuple[int, int]) -> torch.Tensor:
    """The number of each pixel's subset, ``[height, width]``, of those of the regions."""
    wide = subsets.repeat_interleave(side, dim=0).repeat_interleave(side, dim=1)
    return wide[: size[0], : size[1]]


def inpainted(network: nn.Module, images: torch.Tensor, subsets: torch.Tensor, count: int) -> torch.Tensor:
    """Images of which each part was filled in by a network that did not see it: subset after subset is removed.

    Args:
        images: float ``[B, 3, H, W]``.
        subsets: of every pixel, uint8 ``[B, 1, H, W]``.

    Returns:
        float ``[B, 3, H, W]``.
    """
    removed = [subsets == number for number in range(count)]
    shown = torch.cat([images.masked_fill(hidden, 0.0) for hidden in removed])
    filled = network(shown).chunk(count)
    result: torch.Tensor = filled[0]
    for hidden, part in zip(removed[1:], filled[1:], strict=True):
        result = torch.where(hidden, part, result)
    return result
