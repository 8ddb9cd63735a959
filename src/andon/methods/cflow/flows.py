"""Conditional normalising flows on vectors: affine coupling blocks.

A flow is an invertible map z = f(x; c) whose Jacobian determinant is cheap. With z standard normal it is a density:
``log p(x | c) = −(C/2)·log 2π − ½‖z‖² + log|det ∂z/∂x|``. A block leaves one half of the channels as it is and scales
and shifts the other half by what a small network says of the first half and of the condition (Dinh et al. 2017,
*Density estimation using Real NVP*); then every channel is scaled and shifted (Kingma & Dhariwal 2018, *Glow*: ActNorm)
and the channels are mixed by a fixed random permutation or rotation. How the pieces are put together, and the
constants, follow the "all in one" block of FrEIA, with which CFlow's authors trained.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from andon.methods._flows import Clamping, soft_clamp

__all__ = [
    "ConditionalFlow",
    "CouplingBlock",
    "Permutation",
    "positional_encoding",
    "random_rotation",
    "standard_normal_log_density",
]

Permutation = Literal["soft", "hard"]

SUBNET_SCALE = 0.1
"""The networks' outputs are scaled by this: a fresh block is near to the identity, and large steps stay harmless."""
_SCALE_SHARPNESS = 0.5
_SCALE_UNIT = 0.1
"""The global scale is ``0.1·softplus(a)`` with the softplus ``2·log(1 + exp(a/2))``: positive, nearly linear in a."""


def positional_encoding(dimensions: int, height: int, width: int) -> torch.Tensor:
    """Sines and cosines of row and column at geometrically spaced wavelengths: float32 ``[height·width, dimensions]``.

    Row-major. The first half of the dimensions encodes the column, the second the row; in each half sine and cosine
    alternate, with ``D/4`` wavelengths from 2π to nearly 10⁴·2π (Vaswani et al. 2017, section 3.5, in two directions).

    Raises:
        ValueError: ``dimensions`` is not a positive multiple of 4.
    """
    if dimensions < 4 or dimensions % 4:
        raise ValueError(f"dimensions must be a positive multiple of 4, not {dimensions}")
    half = dimensions // 2
    frequency = torch.exp(torch.arange(0, half, 2, dtype=torch.float64) * (-math.log(1e4) / half))

    def line(length: int) -> torch.Tensor:
        phase = torch.arange(length, dtype=torch.float64)[:, None] * frequency
        return torch.stack([phase.sin(), phase.cos()], dim=2).flatten(1)

    columns, rows = line(width), line(height)
    both = [columns[None].expand(height, -1, -1), rows[:, None].expand(-1, width, -1)]
    return torch.cat(both, dim=2).reshape(height * width, dimensions).float()


def standard_normal_log_density(z: torch.Tensor) -> torch.Tensor:
    """Log density of N(0, I) at ``[N, C]``: ``[N]``."""
    return -0.5 * (z.square().sum(dim=1) + z.shape[1] * math.log(2 * math.pi))


