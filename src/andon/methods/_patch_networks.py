"""Networks that describe patches of 17, 33 or 65 pixels, one vector a patch, and the same densely over an image.

Bergmann et al., Uninformed Students (CVPR 2020; arXiv 1911.02357), table 4 and the supplementary tables. Dense output
is that of the network on the patch around every pixel, without cutting patches (Bailer et al., Fast feature extraction
with CNNs with pooling layers, BMVC 2017): here what a pooling of stride 2 would leave out is kept, and the layers
behind it are dilated instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["DESCRIPTOR", "Padding", "PatchNetwork", "ReceptiveField", "grid_size"]

ReceptiveField: TypeAlias = Literal[17, 33, 65]
Padding: TypeAlias = Literal["zeros", "edge"]
DESCRIPTOR = 128
"""Channels of a teacher's descriptors."""
_SLOPE = 5e-3


class _Layer(NamedTuple):
    """A convolution without padding; behind it a leaky ReLU, and a maximum over 2×2 with stride 2 where it pools."""

    channels: int
    """0 stands for the network's number of output channels."""
    kernel: int
    pool: bool = False


_LAYERS: Mapping[int, tuple[_Layer, ...]] = {
    17: (_Layer(128, 6), _Layer(256, 5), _Layer(256, 5), _Layer(0, 4)),
    33: (_Layer(128, 5, True), _Layer(256, 5, True), _Layer(256, 2), _Layer(0, 4)),
    65: (_Layer(128, 5, True), _Layer(128, 5, True), _Layer(128, 5, True), _Layer(256, 4), _Layer(0, 1)),
}
_SEEN: Mapping[int, int] = {17: 17, 33: 32, 65: 60}
"""Side of what a network really sees of a patch: poolings leave out an odd last row."""


class PatchNetwork(nn.Module):
    """Patches ``[B, 3, p, p]`` to vectors (``describe``), or images to vectors at all places of a grid (``forward``).

    Args:
        field: p.
        channels: of the output; 128 for a teacher.
        width: factor on the channels of the layers before; 1 in the paper.
        stride: pixels from one vector of the grid to the next; 1 in the paper.
        padding: what is beyond the image's edges: "zeros", or the nearest pixel ("edge").
    """

    def __init__(
        self,
        field: ReceptiveField,
        channels: int = DESCRIPTOR,
        *,
        width: float = 1.0,
        stride: int = 1,
        padding: Padding = "zeros",
    ) -> None:
        super().__init__()
        self.field, self.channels, self.stride = field, channels, stride
        self.mode = "constant" if padding == "zeros" else "replicate"
        table = _LAYERS[field]
        self.pools = [layer.pool for layer in table]
        widths = [3, *(max(1, round(width * layer.channels)) if layer.channels else channels for layer in table)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, layer.kernel)
            for layer, (before, after) in zip(table, pairwise(widths), strict=True)
        )

    def layers(self) -> list[nn.Conv2d]:
        return [layer for layer in self.convolutions if isinstance(layer, nn.Conv2d)]

    def describe(self, patches: torch.Tensor) -> torch.Tensor:
        """``[B, 3, p, p]`` to ``[B, channels]``, layer by layer as in the paper's table."""
        layers = self.layers()
        for convolution, pool in zip(layers, self.pools, strict=True):
            patches = convolution(patches)
            if convolution is not layers[-1]:
                patches = F.leaky_relu(patches, _SLOPE)
            if pool:
                patches = F.max_pool2d(patches, 2)
        return patches[:, :, 0, 0]

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """``[B, 3, H, W]`` to ``[B, channels, ⌈H/stride⌉, ⌈W/stride⌉]``, what is seen centred on a grid's cell."""
        grid = grid_size((batch.shape[2], batch.shape[3]), self.stride)
        before = (_SEEN[self.field] - self.stride) // 2
        # Enough on the other side for the grid's last place, whatever the stride leaves.
        ends = [(count - 1) * self.stride + self.field - before for count in grid]
        behind = [end - side for end, side in zip(ends, batch.shape[2:], strict=True)]
        x = F.pad(batch, (before, max(0, behind[1]), before, max(0, behind[0])), mode=self.mode)
        taken, dilation, layers = 1, 1, self.layers()
        # The last layer that looks around is computed at the wanted places only.
        widest = max(number for number, layer in enumerate(layers) if layer.kernel_size != (1, 1))
        for number, (convolution, pool) in enumerate(zip(layers, self.pools, strict=True)):
            step = self.stride // taken if number == widest else 1
            x = F.conv2d(x, convolution.weight, convolution.bias, stride=step, dilation=dilation)
            if convolution is not layers[-1]:
                x = F.leaky_relu(x, _SLOPE)
            if pool:
                halves = self.stride % (2 * taken) == 0
                x = F.max_pool2d(x, 2, 2 if halves else 1, dilation=dilation)
                taken, dilation = (2 * taken, dilation) if halves else (taken, 2 * dilation)
        return x[:, :, : grid[0], : grid[1]]


def grid_size(image: tuple[int, int], stride: int) -> tuple[int, int]:
    """(rows, columns) of a dense output."""
    rows, columns = (-(-side // stride) for side in image)
    return rows, columns
