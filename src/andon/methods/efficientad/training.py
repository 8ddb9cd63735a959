"""EfficientAD's training: the losses (algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from andon._tools.seeds import numpy_step_generator
from andon.data import Images
from andon.methods._teachers import DescribedImages
from andon.methods.base import budgeted
from andon.methods.efficientad.augmentation import PenaltyImages, colour_jitter, normalised
from andon.methods.efficientad.config import EfficientAdConfig
from andon.methods.efficientad.networks import Networks
from andon.training import SampleOrder, Schedule, Stage, step_decay, steps_of_epochs

__all__ = ["Batch", "EfficientAdStage", "hard_feature_loss"]


def hard_feature_loss(distance: torch.Tensor, quantile: float = 0.999) -> torch.Tensor:
    """Mean of the elements at or above their own quantile (section 3.2); a scalar.

    The quantile is interpolated linearly between order statistics, as numpy does. Only the largest elements are sorted.
    """
    flat = distance.flatten()
    position = quantile * (flat.numel() - 1)
    below = math.floor(position)
    with torch.no_grad():
        largest = flat.topk(flat.numel() - below).values
        lower, upper = largest[-1], largest[max(0, len(largest) - 2)]
        threshold = lower + (position - below) * (upper - lower)
    return flat[flat >= threshold].mean()


class Batch(NamedTuple):
    """A step's images, made from the step's number alone: float32 ``[B, 3, H, W]`` each, indices int64 ``[B]``."""

    indices: torch.Tensor
    images: torch.Tensor
    augmented: torch.Tensor
    penalty: torch.Tensor | None


class EfficientAdStage(Stage[Batch]):
    """Student and autoencoder, trained together."""

    name = "training"

    def __init__(
        self,
        config: EfficientAdConfig,
        networks: Networks,
        described: DescribedImages,
        images: Images,
        penalty: PenaltyImages | None,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self.config, self.networks, self.described, self.images = config, networks, described, images
        self.penalty, self.seed, self.transform = penalty, seed, config.transform
        self.full_steps = config.steps
        if config.epochs is not None:
            self.full_steps = steps_of_epochs(config.epochs, images.n_sources, config.train_batch_size)
        self.steps = budgeted(self.full_steps, config.budget)
        self.channels_last = device.type == "cuda"
        self.order = SampleOrder(len(images), config.train_batch_size, seed)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"networks": self.networks}

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self.networks.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )

    def schedule(self) -> Schedule:
        return step_decay(self.steps, self.config.decay_at, self.config.decay)

    def batch(self, number: int) -> Batch:
        """Images, their colour-jittered copies, and penalty images (algorithm 1, lines 9 to 21)."""
        config, rng = self.config, numpy_step_generator(self.seed, "batch", number)
        indices = self.order(number)
        batch = self.transform.normalise(np.stack([self.images.resized(i, self.transform) for i in indices]))
        jittered = [
            colour_jitter(image, int(rng.integers(3)), float(rng.uniform(1 - config.jitter, 1 + config.jitter)))
            for image in self.transform.denormalise(batch)
        ]
        penalty = None
        if self.penalty is not None:
            chosen = [self.penalty.image(number * len(indices) + i, rng) for i in range(len(indices))]
            penalty = self.transform.normalise(np.stack(chosen))
        return Batch(torch.tensor(indices), batch, normalised(self.transform, torch.stack(jittered)), penalty)

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The four losses of a step; the student sees all images in one pass, and of its last layer only that half is
        computed which an image's loss is about."""
        student, channels, count = self.networks.student, self.described.teacher.channels, len(batch.images)
        target = self.described(batch.indices, batch.images)
        with torch.no_grad():
            jittered_target = self.described.teacher(batch.augmented)
        together = [batch.augmented, batch.images, *([] if batch.penalty is None else [batch.penalty])]
        hidden = student.before_last_layer(torch.cat(together))
        structural = student.last_layer_part(hidden[:count], channels, 2 * channels)
        local = student.last_layer_part(hidden[count:], 0, channels)
        decoded = self.networks.autoencoder(batch.augmented)
        losses = {"hard features": hard_feature_loss((target - local[:count]).square(), self.config.hard_quantile)}
        if batch.penalty is not None:
            losses["penalty"] = local[count:].square().mean()
        losses["autoencoder"] = F.mse_loss(decoded, jittered_target)
        losses["student-autoencoder"] = F.mse_loss(structural, decoded)
        return losses

    def close(self) -> None:
        self.described.forget()
