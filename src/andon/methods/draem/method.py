"""DRAEM: what is learned, and how (the paper is cited in the package's docstring)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from andon._tools.networks import blank
from andon.methods._reconstruction import largest_average
from andon.methods.base import Detector, Fitting, Method, MethodConfig
from andon.methods.draem.config import PRESETS, DraemConfig
from andon.methods.draem.networks import DraemNetworks
from andon.methods.draem.training import DraemStage
from andon.weights import WeightsRecord

__all__ = ["Draem", "DraemDetector"]


class DraemDetector(Detector):
    """Both networks: "networks.reconstructive.…" and "networks.discriminative.…", then named as the authors'.

    The anomaly map is the discriminative network's probability of "anomalous", the image score the largest value of its
    average over windows (section 3.4).
    """

    config: DraemConfig

    def __init__(self, config: DraemConfig, networks: DraemNetworks) -> None:
        super().__init__(config)
        self.networks = networks

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        _, probabilities = self.networks(batch.contiguous(memory_format=torch.channels_last))
        anomalous = probabilities[:, 1:]
        return largest_average(anomalous, self.config.score_window), anomalous[:, 0]

    def constant_score(self) -> float:
        return 1.0  # a probability's largest; an even image is easily given back


class Draem(Method[DraemConfig]):
    """DRAEM (Zavrtanik et al. 2021a).

    Cost, whatever the number of training images: a prediction at 256×256 takes 198 billion multiplications an image
    with the published widths, a step three times as many; both grow with the area of the images and the square of the
    widths.
    """

    name = "draem"
    title = "DRAEM"
    paper = (
        "Zavrtanik et al., DRÆM – A discriminatively trained reconstruction embedding for surface anomaly detection, "
        "ICCV 2021, arXiv:2108.07610"
    )
    trained = True
    Config: ClassVar[type[MethodConfig]] = DraemConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    def learn(self, fitting: Fitting) -> DraemDetector:
        networks = self._networks()
        networks.initialise(fitting.seed, self.config.initialisation)
        stage = DraemStage(fitting, networks.to(fitting.device))
        fitting.train(stage)
        fitting.note(f"textures of the anomalies: {stage.source}")
        return DraemDetector(self.config, networks)

    def blank(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> DraemDetector:
        return DraemDetector(self.config, self._networks())

    def _networks(self) -> DraemNetworks:
        networks = blank(lambda: DraemNetworks(self.config.reconstructive_width, self.config.discriminative_width))
        return networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
