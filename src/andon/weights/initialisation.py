"""Random weights that keep a deep network's features alive: orthogonal filters, calibrated batch norms.

For runs without pretrained weights (tests, demonstrations, comparisons): every record of such a run says
``pretrained=False``. Orthogonal filters follow Saxe, McClelland & Ganguli (ICLR 2014; arXiv 1312.6120); taking the
normalisation's statistics from data is layer-sequential unit-variance initialisation (Mishkin & Matas, ICLR 2016;
arXiv 1511.06422).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from andon._tools.seeds import hashed_seed
from andon.weights.record import WeightsRecord
from andon.weights.state_dicts import state_dict_sha256

__all__ = ["calibrate_batch_norm", "orthogonal_initialisation", "pink_noise", "random_weights"]

_CALIBRATION_SHAPE = (8, 3, 96, 96)


def _generator(seed: int, name: str) -> torch.Generator:
    """A generator a tensor: its values do not depend on which other tensors a network has."""
    return torch.Generator().manual_seed(hashed_seed(f"{seed}/{name}"))


_GRID = 2.0**-16
"""Values are rounded to multiples of this: what was computed in float64 is then the same on every machine."""


def pink_noise(shape: tuple[int, int, int, int], seed: int) -> torch.Tensor:
    """Noise with the 1/f amplitude spectrum of natural images, float64 ``[B, C, H, W]``, mean 0 and variance 1 each.

    White noise would calibrate a network for a world without smooth surfaces: its deeper layers would see far more
    variance on a photograph than they were scaled for.
    """
    white = torch.randn(shape, dtype=torch.float64, generator=_generator(seed, "pink noise"))
    rows = torch.fft.fftfreq(shape[2], dtype=torch.float64)[:, None]
    columns = torch.fft.rfftfreq(shape[3], dtype=torch.float64)[None, :]
    frequency = (rows**2 + columns**2).sqrt().clamp_min(1 / max(shape[2:]))
    noise: torch.Tensor = torch.fft.irfft2(torch.fft.rfft2(white) / frequency, s=shape[2:])
    variance, mean = torch.var_mean(noise, dim=(2, 3), keepdim=True)
    return noise.sub(mean).div(variance.sqrt())


@torch.no_grad()
def orthogonal_initialisation(module: nn.Module, seed: int) -> None:
    """Fills a network with fixed random weights, in place.

    Every convolution and linear layer gets orthogonal filters (rows orthonormal; where there are more rows than
    columns, columns orthogonal), each of norm √2, which keeps the second moment through a ReLU. Biases are zero,
    normalisations the identity, other parameters normal with standard deviation 0.02. The batch norms' statistics are
    then those of pink noise (see ``calibrate_batch_norm``).

    All is computed in float64 and rounded to multiples of 2⁻¹⁶, so that neither the number of threads nor the machine
    decides the last bits: a seed names the same network everywhere.
    """
    for name, layer in module.named_modules():
        for leaf, parameter in layer.named_parameters(recurse=False):
            full = f"{name}.{leaf}"
            values = torch.empty(parameter.shape, dtype=torch.float64)
            if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear) and leaf == "weight":
                nn.init.orthogonal_(values, generator=_generator(seed, full))
                rows = values.flatten(1)
                rows.mul_(2**0.5 / rows.norm(dim=1, keepdim=True))
            elif leaf == "bias":
                values.zero_()
            elif isinstance(layer, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm):
                values.fill_(1.0)
            else:
                values.normal_(0.0, 0.02, generator=_generator(seed, full))
            parameter.copy_(values.div_(_GRID).round_().mul_(_GRID))
    calibrate_batch_norm(module, pink_noise(_CALIBRATION_SHAPE, seed))


@torch.no_grad()
def calibrate_batch_norm(module: nn.Module, batch: torch.Tensor) -> None:
    """Sets every batch norm's statistics to those of what it sees of ``batch``, in one pass, in place.

    Each norm's output then has mean 0 and variance 1 a channel before the next layer is reached, so that the features
    of deep stages neither vanish nor explode, as training would have seen to. The pass is in the type of ``batch``;
    statistics are rounded to multiples of 2⁻¹⁶. Leaves the module in evaluation mode and in float32.
    """

    def observe(norm: nn.Module, arguments: tuple[Any, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        variance, mean = torch.var_mean(arguments[0], dim=(0, 2, 3), correction=0)
        norm.running_mean.copy_(mean.div(_GRID).round().mul(_GRID))
        # A channel that is all but dead on the batch stays so: it must not become a division by nothing.
        norm.running_var.copy_(torch.where(variance > _GRID, variance.div(_GRID).round().mul(_GRID), 1.0))

    module.eval().to(batch.dtype)
    hooks = [m.register_forward_pre_hook(observe) for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    try:
        module(batch)
    finally:
        for hook in hooks:
            hook.remove()
        module.float()


def random_weights(module: nn.Module, part: str, seed: int) -> WeightsRecord:
    """Fills a network with ``orthogonal_initialisation``; the record that says so."""
    orthogonal_initialisation(module, seed)
    digest = state_dict_sha256(module.state_dict())
    return WeightsRecord(part, "random", f"orthogonal, seed {seed}", digest, pretrained=False)