def random_rotation(dimensions: int, generator: torch.Generator) -> torch.Tensor:
    """A rotation drawn evenly from SO(n): float32 ``[n, n]``, determinant 1.

    The Q of a Gaussian matrix's QR decomposition, made unique by R's positive diagonal, is even on O(n) (Mezzadri 2007,
    *How to generate random matrices from the classical compact groups*); reflecting one axis turns O(n)'s other half.
    """
    gaussian = torch.randn((dimensions, dimensions), generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    q = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
    if torch.linalg.slogdet(q).sign < 0:
        q[:, 0] *= -1
    rotation: torch.Tensor = q.float()
    return rotation


class CouplingBlock(nn.Module):
    """One invertible step of a flow: ``[N, C]`` with a condition ``[N, P]`` to ``[N, C]``.

    With x = (x₁, x₂) of ``C − C//2`` and ``C//2`` channels, ``(s, t) = 0.1·(V·relu(U·[x₁, c] + b) + d)`` and clamp α:
    ``y = R·(g ⊙ (x₁, x₂ ⊙ exp(clamp(s)) + t) + o)``; ``log|det| = Σ clamp(s) + Σ log g``. U's columns for x₁ and for c
    are two tensors: the condition's part can then be computed once where many vectors share it.

    Args:
        channels: C, at least 2.
        condition: P.
        limit: α of the soft clamp.
        clamping: its form.
        permutation: "soft" for a random rotation R, "hard" for a random permutation.
        generator: of the initial weights and of R; None for a block that a saved state is loaded into.
    """

    mixing: torch.Tensor

    def __init__(
        self,
        channels: int,
        condition: int,
        *,
        limit: float,
        clamping: Clamping,
        permutation: Permutation,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.limit, self.clamping, self.permutation = limit, clamping, permutation
        self.passive, self.active = channels - channels // 2, channels // 2
        inputs = self.passive + condition
        hidden = 2 * inputs

        def uniform(*shape: int, fan_in: int) -> nn.Parameter:  # a linear layer's usual initialisation
            if generator is None:
                return nn.Parameter(torch.zeros(shape))
            return nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * fan_in**-0.5)

        self.weight_passive = uniform(hidden, self.passive, fan_in=inputs)
        self.weight_condition = uniform(hidden, condition, fan_in=inputs)
        self.bias_hidden = uniform(hidden, fan_in=inputs)
        self.weight_out = uniform(2 * self.active, hidden, fan_in=hidden)
        self.bias_out = uniform(2 * self.active, fan_in=hidden)
        unit = math.log(math.expm1(_SCALE_SHARPNESS / _SCALE_UNIT)) / _SCALE_SHARPNESS
        self.scale_parameter = nn.Parameter(torch.full((channels,), unit))
        self.offset = nn.Parameter(torch.zeros(channels))
        if generator is None:
            mixing = torch.eye(channels) if permutation == "soft" else torch.arange(channels)
        elif permutation == "soft":
            mixing = random_rotation(channels, generator)
        else:
            mixing = torch.randperm(channels, generator=generator)
        self.register_buffer("mixing", mixing)

    @property
    def scale(self) -> torch.Tensor:
        """g, positive, ``[C]``; 1 in a fresh block."""
        return _SCALE_UNIT * F.softplus(self.scale_parameter, beta=_SCALE_SHARPNESS)

    def condition_term(self, condition: torch.Tensor) -> torch.Tensor:
        """What the condition ``[N, P]`` adds to the hidden layer, its bias included: ``[N, hidden]``."""
        return F.linear(condition, self.weight_condition, self.bias_hidden)

    def _coefficients(self, passive: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log scale and shift of the active half, ``[N, C//2]`` each."""
        hidden = F.relu(F.linear(passive, self.weight_passive) + self.condition_term(condition))
        s, t = (SUBNET_SCALE * F.linear(hidden, self.weight_out, self.bias_out)).chunk(2, dim=1)
        return soft_clamp(s, self.limit, self.clamping), t

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """y ``[N, C]`` and ``log|det ∂y/∂x|`` ``[N]``."""
        passive, active = x[:, : self.passive], x[:, self.passive :]
        log_scale, shift = self._coefficients(passive, condition)
        scale = self.scale
        y = torch.cat([passive, active * log_scale.exp() + shift], dim=1) * scale + self.offset
        y = F.linear(y, self.mixing) if self.permutation == "soft" else y[:, self.mixing]
        return y, log_scale.sum(dim=1) + scale.log().sum()

    def inverse(self, y: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x ``[N, C]`` of ``forward``'s y, and ``log|det ∂x/∂y|`` ``[N]``."""
        mixed = y @ self.mixing if self.permutation == "soft" else y[:, self.mixing.argsort()]
        scale = self.scale
        unscaled = (mixed - self.offset) / scale
        passive, active = unscaled[:, : self.passive], unscaled[:, self.passive :]
        log_scale, shift = self._coefficients(passive, condition)
        x = torch.cat([passive, (active - shift) * (-log_scale).exp()], dim=1)
        return x, -log_scale.sum(dim=1) - scale.log().sum()


class ConditionalFlow(nn.Module):
    """Coupling blocks in a row, after a fixed affine map of the input where one was set (``set_input``).

    Args:
        channels, condition, limit, clamping, permutation: see ``CouplingBlock``.
        blocks: number of blocks.
        affine_input: whether there is a fixed affine map in front; the identity until ``set_input``.
        generator: of all that is random in it; None for a flow that a saved state is loaded into.
    """

    input_mean: torch.Tensor
    input_matrix: torch.Tensor
    input_log_det: torch.Tensor
    """Log determinant of ``input_matrix``, a scalar."""

    def __init__(
        self,
        channels: int,
        condition: int,
        blocks: int,
        *,
        limit: float = 1.9,
        clamping: Clamping = "tanh",
        permutation: Permutation = "soft",
        affine_input: bool = False,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        if channels < 2 or blocks < 1:
            raise ValueError(f"a flow needs at least 2 channels and 1 block, not {channels} and {blocks}")
        self.channels = channels
        self.affine_input = affine_input
        if affine_input:
            self.register_buffer("input_mean", torch.zeros(channels))
            self.register_buffer("input_matrix", torch.eye(channels))
            self.register_buffer("input_log_det", torch.zeros(()))
        self.blocks = nn.ModuleList(
            CouplingBlock(
                channels, condition, limit=limit, clamping=clamping, permutation=permutation, generator=generator
            )
            for _ in range(blocks)
        )

    def set_input(self, mean: torch.Tensor, matrix: torch.Tensor) -> None:
        """The input becomes ``(x − mean) @ matrix``: float32 ``[C]`` and ``[C, C]``, of full rank."""
        if not self.affine_input:
            raise ValueError("the flow has no affine map in front")
        self.input_mean.copy_(mean)
        self.input_matrix.copy_(matrix)
        self.input_log_det.copy_(torch.linalg.slogdet(matrix.double()).logabsdet)

    def coupling_blocks(self) -> list[CouplingBlock]:
        return [block for block in self.blocks if isinstance(block, CouplingBlock)]

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """z ``[N, C]`` and ``log|det ∂z/∂x|`` ``[N]`` of x ``[N, C]`` under conditions ``[N, P]``."""
        log_det = x.new_zeros(len(x))
        if self.affine_input:
            x = (x - self.input_mean) @ self.input_matrix
            log_det = log_det + self.input_log_det
        for block in self.blocks:
            x, part = block(x, condition)
            log_det = log_det + part
        return x, log_det

    def inverse(self, z: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x ``[N, C]`` of ``forward``'s z, and ``log|det ∂x/∂z|`` ``[N]``: samples, where z is standard normal."""
        log_det = z.new_zeros(len(z))
        for block in reversed(self.coupling_blocks()):
            z, part = block.inverse(z, condition)
            log_det = log_det + part
        if self.affine_input:
            z = torch.linalg.solve(self.input_matrix, z, left=False) + self.input_mean
            log_det = log_det - self.input_log_det
        return z, log_det

    def log_likelihood(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """``log p(x | c)`` in nats, ``[N]``."""
        z, log_det = self.forward(x, condition)
        return standard_normal_log_density(z) + log_det
