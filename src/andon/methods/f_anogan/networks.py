"""f-AnoGAN's networks: those of the authors' repository (tSchlegl/f-AnoGAN), which are WGAN-GP's for 64×64.

Residual blocks, normalised before each convolution: by batch in generator and encoder, by layer in the critic, whose
gradient penalty is of single patches. Patches of other sizes have more or fewer blocks of 8 times the width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import nn
from torch.nn import functional as F

from andon._tools.seeds import step_generator

__all__ = ["Critic", "Encoder", "Generator", "ResidualBlock", "initialise"]

_LAST_SIDE = 4
Norm = Callable[[int], nn.Module]


def _layer_norm(channels: int) -> nn.Module:
    """Over channels and pixels together, with a factor and an offset for each channel."""
    return nn.GroupNorm(1, channels, eps=1e-5)


def _batch_norm(momentum: float) -> Norm:
    return lambda channels: nn.BatchNorm2d(channels, eps=1e-3, momentum=momentum)


def _multiples(side: int) -> list[int]:
    """Widths from a patch's full size down to 4 pixels, in multiples of the first: 1, 2, 4, 8, 8 for 64."""
    return [min(2**level, 8) for level in range(int(math.log2(side // _LAST_SIDE)) + 1)]


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a 1×1 one beside them; twice ("up") or half ("down") the size.

    Twice by repeating pixels before the first and beside the way, half by means of 2×2 pixels after the second.
    """

    def __init__(self, inputs: int, outputs: int, resample: Literal["up", "down"], norm: Norm) -> None:
        super().__init__()
        self.grows = resample == "up"
        middle = outputs if self.grows else inputs
        self.norm1, self.norm2 = norm(inputs), norm(middle)
        self.conv1 = nn.Conv2d(inputs, middle, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(middle, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = F.relu(self.norm1(x))
        if self.grows:
            x, inside = (F.interpolate(each, scale_factor=2.0, mode="nearest") for each in (x, inside))
        inside = self.conv2(F.relu(self.norm2(self.conv1(inside))))
        if not self.grows:
            x, inside = F.avg_pool2d(x, 2), F.avg_pool2d(inside, 2)
        return cast(torch.Tensor, self.shortcut(x) + inside)


class Generator(nn.Module):
    """``[B, latent]`` to patches ``[B, 3, side, side]``, −1..1.

    Args:
        side: of a patch, a power of 2.
        latent: numbers that a patch is made of.
        width: channels at full size.
        norm_momentum: of the batch norms.
    """

    def __init__(self, side: int, latent: int, width: int, norm_momentum: float) -> None:
        super().__init__()
        norm, widths = _batch_norm(norm_momentum), [width * each for each in reversed(_multiples(side))]
        self.first = nn.Linear(latent, widths[0] * _LAST_SIDE**2)
        self.blocks = nn.Sequential(*(ResidualBlock(*pair, "up", norm) for pair in pairwise(widths)))
        self.norm = norm(width)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        x = self.first(latent).view(len(latent), -1, _LAST_SIDE, _LAST_SIDE)
        return torch.tanh(self.last(F.relu(self.norm(self.blocks(x)))))


class _Halving(nn.Module):
    """Patches ``[B, 3, side, side]`` to ``outputs`` numbers, by halving blocks and a matrix."""

    def __init__(self, side: int, width: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        widths = [width * each for each in _multiples(side)]
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(*pair, "down", norm) for pair in pairwise(widths)))
        self.last = nn.Linear(widths[-1] * _LAST_SIDE**2, outputs)

    def features(self, patches: torch.Tensor) -> torch.Tensor:
        """What comes before the matrix, ``[B, D]``."""
        return cast(torch.Tensor, self.blocks(self.first(patches)).flatten(1))


class Critic(_Halving):
    """How real patches look, ``[B]``, without bounds."""

    def __init__(self, side: int, width: int) -> None:
        super().__init__(side, width, 1, _layer_norm)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.last(self.features(patches))[:, 0])


class Encoder(_Halving):
    """What the generator is to be asked for, ``[B, latent]``; in −1..1 where ``bounded``."""

    def __init__(self, side: int, latent: int, width: int, norm_momentum: float, *, bounded: bool) -> None:
        super().__init__(side, width, latent, _batch_norm(norm_momentum))
        self.bounded = bounded

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        said = self.last(self.features(patches))
        return torch.tanh(said) if self.bounded else said


@torch.no_grad()
def initialise(network: nn.Module, seed: int) -> None:
    """Uniform weights from a seed and the layers' names, biases 0, as in the authors' code.

    Variances are 2 / (fan in + fan out) (Glorot), and twice that for the 3×3 convolutions of the blocks and the
    generator's last one (He).
    """
    for name, layer in network.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        is_he = "conv" in name or (name == "last" and isinstance(layer, nn.Conv2d))
        pixels = layer.weight[0, 0].numel() if isinstance(layer, nn.Conv2d) else 1
        fans = (layer.weight.shape[0] + layer.weight.shape[1]) * pixels
        bound = math.sqrt(3 * (4 if is_he else 2) / fans)
        layer.weight.uniform_(-bound, bound, generator=step_generator(seed, "weights", name))
        if layer.bias is not None:
            layer.bias.zero_()
