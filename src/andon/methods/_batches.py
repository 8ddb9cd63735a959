"""Batches taken apart."""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["one_by_one"]


def one_by_one(function: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
    """``function(batch)``, on a CPU an image at a time, but for export.

    That is no slower there, memory is that of one image, and rounding does not hang on the batch.
    """
    if not torch.compiler.is_compiling() and batch.device.type == "cpu" and len(batch) > 1:
        return torch.cat([function(image[None]) for image in batch])
    return function(batch)
