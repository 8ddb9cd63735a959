"""RIAD's training (section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from andon._tools.seeds import numpy_step_generator
from andon.methods._reconstruction import ReconstructionStage
from andon.methods.base import Fitting
from andon.methods.riad.config import RiadConfig
from andon.methods.riad.network import InpaintingNetwork
from andon.methods.riad.regions import draw_subsets, inpainted, pixel_subsets
from andon.methods.riad.similarity import gms_loss
from andon.training import ssim

__all__ = ["Batch", "RiadStage"]


class Batch(NamedTuple):
    """A step's images, float32 ``[B, 3, H, W]``, and the subset of each pixel, uint8 ``[B, 1, H, W]``."""

    images: torch.Tensor
    subsets: torch.Tensor


class RiadStage(ReconstructionStage[Batch]):
    """The network is shown images of which a subset is missing, all subsets in one pass."""

    name = "training"
    channels_last = True

    config: RiadConfig
    networks: InpaintingNetwork

    def __init__(self, fitting: Fitting, network: InpaintingNetwork) -> None:
        super().__init__(fitting, network, fitting.method.config.epochs)

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.networks.parameters(), lr=self.config.learning_rate, fused=True)

    def batch(self, number: int) -> Batch:
        config, size = self.config, self.transform.output_size
        rng = numpy_step_generator(self.seed, "regions", number)
        indices = self.order(number)
        images = np.stack([self.image(index, rng)[0] for index in indices])
        side = int(rng.choice(config.region_sizes))
        drawn = [pixel_subsets(draw_subsets(size, side, config.subsets, rng), side, size) for _ in indices]
        return Batch(self.transform.normalise(images), torch.stack(drawn)[:, None])

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        config, images = self.config, batch.images
        given = inpainted(self.networks, images, batch.subsets, config.subsets)
        gms = gms_loss(given, images, config.scales, config.gms_constant, config.gradients)
        return {
            "l2": F.mse_loss(given, images),
            "gms": config.gms_weight * gms,
            "ssim": config.ssim_weight * (1 - ssim(given, images, config.ssim_window)),
        }
