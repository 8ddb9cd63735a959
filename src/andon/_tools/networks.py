"""Making torch networks without touching anybody's random generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from andon._tools.seeds import step_generator

__all__ = ["blank", "default_weights", "normal_batch_norms", "unfilled"]

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def blank(make: Callable[[], ModuleT]) -> ModuleT:
    """A network whose weights are to be overwritten: torch fills it from its global generator, which is not ours to
    move."""
    with torch.random.fork_rng([]):
        return make()


def unfilled(make: Callable[[], ModuleT]) -> ModuleT:
    """A network whose parameters hold nothing yet, every one of which must be filled before use: torch's own
    initialisation costs time, only to be overwritten. Counters of batch norms are zero."""
    with torch.device("meta"):
        network = make()
    network = network.to_empty(device="cpu")
    for name, buffer in network.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.zero_()
    return network


@torch.no_grad()
def default_weights(
    network: nn.Module, seed: int, *, normal: Callable[[str], bool] = lambda name: False, bias_first: bool = True
) -> None:
    """PyTorch's default weights of all convolutions, in place, from a seed and the layers' names.

    Filters and biases are uniform within ±1/√fan_in.

    Args:
        normal: says of a layer's name whether its filters are N(0, 0.02²) instead.
        bias_first: which of a layer's two tensors is drawn first: it decides the values, so it stays as it was when a
            method's results were published.
    """
    for name, layer in network.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            continue
        generator = step_generator(seed, "weights", name)
        bound = layer.weight[0].numel() ** -0.5
        if bias_first and layer.bias is not None:
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        if normal(name):
            nn.init.normal_(layer.weight, 0.0, 0.02, generator=generator)
        else:
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
        if not bias_first and layer.bias is not None:
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


@torch.no_grad()
def normal_batch_norms(network: nn.Module, seed: int) -> None:
    """Factors N(1, 0.02²) and offsets 0 of all batch norms, in place, from a seed and the layers' names."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02, generator=step_generator(seed, "weights", name))
            nn.init.zeros_(layer.bias)
