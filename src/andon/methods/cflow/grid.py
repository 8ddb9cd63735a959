"""The density of a trained flow at all positions of a grid at once."""

from __future__ import annotations

import math

import torch
from torch import nn

from andon.methods._flows import soft_clamp
from andon.methods.cflow.flows import SUBNET_SCALE, ConditionalFlow, CouplingBlock

__all__ = ["GridFlow"]

_ROWS = 4096
"""Vectors that go through a flow together: enough for full speed, little memory."""


class GridFlow(nn.Module):
    """A trained flow with the conditions of a grid's positions, for inference.

    Equal to ``ConditionalFlow.log_likelihood`` up to rounding: the conditions' part of each hidden layer is the same
    for every image and computed once; constant factors, the global affine map and the rotation are one matrix;
    everything else happens in place, thousands of vectors at a time. All of it follows from the flow, so none is in the
    state dict.

    Args:
        flow: not changed, and not to be trained further.
        encoding: conditions of the positions, ``[S, P]``.
    """

    mean: torch.Tensor
    matrix: torch.Tensor

    @torch.no_grad()
    def __init__(self, flow: ConditionalFlow, encoding: torch.Tensor) -> None:
        super().__init__()
        self.positions = len(encoding)
        self.affine = flow.affine_input
        self.constant = -0.5 * flow.channels * math.log(2 * math.pi)
        if flow.affine_input:
            self.constant = float(flow.input_log_det) + self.constant
            self.register_buffer("mean", flow.input_mean, persistent=False)
            self.register_buffer("matrix", flow.input_matrix, persistent=False)
        self.blocks = nn.ModuleList(_GridBlock(block, encoding) for block in flow.coupling_blocks())
        for block in flow.coupling_blocks():
            self.constant += float(block.scale.double().log().sum())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """float32 ``[B, C, h, w]`` with ``h·w = S`` to ``log p`` in nats, ``[B, h, w]``."""
        batch, channels, height, width = features.shape
        if height * width != self.positions:
            raise ValueError(f"{height} × {width} positions, not {self.positions}")
        result = features.new_empty((batch, self.positions))
        together = max(1, _ROWS // self.positions)
        for start in range(0, batch, together):
            part = features[start : start + together]
            x = features.new_empty((len(part), self.positions, channels))
            x.copy_(part.flatten(2).transpose(1, 2))  # never a view: the blocks work in place
            x = x.view(-1, channels)
            if self.affine:
                x = x.sub_(self.mean) @ self.matrix
            log_det = x.new_full((len(x),), self.constant)
            for block in self.blocks:
                x = block(x, log_det)
            result[start : start + together] = log_det.sub_(x.square_().sum(dim=1), alpha=0.5).view(-1, self.positions)
        return result.view(batch, height, width)


class _GridBlock(nn.Module):
    """A coupling block with its conditions."""

    term: torch.Tensor
    weight: torch.Tensor
    weight_out: torch.Tensor
    bias_out: torch.Tensor
    matrix: torch.Tensor
    order: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor

    def __init__(self, block: CouplingBlock, encoding: torch.Tensor) -> None:
        super().__init__()
        self.passive, self.active = block.passive, block.active
        self.limit, self.clamping = block.limit, block.clamping
        self.soft = block.permutation == "soft"
        scale, offset, mixing = block.scale, block.offset, block.mixing
        derived = {
            "term": block.condition_term(encoding),
            "weight": block.weight_passive.detach().T,
            "weight_out": (SUBNET_SCALE * block.weight_out).T.contiguous(),
            "bias_out": SUBNET_SCALE * block.bias_out,
            "bias": mixing @ offset if self.soft else offset[mixing],
        }
        if self.soft:
            derived["matrix"] = (mixing * scale).T.contiguous()
        else:
            derived |= {"order": mixing, "scale": scale[mixing]}
        for name, tensor in derived.items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, x: torch.Tensor, log_det: torch.Tensor) -> torch.Tensor:
        """x is used up; the coupling's part is added to ``log_det``."""
        hidden = x[:, : self.passive] @ self.weight
        hidden.view(-1, *self.term.shape).add_(self.term)
        coefficients = torch.addmm(self.bias_out, hidden.relu_(), self.weight_out)
        log_scale = soft_clamp(coefficients[:, : self.active], self.limit, self.clamping)
        log_det.add_(log_scale.sum(dim=1))
        x[:, self.passive :].mul_(log_scale.exp_()).add_(coefficients[:, self.active :])
        if self.soft:
            return torch.addmm(self.bias, x, self.matrix)
        return x.index_select(1, self.order).mul_(self.scale).add_(self.bias)
