"""GANomaly's networks (section 3.2; samet-akcay/ganomaly).

Names and shapes of the generator's tensors are those of the authors' repository, so its checkpoints load.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from andon._tools.networks import default_weights, normal_batch_norms

__all__ = ["Decoder", "Discriminator", "Encoder", "Generator", "initialise"]

_LAST_SIDE = 4
"""Pixels a side of the coarsest features."""


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)


def _extra(main: nn.Sequential, count: int, channels: int, activation: nn.Module) -> None:
    for number in range(count):
        name = f"extra-layers-{number}-{channels}"
        main.add_module(f"{name}-conv", nn.Conv2d(channels, channels, 3, 1, 1, bias=False))
        main.add_module(f"{name}-batchnorm", nn.BatchNorm2d(channels))
        main.add_module(f"{name}-relu", activation)


class Encoder(nn.Module):
    """Patches ``[B, 3, side, side]``, halved until 4 pixels are left and one convolution ends them: ``[B, outputs, 1,
    1]``.

    Args:
        side: of a patch.
        outputs: what a patch becomes.
        width: channels after the first halving; doubled at every other.
        extra_layers: convolutions after the first halving.
    """

    def __init__(self, side: int, outputs: int, width: int, extra_layers: int = 0) -> None:
        super().__init__()
        self.main = nn.Sequential()
        self.main.add_module(f"initial-conv-3-{width}", nn.Conv2d(3, width, 4, 2, 1, bias=False))
        self.main.add_module(f"initial-relu-{width}", _leaky())
        _extra(self.main, extra_layers, width, _leaky())
        side //= 2
        while side > _LAST_SIDE:
            convolution = nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False)
            self.main.add_module(f"pyramid-{width}-{2 * width}-conv", convolution)
            self.main.add_module(f"pyramid-{2 * width}-batchnorm", nn.BatchNorm2d(2 * width))
            self.main.add_module(f"pyramid-{2 * width}-relu", _leaky())
            width, side = 2 * width, side // 2
        self.main.add_module(f"final-{width}-1-conv", nn.Conv2d(width, outputs, _LAST_SIDE, 1, 0, bias=False))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.main(patches))


class Decoder(nn.Module):
    """``[B, latent, 1, 1]`` to patches ``[B, 3, side, side]``, −1..1; arguments as of an encoder."""

    def __init__(self, side: int, latent: int, width: int, extra_layers: int = 0) -> None:
        super().__init__()
        channels = width * side // (2 * _LAST_SIDE)
        self.main = nn.Sequential()
        first = nn.ConvTranspose2d(latent, channels, _LAST_SIDE, 1, 0, bias=False)
        self.main.add_module(f"initial-{latent}-{channels}-convt", first)
        self.main.add_module(f"initial-{channels}-batchnorm", nn.BatchNorm2d(channels))
        self.main.add_module(f"initial-{channels}-relu", nn.ReLU(inplace=True))
        while channels > width:
            half = channels // 2
            convolution = nn.ConvTranspose2d(channels, half, 4, 2, 1, bias=False)
            self.main.add_module(f"pyramid-{channels}-{half}-convt", convolution)
            self.main.add_module(f"pyramid-{half}-batchnorm", nn.BatchNorm2d(half))
            self.main.add_module(f"pyramid-{half}-relu", nn.ReLU(inplace=True))
            channels = half
        _extra(self.main, extra_layers, channels, nn.ReLU(inplace=True))
        self.main.add_module(f"final-{channels}-3-convt", nn.ConvTranspose2d(channels, 3, 4, 2, 1, bias=False))
        self.main.add_module("final-3-tanh", nn.Tanh())

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.main(latent))


class Generator(nn.Module):
    """Encoder, decoder, encoder."""

    def __init__(self, side: int, latent: int, width: int, extra_layers: int = 0) -> None:
        super().__init__()
        self.encoder1 = Encoder(side, latent, width, extra_layers)
        self.decoder = Decoder(side, latent, width, extra_layers)
        self.encoder2 = Encoder(side, latent, width, extra_layers)

    def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Patches given back ``[B, 3, side, side]``, what was said of the originals, and of those given back, both
        ``[B, latent, 1, 1]``."""
        described = self.encoder1(patches)
        given = self.decoder(described)
        return given, described, self.encoder2(given)


class Discriminator(Encoder):
    """The logit ``[B]`` of "real", and the features before it."""

    def __init__(self, side: int, width: int, extra_layers: int = 0) -> None:
        super().__init__(side, 1, width, extra_layers)

    def features(self, patches: torch.Tensor) -> torch.Tensor:
        """float ``[B, C, 4, 4]``."""
        return cast(torch.Tensor, self.main[:-1](patches))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """float ``[B]`` of the features."""
        return cast(torch.Tensor, self.main[-1](features)).flatten()

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return self.logits(self.features(patches))


def initialise(network: nn.Module, seed: int) -> None:
    """Filters N(0, 0.02²), batch norms' factors N(1, 0.02²), from a seed."""
    default_weights(network, seed, normal=lambda name: True)
    normal_batch_norms(network, seed)
