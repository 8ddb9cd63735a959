"""What normalising flows share, CFlow's and CS-Flow's: the soft clamp, whitened inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch

__all__ = ["Clamping", "soft_clamp", "whitening"]

Clamping = Literal["tanh", "arctan"]


def soft_clamp(values: torch.Tensor, limit: float, kind: Clamping) -> torch.Tensor:
    """Smoothly into (−limit, limit).

    "tanh": ``limit·tanh(v)``, slope ``limit`` at 0. "arctan": ``limit·(2/π)·arctan(v/limit)``, slope 2/π at 0.
    """
    if kind == "tanh":
        return torch.tanh(values).mul(limit)
    return torch.atan(values / limit).mul(2 * limit / math.pi)


def whitening(rows: Iterable[torch.Tensor], channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean ``[C]`` and matrix ``[C, C]`` with which ``(x − mean) @ matrix`` has unit covariance.

    Directions in which the vectors hardly vary are not blown up without limit: a ten-thousandth of the mean variance
    is added to all.

    Args:
        rows: float ``[N, C]``, a part of the vectors at a time.
        channels: C.
    """
    count, total = 0, torch.zeros(channels, dtype=torch.float64)
    scatter = torch.zeros((channels, channels), dtype=torch.float64)
    for part in rows:
        wide = part.double()
        count, total, scatter = count + len(wide), total + wide.sum(dim=0), scatter + wide.T @ wide
    mean = total / count
    covariance = scatter / count - mean[:, None] * mean
    floor = 1e-4 * covariance.diagonal().mean().clamp(min=1e-12)
    values, directions = torch.linalg.eigh(covariance)
    return mean.float(), (directions * (values.clamp(min=0) + floor).rsqrt()).float()
