"""Locally aware patch features (section 3.1): each position's neighbourhood, at the finest layer's grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from andon.methods.patchcore.config import PatchcoreConfig

__all__ = ["dimension", "embed", "patch_parts", "upsample"]


def dimension(config: PatchcoreConfig, channels: Sequence[int]) -> int:
    """D, the channels of an embedding, of an extractor's."""
    return config.target_dim if config.embedding == "pooled" else sum(channels)


def patch_parts(config: PatchcoreConfig, features: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Patch features, still on their layers' grids, the finest first; layers on the same grid are one part.

    Averaging, pooling and upsampling are all linear and act on different axes, so that upsampling may come last:
    ``embed(parts)`` is the embedding, and the memory bank is searched without ever upsampling the features.

    Args:
        features: ``[B, C_i, h_i, w_i]``, one a layer.
    """
    if config.embedding == "concatenate":
        size = config.patch_size
        averaged = [F.avg_pool2d(f, size, stride=1, padding=size // 2, count_include_pad=True) for f in features]
        return _finest_first([_no_finer(config, part) for part in averaged])
    pooled = [_no_finer(config, _pooled(config, f)) for f in features]
    window, rest = divmod(len(pooled) * config.pretrain_dim, config.target_dim)
    if rest == 0 and config.pretrain_dim % window == 0:
        # Every target value averages values of one layer only, so that the layers stay apart.
        return _finest_first([_average_channels(part, config.pretrain_dim // window) for part in pooled])
    height, width = max((part.shape[-2:] for part in pooled), key=lambda size: size[0] * size[1])
    maps = torch.cat([upsample(part, (height, width)) for part in pooled], dim=1)
    return (_average_channels(maps, config.target_dim),)


def _no_finer(config: PatchcoreConfig, part: torch.Tensor) -> torch.Tensor:
    """A layer that is finer than the grid of patches, averaged to it."""
    if config.grid_stride is None:
        return part
    height, width = (math.ceil(n / config.grid_stride) for n in config.transform.output_size)
    if part.shape[-2] <= height and part.shape[-1] <= width:
        return part
    return F.adaptive_avg_pool2d(part, (min(height, part.shape[-2]), min(width, part.shape[-1])))


def embed(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Patch embeddings: every part brought to the first one's grid, concatenated.

    Args:
        parts: ``[B, C_i, h_i, w_i]``; the first is the finest.

    Returns:
        float32 ``[B·h·w, ΣC_i]``, images first, then rows, then columns.
    """
    height, width = parts[0].shape[-2:]
    maps = torch.cat([upsample(part, (height, width)) for part in parts], dim=1)
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def upsample(part: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear upsampling (half-pixel centres) of ``[B, C, h, w]`` to ``size``."""
    if tuple(part.shape[-2:]) == tuple(size):
        return part
    return F.interpolate(part, size=size, mode="bilinear", align_corners=False)


def _finest_first(parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Sorted; those on the same grid become one, so that the bank is searched with one product for them."""
    by_grid: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for part in sorted(parts, key=lambda part: -part.shape[-1] * part.shape[-2]):
        by_grid.setdefault(tuple(part.shape[-2:]), []).append(part)
    return tuple(torch.cat(same, dim=1) if len(same) > 1 else same[0] for same in by_grid.values())


def _pooled(config: PatchcoreConfig, features: torch.Tensor) -> torch.Tensor:
    """Channels × neighbourhood to ``pretrain_dim`` values a position, ``[B, pretrain_dim, h, w]``."""
    size = config.patch_size
    neighbourhoods = F.unfold(features, size, padding=size // 2)
    return _average_channels(neighbourhoods.view(*neighbourhoods.shape[:2], *features.shape[-2:]), config.pretrain_dim)


def _average_channels(maps: torch.Tensor, n: int) -> torch.Tensor:
    """Adaptive averaging of the channels of ``[B, C, h, w]`` to ``n``."""
    batch, _, height, width = maps.shape
    rows = F.adaptive_avg_pool1d(maps.flatten(2).transpose(1, 2), n)
    return rows.transpose(1, 2).reshape(batch, n, height, width)
