"""Blocks of U-Nets with batch normalisation, those of DRAEM's repository: for DRAEM and RIAD."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["Encoder", "block", "last", "up"]


def block(*channels: int) -> nn.Sequential:
    """3×3 convolutions from each number of channels to the next, each with batch normalisation and ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def up(inputs: int, outputs: int) -> nn.Sequential:
    """Twice the size (bilinear, corners aligned), then one convolution."""
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), *block(inputs, outputs))


def last(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1))


class Encoder(nn.Module):
    """Blocks of two convolutions, halved in between: every block's features, the finest first."""

    def __init__(self, in_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.depth = len(widths)
        for number, (inputs, outputs) in enumerate(pairwise((in_channels, *widths)), start=1):
            self.add_module(f"block{number}", block(inputs, outputs, outputs))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features: list[torch.Tensor] = []
        for number in range(1, self.depth + 1):
            features.append(self.get_submodule(f"block{number}")(F.max_pool2d(features[-1], 2) if features else x))
        return features
