"""f-AnoGAN's two trainings: the Wasserstein GAN (section 3.1), then the encoder (section 3.2.2, izi_f)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from andon._tools.seeds import step_generator
from andon.methods._adversarial import PatchStage, frozen
from andon.methods.base import Fitting, budgeted
from andon.methods.f_anogan.config import FAnoganConfig
from andon.methods.f_anogan.networks import Critic, Encoder, Generator

__all__ = ["Batch", "EncoderStage", "GanStage", "gradient_penalty"]

_LOSSES = ("critic", "penalty", "generator")


class Batch(NamedTuple):
    """A step's patches ``[B, 3, side, side]``, noise ``[B, latent]``, part of the made ones in those between both
    ``[B, 1, 1, 1]``, and whether it is the generator's."""

    patches: torch.Tensor
    noise: torch.Tensor
    mixing: torch.Tensor
    generator: bool


def gradient_penalty(critic: nn.Module, between: torch.Tensor) -> torch.Tensor:
    """Mean of ``(‖∇critic‖ − 1)²`` at patches ``[B, 3, side, side]``; a scalar that has a gradient.

    Gulrajani et al., Improved training of Wasserstein GANs (NeurIPS 2017; arXiv 1704.00028), equation 3.
    """
    between = between.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return ((slopes.flatten(1).square().sum(1) + 1e-12).sqrt() - 1).square().mean()


class _Latest(nn.Module):
    """The losses of the latest step of either network: a curve has a value of each at every step."""

    def __init__(self) -> None:
        super().__init__()
        for name in _LOSSES:
            self.register_buffer(name, torch.tensor(0.0))


class GanStage(PatchStage[Batch]):
    """A step is the critic's or the generator's: five of the one, then one of the other.

    Only the parameters of the one that moves get a gradient, and Adam leaves the others, and what it knows of them, as
    they are. Generated patches that the critic sees count in the generator's running means too.
    """

    name = "gan"
    config: FAnoganConfig

    def __init__(self, fitting: Fitting, generator: Generator, critic: Critic) -> None:
        super().__init__(fitting)
        config = self.config
        self.generator, self.critic = generator, critic
        self.latest = _Latest().to(fitting.device)
        turns = config.critic_steps // config.steps_a_turn
        self.full_steps = config.critic_steps + turns
        self.steps = budgeted(self.full_steps, config.budget)

    def modules(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "critic": self.critic, "latest": self.latest}

    def optimiser(self) -> torch.optim.Optimizer:
        config, parameters = self.config, [*self.generator.parameters(), *self.critic.parameters()]
        return torch.optim.Adam(parameters, config.learning_rate, betas=(config.momentum, config.second_momentum))

    def batch(self, number: int) -> Batch:
        config = self.config
        cycle = config.steps_a_turn + 1
        patches = self.patches(number)
        random = step_generator(self.seed, "noise", number)
        noise = torch.randn(len(patches), config.latent, generator=random)
        mixing = torch.rand(len(patches), 1, 1, 1, generator=random)
        return Batch(patches, noise, mixing, number % cycle == cycle - 1)

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        moved = self._generators(batch) if batch.generator else self._critics(batch)
        for name, loss in moved.items():
            self.latest.get_buffer(name).copy_(loss.detach())
        return {name: moved[name] if name in moved else self.latest.get_buffer(name).clone() for name in _LOSSES}

    def _generators(self, batch: Batch) -> dict[str, torch.Tensor]:
        with frozen(self.critic):
            return {"generator": -self.critic(self.generator(batch.noise)).mean()}

    def _critics(self, batch: Batch) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            made = self.generator(batch.noise)
        between = batch.patches + batch.mixing * (made - batch.patches)
        return {
            "critic": self.critic(made).mean() - self.critic(batch.patches).mean(),
            "penalty": self.config.penalty_weight * gradient_penalty(self.critic, between),
        }


class EncoderStage(PatchStage[torch.Tensor]):
    """The encoder alone: patches must come back in pixels and in the critic's features; the GAN stands still."""

    name = "encoder"
    config: FAnoganConfig

    def __init__(self, fitting: Fitting, encoder: Encoder, generator: Generator, critic: Critic) -> None:
        super().__init__(fitting)
        self.encoder, self.generator, self.critic = encoder, generator, critic
        for still in (generator, critic):
            still.eval().requires_grad_(False)
        self.full_steps = self.config.encoder_steps
        self.steps = budgeted(self.full_steps, self.config.budget)

    def modules(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder}

    def optimiser(self) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.RMSprop(
            self.encoder.parameters(), config.encoder_learning_rate, alpha=config.encoder_smoothing, eps=1e-10
        )

    def batch(self, number: int) -> torch.Tensor:
        return self.patches(number)

    def losses(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        given = self.generator(self.encoder(batch))
        features = self.critic.features(batch)
        return {
            "pixels": F.mse_loss(given, batch),
            "features": self.config.kappa * F.mse_loss(self.critic.features(given), features),
        }
