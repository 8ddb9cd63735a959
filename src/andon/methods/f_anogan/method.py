"""f-AnoGAN: what is learned, and how (the paper is cited in the package's docstring)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from andon._tools.networks import blank
from andon._tools.seeds import derived_seed
from andon.methods._adversarial import PatchDetector
from andon.methods.base import Fitting, Method, MethodConfig
from andon.methods.f_anogan.config import PRESETS, FAnoganConfig
from andon.methods.f_anogan.networks import Critic, Encoder, Generator, initialise
from andon.methods.f_anogan.training import EncoderStage, GanStage
from andon.weights import WeightsRecord

__all__ = ["FAnogan", "FAnoganDetector"]


class FAnoganDetector(PatchDetector):
    """Encoder, generator and critic ("encoder.…", "generator.…", "critic.…").

    A patch's score is the mean squared difference of pixels between it and what was given back, and κ times that of the
    critic's features (equation 4); the map is the absolute difference, mean over colours (section 3.3).
    """

    config: FAnoganConfig

    def __init__(self, config: FAnoganConfig, encoder: Encoder, generator: Generator, critic: Critic) -> None:
        super().__init__(config)
        self.encoder, self.generator, self.critic = encoder, generator, critic

    def judge(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        given = self.generator(self.encoder(patches))
        pixels = (given - patches).flatten(1).square().mean(dim=1)
        features = (self.critic.features(given) - self.critic.features(patches)).square().mean(dim=1)
        return pixels + self.config.kappa * features, (given - patches).abs().mean(dim=1)


class FAnogan(Method[FAnoganConfig]):
    """f-AnoGAN (Schlegl et al. 2019).

    Cost, whatever the number of training images: a prediction of one 64×64 patch with the published widths takes 6.9
    billion multiplications; they grow with the area and the square of the width.
    """

    name = "f-anogan"
    title = "f-AnoGAN"
    paper = (
        "Schlegl et al., f-AnoGAN: Fast unsupervised anomaly detection with generative adversarial networks, Medical "
        "Image Analysis 54, 2019, doi:10.1016/j.media.2019.01.010"
    )
    trained = True
    Config: ClassVar[type[MethodConfig]] = FAnoganConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    def learn(self, fitting: Fitting) -> FAnoganDetector:
        detector = self._empty()
        networks = {"encoder": detector.encoder, "generator": detector.generator, "critic": detector.critic}
        for name, network in networks.items():
            initialise(network, derived_seed(fitting.seed, name))
            network.to(fitting.device)
        fitting.train(GanStage(fitting, detector.generator, detector.critic))
        fitting.train(EncoderStage(fitting, detector.encoder, detector.generator, detector.critic))
        return detector

    def blank(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> FAnoganDetector:
        return self._empty()

    def _empty(self) -> FAnoganDetector:
        config = self.config
        side, momentum, bounded = config.patch, config.norm_momentum, config.encoder_range == "tanh"
        return blank(
            lambda: FAnoganDetector(
                config,
                Encoder(side, config.latent, config.width, momentum, bounded=bounded),
                Generator(side, config.latent, config.width, momentum),
                Critic(side, config.width),
            )
        )
