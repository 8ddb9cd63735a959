"""DRAEM's two networks (Zavrtanik, Kristan & Skočaj, ICCV 2021; arXiv 2108.07610, section 3; VitjanZ/DRAEM).

Names and shapes of tensors are those of the authors' repository, so its checkpoints load. With the published widths
the reconstructive network has 69,048,579 parameters and the discriminative one 28,374,146.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import nn

from andon._tools.networks import default_weights, normal_batch_norms
from andon.methods._unet import Encoder, block, last, up

__all__ = ["DiscriminativeSubNetwork", "DraemNetworks", "ReconstructiveSubNetwork"]


class _ReconstructiveDecoder(nn.Module):
    """Nothing but the coarsest features reaches it: an anomaly cannot be copied."""

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        widths = (8 * width, 4 * width, 2 * width, width, width)
        for number, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            self.add_module(f"up{number}", up(inputs, inputs))
            self.add_module(f"db{number}", block(inputs, inputs, outputs))
        self.fin_out = last(width, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number in range(1, 5):
            x = self.get_submodule(f"db{number}")(self.get_submodule(f"up{number}")(x))
        return cast(torch.Tensor, self.fin_out(x))


class _DiscriminativeDecoder(nn.Module):
    """Up to each finer level, which is put beside what comes from below."""

    names = ("b", "1", "2", "3", "4")

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        below = 8 * width
        for name, skip, outputs in zip(self.names, (8, 8, 4, 2, 1), (8, 4, 2, 1, 1), strict=True):
            self.add_module(f"up_{name}" if name == "b" else f"up{name}", up(below, outputs * width))
            wide = (outputs + skip) * width
            self.add_module(f"db_{name}" if name == "b" else f"db{name}", block(wide, outputs * width, outputs * width))
            below = outputs * width
        self.fin_out = last(width, out_channels)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        *skips, x = features
        for name in self.names:
            up, block = (f"up_{name}", f"db_{name}") if name == "b" else (f"up{name}", f"db{name}")
            x = self.get_submodule(block)(torch.cat([self.get_submodule(up)(x), skips.pop()], dim=1))
        return cast(torch.Tensor, self.fin_out(x))


class ReconstructiveSubNetwork(nn.Module):
    """An autoencoder that gives an image back as good: ``[B, 3, H, W]`` to ``[B, 3, H, W]``, sides multiples of 16.

    Args:
        base_width: channels of the first block (128 in the paper).
    """

    def __init__(self, base_width: int = 128, in_channels: int = 3, out_channels: int = 3) -> None:
        super().__init__()
        self.encoder = Encoder(
            in_channels, (base_width, 2 * base_width, 4 * base_width, 8 * base_width, 8 * base_width)
        )
        self.decoder = _ReconstructiveDecoder(base_width, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.decoder(self.encoder(x)[-1]))


class DiscriminativeSubNetwork(nn.Module):
    """A U-Net that segments an image beside its reconstruction: ``[B, 6, H, W]`` to the logits of both classes
    (good, anomalous) ``[B, 2, H, W]``, sides multiples of 32.

    Args:
        base_width: channels of the first block (64 in the paper).
    """

    def __init__(self, base_width: int = 64, in_channels: int = 6, out_channels: int = 2) -> None:
        super().__init__()
        widths = (base_width, 2 * base_width, 4 * base_width, 8 * base_width, 8 * base_width, 8 * base_width)
        self.encoder_segment = Encoder(in_channels, widths)
        self.decoder_segment = _DiscriminativeDecoder(base_width, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.decoder_segment(self.encoder_segment(x)))


class DraemNetworks(nn.Module):
    """Both networks.

    Args:
        reconstructive_width, discriminative_width: channels of the first block of either.
    """

    def __init__(self, reconstructive_width: int, discriminative_width: int) -> None:
        super().__init__()
        self.reconstructive = ReconstructiveSubNetwork(reconstructive_width)
        self.discriminative = DiscriminativeSubNetwork(discriminative_width)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The reconstruction ``[B, 3, H, W]``, and the probabilities of good and anomalous ``[B, 2, H, W]``."""
        reconstruction = self.reconstructive(images)
        logits = self.discriminative(torch.cat([reconstruction, images], dim=1))
        return reconstruction, logits.float().softmax(1)

    @torch.no_grad()
    def initialise(self, seed: int, kind: str) -> None:
        """Random weights from the seed, PyTorch's own; "normal": filters N(0, 0.02²), batch norms' factors
        N(1, 0.02²)."""
        default_weights(self, seed, normal=lambda name: kind == "normal")
        if kind == "normal":
            normal_batch_norms(self, seed)
