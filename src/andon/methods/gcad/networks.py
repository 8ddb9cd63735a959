"""GCAD's networks: regression with skip connections, the global encoder, and what links it to the local one."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from andon.methods._autoencoder import Autoencoder
from andon.methods.gcad.config import GcadConfig

__all__ = ["FieldNetworks", "RegressionNetwork", "UpsamplingNetwork"]

_SLOPE = 5e-3


def _convolutions(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3×3 convolutions, each with a leaky ReLU."""
    layers: list[nn.Module] = []
    for before, after in ((inputs, outputs), (outputs, outputs)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.LeakyReLU(_SLOPE, inplace=True)]
    return nn.Sequential(*layers)


class RegressionNetwork(nn.Module):
    """A U-Net (Ronneberger, Fischer & Brox 2015) without normalisation: ``[B, 3, H, W]`` to ``[B, channels, h, w]``.

    Args:
        channels: of the output.
        width: channels of the first level.
        levels: times that the image is halved.
        stride: a power of two: the way up ends where h = ⌈H/stride⌉.
    """

    def __init__(self, channels: int, width: int, levels: int, stride: int) -> None:
        super().__init__()
        widths = [width * min(2**level, 8) for level in range(levels + 1)]
        self.down = nn.ModuleList(_convolutions(before, after) for before, after in pairwise([3, *widths]))
        top = stride.bit_length() - 1
        self.up = nn.ModuleList(
            _convolutions(widths[level + 1] + widths[level], widths[level]) for level in reversed(range(top, levels))
        )
        self.last = nn.Conv2d(widths[top], channels, 1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        features: list[torch.Tensor] = []
        for level in self.down:
            features.append(level(F.max_pool2d(features[-1], 2, ceil_mode=True) if features else batch))
        current = features.pop()
        for level in self.up:
            beside = features.pop()
            larger = F.interpolate(current, size=beside.shape[2:], mode="bilinear", align_corners=False)
            current = level(torch.cat([larger, beside], dim=1))
        output: torch.Tensor = self.last(current)
        return output


class UpsamplingNetwork(nn.Module):
    """What the global encoder says of a place, to as many channels as the local one has: 1×1 convolutions only, so it
    adds nothing about other places."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = max(inputs, outputs)
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1),
            nn.LeakyReLU(_SLOPE, inplace=True),
            nn.Conv2d(hidden, hidden, 1),
            nn.LeakyReLU(_SLOPE, inplace=True),
            nn.Conv2d(hidden, outputs, 1),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layers(maps)
        return output


class FieldNetworks(nn.Module):
    """All that is trained for one receptive field.

    Attributes:
        local_regression: R_loc, which regresses the teacher.
        global_encoder: E_glo, through a bottleneck.
        upsampling: U, from the global encoder's output to the teacher's; needed in training alone.
        global_regression: R_glo, which regresses the global encoder and has no bottleneck.

    Args:
        config: their shape.
        channels: of the teacher.
    """

    def __init__(self, config: GcadConfig, channels: int) -> None:
        super().__init__()
        shape = config.regression_width, config.regression_levels, config.stride
        self.local_regression = RegressionNetwork(channels, *shape)
        self.global_encoder = Autoencoder(
            config.transform.output_size,
            config.grid,
            config.global_channels,
            latent=config.latent,
            width=config.encoder_width,
            dropout=0.0,
        )
        self.upsampling = UpsamplingNetwork(config.global_channels, channels)
        self.global_regression = RegressionNetwork(config.global_channels, *shape)

    def forward(self, batch: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """Losses: squared distances at a place, mean over all places.

        Args:
            batch: ``[B, 3, H, W]``.
            target: the teacher's normalised output, ``[B, channels, h, w]``.
        """
        seen = self.global_encoder(batch)
        distances = {
            "local": self.local_regression(batch) - target,
            "distillation": self.upsampling(seen) - target,
            "global": self.global_regression(batch) - seen,
        }
        return {name: distance.square().sum(1).mean() for name, distance in distances.items()}

    def branches(self, batch: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Squared distances of the structural and of the logical branch, ``[B, 2, h, w]``."""
        local = (self.local_regression(batch) - target).square().sum(1)
        disagreement = (self.global_regression(batch) - self.global_encoder(batch)).square().sum(1)
        return torch.stack([local, disagreement], dim=1)
