"""The cross-scale flow: coupling blocks on feature maps of several scales at once (section 3.2, figure 4).

As in CFlow's vectors, one half of the channels says how the other half is scaled and shifted; here first the second
half changes the first, then the changed first the second. What it says is computed by convolutions in which a map hears
of the next finer and the next coarser one. With z standard normal, ``log p(x) = −½‖z‖² + log|det ∂z/∂x|`` up to a
constant, over all positions, channels and scales together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from andon._tools.networks import blank, default_weights
from andon._tools.seeds import step_generator
from andon.methods._flows import Clamping, soft_clamp
from andon.methods.csflow.config import CsflowConfig

__all__ = ["CrossScaleBlock", "CrossScaleFlow", "CrossScaleNetwork"]

Maps = Sequence[torch.Tensor]
"""float32 ``[B, C, h, w]`` a scale, the finest first."""


class CrossScaleNetwork(nn.Module):
    """The network inside of a coupling: maps to maps of the same sizes.

    Each scale has a hidden layer; its output is the sum of convolutions of its own hidden layer, of the next coarser
    one upsampled (bilinear), and of the next finer one with stride 2; times ``gain``, which begins as 0.

    Args:
        inputs, outputs, hidden: channels.
        kernel: side of all filters.
        scales: number of maps.
        slope: of the leaky ReLU.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, kernel: int, scales: int, slope: float) -> None:
        super().__init__()
        self.slope = slope

        def convolutions(count: int, before: int, after: int, stride: int = 1) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(before, after, kernel, stride, kernel // 2) for _ in range(count))

        self.first = convolutions(scales, inputs, hidden)
        self.same = convolutions(scales, hidden, outputs)
        self.from_coarser = convolutions(scales - 1, hidden, outputs)
        self.from_finer = convolutions(scales - 1, hidden, outputs, 2)
        self.gain = nn.Parameter(torch.zeros(scales))

    def forward(self, maps: Maps) -> list[torch.Tensor]:
        hidden = [F.leaky_relu(first(x), self.slope) for first, x in zip(self.first, maps, strict=True)]
        result = [same(x) for same, x in zip(self.same, hidden, strict=True)]
        for scale, (up, down) in enumerate(zip(self.from_coarser, self.from_finer, strict=True)):
            size = hidden[scale].shape[2:]
            coarser = F.interpolate(hidden[scale + 1], size=size, mode="bilinear", align_corners=False)
            result[scale] = result[scale] + up(coarser)
            result[scale + 1] = result[scale + 1] + down(hidden[scale])
        return [gain * x for gain, x in zip(self.gain, result, strict=True)]


class CrossScaleBlock(nn.Module):
    """One invertible step: a fixed permutation of each scale's channels, then two couplings.

    With the permuted channels as (x₁, x₂) of ``C//2`` and ``C − C//2``: ``(s, t) = N₂(x₂)``,
    ``y₁ = x₁ ⊙ exp(clamp(s)) + t``; ``(s, t) = N₁(y₁)``, ``y₂ = x₂ ⊙ exp(clamp(s)) + t``.

    Args:
        channels: C, of every scale, at least 2.
        kernel: side of the networks' filters.
        config: of the flow.
    """

    orders: torch.Tensor
    """Which channel comes where, int64 ``[scales, C]``."""

    def __init__(self, channels: int, kernel: int, config: CsflowConfig) -> None:
        super().__init__()
        self.first, self.limit = channels // 2, config.clamp
        self.clamping: Clamping = config.clamping
        second, scales = channels - self.first, config.scales
        self.of_second = CrossScaleNetwork(second, 2 * self.first, config.hidden, kernel, scales, config.slope)
        self.of_first = CrossScaleNetwork(self.first, 2 * second, config.hidden, kernel, scales, config.slope)
        self.register_buffer("orders", torch.arange(channels).repeat(scales, 1))

    def _coefficients(self, network: nn.Module, maps: Maps) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Log scale and shift, one pair a scale."""
        pairs = [said.chunk(2, dim=1) for said in network(maps)]
        return [(soft_clamp(s, self.limit, self.clamping), t) for s, t in pairs]

    def forward(self, maps: Maps) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The maps transformed, and ``log|det|`` ``[B]`` over all scales."""
        permuted = [x[:, order] for x, order in zip(maps, self.orders, strict=True)]
        ones, twos = ([x[:, : self.first] for x in permuted], [x[:, self.first :] for x in permuted])
        of_second = self._coefficients(self.of_second, twos)
        ones = [x * s.exp() + t for x, (s, t) in zip(ones, of_second, strict=True)]
        of_first = self._coefficients(self.of_first, ones)
        twos = [x * s.exp() + t for x, (s, t) in zip(twos, of_first, strict=True)]
        log_det = torch.stack([s.sum(dim=(1, 2, 3)) for s, _ in (*of_second, *of_first)]).sum(dim=0)
        return [torch.cat(pair, dim=1) for pair in zip(ones, twos, strict=True)], log_det

    def inverse(self, maps: Maps) -> list[torch.Tensor]:
        """The maps that ``forward`` gives these for."""
        ones, twos = ([y[:, : self.first] for y in maps], [y[:, self.first :] for y in maps])
        of_first = self._coefficients(self.of_first, ones)
        twos = [(y - t) * (-s).exp() for y, (s, t) in zip(twos, of_first, strict=True)]
        of_second = self._coefficients(self.of_second, twos)
        ones = [(y - t) * (-s).exp() for y, (s, t) in zip(ones, of_second, strict=True)]
        both = [torch.cat(pair, dim=1) for pair in zip(ones, twos, strict=True)]
        return [x[:, order.argsort()] for x, order in zip(both, self.orders, strict=True)]


class CrossScaleFlow(nn.Module):
    """Cross-scale blocks in a row, after a fixed affine map of each scale's channels where the Config asks for it.

    Args:
        config: its shape.
        channels: of every scale.
    """

    input_mean: torch.Tensor
    input_matrix: torch.Tensor
    input_log_det: torch.Tensor
    """Log determinants of the affine maps' matrices, ``[scales]``."""

    def __init__(self, config: CsflowConfig, channels: int) -> None:
        super().__init__()
        if channels < 2:
            raise ValueError(f"a flow needs at least 2 channels, not {channels}")
        self.channels, self.affine_input = channels, config.standardise != "none"
        if self.affine_input:
            self.register_buffer("input_mean", torch.zeros(config.scales, channels))
            self.register_buffer("input_matrix", torch.eye(channels).repeat(config.scales, 1, 1))
            self.register_buffer("input_log_det", torch.zeros(config.scales))
        self.blocks = nn.ModuleList(CrossScaleBlock(channels, kernel, config) for kernel in config.kernels)

    @classmethod
    def blank(cls, config: CsflowConfig, channels: int) -> CrossScaleFlow:
        """A flow whose state is to be overwritten."""
        return blank(lambda: cls(config, channels))

    @classmethod
    def initialised(cls, config: CsflowConfig, channels: int, seed: int) -> CrossScaleFlow:
        """A flow to be trained, all that is random in it from the seed; it begins as its affine map and permutations,
        because the networks' gains are 0."""
        flow = cls.blank(config, channels)
        default_weights(flow, seed, bias_first=False)
        for number, block in enumerate(flow.coupling_blocks()):
            for scale, order in enumerate(block.orders):
                generator = step_generator(seed, "permutation", number, scale)
                order.copy_(torch.randperm(channels, generator=generator))
        return flow

    def coupling_blocks(self) -> list[CrossScaleBlock]:
        return [block for block in self.blocks if isinstance(block, CrossScaleBlock)]

    def set_input(self, scale: int, mean: torch.Tensor, matrix: torch.Tensor) -> None:
        """A scale's vectors become ``(x − mean) @ matrix``: float32 ``[C]`` and ``[C, C]``, of full rank."""
        self.input_mean[scale].copy_(mean)
        self.input_matrix[scale].copy_(matrix)
        self.input_log_det[scale].copy_(torch.linalg.slogdet(matrix.double()).logabsdet)

    def forward(self, maps: Maps) -> tuple[list[torch.Tensor], torch.Tensor]:
        """z, one ``[B, C, h, w]`` a scale, and ``log|det ∂z/∂x|`` ``[B]`` over all of them."""
        current, log_det = list(maps), maps[0].new_zeros(len(maps[0]))
        if self.affine_input:
            current = [
                F.conv2d(x - mean[:, None, None], matrix.T[:, :, None, None])
                for x, mean, matrix in zip(maps, self.input_mean, self.input_matrix, strict=True)
            ]
            for x, each in zip(maps, self.input_log_det, strict=True):
                log_det = log_det + x.shape[2] * x.shape[3] * each
        for block in self.blocks:
            current, part = block(current)
            log_det = log_det + part
        return current, log_det

    def inverse(self, z: Maps) -> list[torch.Tensor]:
        """The maps that ``forward`` gives z for: samples, where z is standard normal."""
        current = list(z)
        for block in reversed(self.coupling_blocks()):
            current = block.inverse(current)
        if self.affine_input:
            vectors = [x.permute(0, 2, 3, 1) for x in current]
            solved = [
                torch.linalg.solve(matrix, x, left=False) + mean
                for x, mean, matrix in zip(vectors, self.input_mean, self.input_matrix, strict=True)
            ]
            current = [x.permute(0, 3, 1, 2) for x in solved]
        return current
