"""DRAEM's training: both networks together (equations 1 to 4)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from andon._tools.seeds import numpy_step_generator
from andon.core import FloatArray
from andon.methods._perlin import perlin_mask, rotated_perlin_noise
from andon.methods._reconstruction import ReconstructionStage
from andon.methods.base import Fitting
from andon.methods.draem.anomalies import Textures, augment_texture, simulate_anomaly
from andon.methods.draem.config import DraemConfig
from andon.methods.draem.networks import DraemNetworks
from andon.training import focal_loss, ssim

__all__ = ["Batch", "DraemStage"]


class Batch(NamedTuple):
    """A step's images: as they should be given back and as they are shown, float32 ``[B, 3, H, W]``; the anomalies'
    mask, ``[B, 1, H, W]`` of zeros and ones."""

    target: torch.Tensor
    shown: torch.Tensor
    mask: torch.Tensor


class DraemStage(ReconstructionStage[Batch]):
    """Both networks at once; the second one's gradient reaches the first."""

    name = "train"
    channels_last = True

    config: DraemConfig
    networks: DraemNetworks

    def __init__(self, fitting: Fitting, networks: DraemNetworks) -> None:
        super().__init__(fitting, networks, fitting.method.config.epochs)
        self.textures = None if self.config.textures == "noise" else Textures(self.config)

    @property
    def source(self) -> str:
        """What anomalies are made of."""
        return "values of the Perlin noise" if self.textures is None else self.textures.name

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.networks.parameters(), lr=self.config.learning_rate, fused=True)

    def batch(self, number: int) -> Batch:
        rng = numpy_step_generator(self.seed, "anomalies", number)
        made = [self._sample(index, rng) for index in self.order(number)]
        target, shown, mask = (np.stack(part) for part in zip(*made, strict=True))
        return Batch(_channels_first(target), _channels_first(shown), torch.from_numpy(mask)[:, None])

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        config = self.config
        reconstruction, probabilities = self.networks(batch.shown)
        return {
            "l2": F.mse_loss(reconstruction, batch.target),
            "ssim": config.ssim_weight * (1 - ssim(reconstruction, batch.target, config.ssim_window)),
            "focal": focal_loss(probabilities, batch.mask, config.focal_gamma),
        }

    def _sample(self, index: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
        """One image's target, shown image and mask."""
        config, size = self.config, self.transform.output_size
        image, _ = self.image(index, rng)
        target = image.astype(np.float32) / np.float32(255)
        if rng.random() >= config.anomaly_probability:
            return target, target, np.zeros(size, np.float32)
        if self.textures is None:
            noise = rotated_perlin_noise(size, rng, exponents=config.perlin_exponents)
            mask = (noise > config.perlin_threshold).astype(np.float32)
            grey = (np.clip(noise, 0, 1) * np.float32(255)).astype(np.uint8)
            texture = np.repeat(grey[..., None], 3, axis=2)
        else:
            mask = perlin_mask(size, rng, exponents=config.perlin_exponents, threshold=config.perlin_threshold)
            texture = self.textures.draw(rng)
        texture = augment_texture(texture, rng, config.texture_augmentations)
        beta = rng.uniform(*config.beta)
        return target, simulate_anomaly(target, texture.astype(np.float32) / np.float32(255), mask, beta), mask


def _channels_first(images: FloatArray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
