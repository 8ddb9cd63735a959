"""GANomaly's training (section 3.3)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from andon._tools.seeds import derived_seed
from andon.methods._adversarial import PatchStage, frozen
from andon.methods.base import Fitting, budgeted
from andon.methods.ganomaly.config import GanomalyConfig
from andon.methods.ganomaly.networks import Discriminator, Generator, initialise
from andon.training import steps_of_epochs

__all__ = ["GanomalyStage"]


class _Referee(nn.Module):
    """Whether the discriminator has won, and how often it has begun anew: in buffers, so that a checkpoint has them."""

    won: torch.Tensor
    restarts: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("won", torch.tensor(False))
        self.register_buffer("restarts", torch.tensor(0))


class GanomalyStage(PatchStage[torch.Tensor]):
    """Generator and discriminator in one step, each on the other as it was before: as the authors' code does it, whose
    discriminator has looked at the patches before the generator moves."""

    name = "training"
    config: GanomalyConfig

    def __init__(self, fitting: Fitting, generator: Generator, discriminator: Discriminator) -> None:
        super().__init__(fitting)
        config = self.config
        self.generator, self.discriminator = generator, discriminator
        self.referee = _Referee().to(fitting.device)
        self.full_steps = steps_of_epochs(config.epochs, self.images.n_sources, config.train_batch_size)
        self.steps = budgeted(self.full_steps, config.budget)

    def modules(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator, "referee": self.referee}

    def optimiser(self) -> torch.optim.Optimizer:
        parameters = [*self.generator.parameters(), *self.discriminator.parameters()]
        return torch.optim.Adam(parameters, self.config.learning_rate, betas=(self.config.momentum, 0.999))

    def batch(self, number: int) -> torch.Tensor:
        return self.patches(number)

    def losses(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        config, referee = self.config, self.referee
        if bool(referee.won):
            initialise(self.discriminator, derived_seed(self.seed, "restart", int(referee.restarts)))
            referee.restarts += 1
        given, described, again = self.generator(batch)
        features = self.discriminator.features(batch)
        real, made = self.discriminator.logits(features), self.discriminator(given.detach())
        discriminator = 0.5 * (
            F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
            + F.binary_cross_entropy_with_logits(made, torch.zeros_like(made))
        )
        referee.won.copy_(discriminator.detach() < config.restart_below)
        with frozen(self.discriminator):
            adversarial = F.mse_loss(self.discriminator.features(given), features.detach())
        return {
            "adversarial": config.adversarial_weight * adversarial,
            "contextual": config.contextual_weight * F.l1_loss(given, batch),
            "encoder": config.encoder_weight * F.mse_loss(again, described),
            "discriminator": discriminator,
        }
