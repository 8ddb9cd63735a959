"""Convolutions of frozen networks on a processor, single images at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["FrozenConv2d", "convolved"]


def convolved(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> torch.Tensor:
    """``F.conv2d`` with zero padding, up to rounding, by oneDNN also where torch would not take it.

    With one thread torch leaves a 1 × 1 convolution of a single image to a general matrix product, which takes up to
    twice oneDNN's time; with several threads it takes oneDNN by itself. Gradients, other devices and types, exported
    graphs, and builds of torch without oneDNN get ``F.conv2d``.
    """
    learning = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    direct = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and not learning
    if direct and not torch.compiler.is_compiling() and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        # Public, though torch's documentation does not list it.
        found: torch.Tensor = torch.mkldnn_convolution(x, weight, bias, padding, stride, (1, 1), groups)
        return found
    return F.conv2d(x, weight, bias, stride, padding, groups=groups)


class FrozenConv2d(nn.Conv2d):
    """A convolution with zero padding and without dilation that is mostly used as it is, by ``convolved``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stride, padding = (self.stride[0], self.stride[1]), self.padding
        assert not isinstance(padding, str)
        return convolved(x, self.weight, self.bias, stride, (padding[0], padding[1]), self.groups)
