"""DSR: what is learned, and how (the paper is cited in the package's docstring)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from andon._tools.networks import blank
from andon.methods._reconstruction import largest_average
from andon.methods.base import Detector, Fitting, Method, MethodConfig
from andon.methods.dsr.codebook import DiscreteLatentModel, load_discrete_latent_model
from andon.methods.dsr.config import PRESETS, DsrConfig
from andon.methods.dsr.subspaces import DsrNetworks, compare
from andon.methods.dsr.training import DecoderStage, UpsamplingStage, learn_mean_codes
from andon.weights import WeightsRecord

__all__ = ["Dsr", "DsrDetector"]


class DsrDetector(Detector):
    """The general discrete latent model, frozen ("latents.…"), and what was trained on it ("networks.…").

    The image score is the largest average of the detection module's mask over windows; the map is the up-sampling
    module's probability of "anomalous", or that mask where there is no such module.
    """

    config: DsrConfig

    def __init__(self, config: DsrConfig, latents: DiscreteLatentModel, networks: DsrNetworks) -> None:
        super().__init__(config)
        self.latents, self.networks = latents, networks

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # One image at a time: how a batch is computed decides the last bits of features, and these decide between
        # two codes that are equally near. An image's score must not depend on what else is in its batch.
        scores, maps = zip(*(self._judge(image) for image in torch.split(batch, 1)), strict=True)
        return torch.cat(scores), torch.cat(maps)

    def _judge(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        views = compare(self.latents, self.networks, image)
        anomalous = views.mask[:, 1:]
        scores = largest_average(anomalous, self.config.score_window)
        if self.config.upsampling_epochs > 0:
            anomalous = self.networks.upsampling(*views).softmax(1)[:, 1:]
        return scores, anomalous[:, 0]

    def constant_score(self) -> float:
        return 1.0  # a probability's largest; an even image is easily given back


class Dsr(Method[DsrConfig]):
    """DSR (Zavrtanik et al. 2022).

    Cost, whatever the number of training images: a step at 256×256 takes about 230 billion multiplications an image
    with the default widths, a prediction 130; both grow with the area of the images and the square of the widths.
    """

    name = "dsr"
    title = "DSR"
    paper = (
        "Zavrtanik et al., DSR – A dual subspace re-projection network for surface anomaly detection, ECCV 2022, "
        "arXiv:2208.01521"
    )
    trained = True
    Config: ClassVar[type[MethodConfig]] = DsrConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    def learn(self, fitting: Fitting) -> DsrDetector:
        """Trains the object-specific decoder with the detection module, then the up-sampling module."""
        latents, record = load_discrete_latent_model(self.config.weights)
        networks = self._networks(latents)
        networks.initialise(fitting.seed)
        latents, networks = latents.to(fitting.device), networks.to(fitting.device)
        learn_mean_codes(fitting, latents, networks)
        fitting.uses(record)
        steps = fitting.train(DecoderStage(fitting, latents, networks)).steps
        anomalies = f"anomalies: other codes of the codebook ({steps:,} steps)"
        if self.config.upsampling_epochs > 0:
            steps = fitting.train(UpsamplingStage(fitting, latents, networks)).steps
            anomalies += f", one-coloured smudges ({steps:,} steps)"
        fitting.note(f"codebook: {record.name} ({record.source})", anomalies)
        return DsrDetector(self.config, latents, networks)

    def blank(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> DsrDetector:
        latents = blank(lambda: DiscreteLatentModel())
        return DsrDetector(self.config, latents, self._networks(latents))

    def _networks(self, latents: DiscreteLatentModel) -> DsrNetworks:
        return blank(lambda: DsrNetworks(self.config, latents.channels))
