"""GANomaly: what is learned, and how (the paper is cited in the package's docstring)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from andon._tools.networks import blank
from andon._tools.seeds import derived_seed
from andon.methods._adversarial import PatchDetector
from andon.methods.base import Fitting, Method, MethodConfig
from andon.methods.ganomaly.config import PRESETS, GanomalyConfig
from andon.methods.ganomaly.networks import Discriminator, Generator, initialise
from andon.methods.ganomaly.training import GanomalyStage
from andon.weights import WeightsRecord

__all__ = ["Ganomaly", "GanomalyDetector"]


class GanomalyDetector(PatchDetector):
    """The generator ("generator.encoder1.main.…", then named as the authors'); the discriminator is not needed.

    A patch's score is the distance between what the encoders say of it and of what was given back (equation 5), as it
    is: the paper scales the scores of a test set to 0..1, which changes no order. The paper has no map: here it is the
    difference between the patch and what was given back, mean over colours.
    """

    config: GanomalyConfig

    def __init__(self, config: GanomalyConfig, generator: Generator) -> None:
        super().__init__(config)
        self.generator = generator

    def judge(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        given, described, again = self.generator(patches)
        apart = (described - again).flatten(1)
        scores = apart.abs().sum(dim=1) if self.config.score == "l1" else apart.square().mean(dim=1)
        return scores, (given - patches).abs().mean(dim=1)


class Ganomaly(Method[GanomalyConfig]):
    """GANomaly (Akcay et al. 2019).

    Cost, whatever the number of training images: a prediction of one 32×32 patch with the published widths takes 54
    million multiplications; they grow with the area and the square of the width.
    """

    name = "ganomaly"
    title = "GANomaly"
    paper = (
        "Akcay et al., GANomaly: Semi-supervised anomaly detection via adversarial training, ACCV 2018, "
        "arXiv:1805.06725"
    )
    trained = True
    Config: ClassVar[type[MethodConfig]] = GanomalyConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    def learn(self, fitting: Fitting) -> GanomalyDetector:
        config, generator = self.config, self._generator()
        discriminator = blank(lambda: Discriminator(config.patch, config.width, config.extra_layers))
        initialise(generator, fitting.seed)
        initialise(discriminator, derived_seed(fitting.seed, "discriminator"))
        stage = GanomalyStage(fitting, generator.to(fitting.device), discriminator.to(fitting.device))
        fitting.train(stage)
        if restarts := int(stage.referee.restarts):
            fitting.note(f"the discriminator began anew {restarts} time(s)")
        return GanomalyDetector(config, generator)

    def blank(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> GanomalyDetector:
        return GanomalyDetector(self.config, self._generator())

    def _generator(self) -> Generator:
        config = self.config
        return blank(lambda: Generator(config.patch, config.latent, config.width, config.extra_layers))
