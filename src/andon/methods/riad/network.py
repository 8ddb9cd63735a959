"""RIAD's network: a U-Net of five levels."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from andon.methods._unet import Encoder, block, last, up

__all__ = ["InpaintingNetwork"]

_LEVELS = (8, 4, 2, 1)
"""Widths of the decoder's levels, and of the skip that each is given, in multiples of the first."""


class InpaintingNetwork(nn.Module):
    """Images with parts removed (0) to images, ``[B, 3, H, W]``, sides multiples of 16.

    Args:
        width: channels of the first block (64 gives 22.7 million parameters).
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.encoder = Encoder(3, (width, 2 * width, 4 * width, 8 * width, 8 * width))
        below = 8 * width
        for number, multiple in enumerate(_LEVELS, start=1):
            outputs = multiple * width
            self.add_module(f"up{number}", up(below, outputs))
            self.add_module(f"db{number}", block(2 * outputs, outputs, outputs))
            below = outputs
        self.fin_out = last(width, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        *skips, x = self.encoder(images)
        for number in range(1, len(_LEVELS) + 1):
            x = torch.cat([self.get_submodule(f"up{number}")(x), skips.pop()], dim=1)
            x = self.get_submodule(f"db{number}")(x)
        return cast(torch.Tensor, self.fin_out(x))
