"""RIAD: what is learned, and how (the paper is cited in the package's docstring)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from andon._tools.networks import blank, default_weights
from andon._tools.seeds import numpy_step_generator
from andon.core import DetectorError
from andon.methods.base import Detector, Fitting, Method, MethodConfig
from andon.methods.riad.config import PRESETS, RiadConfig
from andon.methods.riad.network import InpaintingNetwork
from andon.methods.riad.regions import draw_subsets, inpainted, pixel_subsets
from andon.methods.riad.similarity import mean_filter, similarity_map
from andon.methods.riad.training import RiadStage
from andon.weights import WeightsRecord

__all__ = ["Riad", "RiadDetector"]


class RiadDetector(Detector):
    """The network ("network.…") and, for each size of regions, the subset of every region ("subsets_8").

    The subsets are drawn once, when the method is fitted, so that an image has always the same score. The map is one
    less the smoothed similarity, mean over the sizes; its maximum is the image score (section 3.3).
    """

    config: RiadConfig

    def __init__(self, config: RiadConfig, network: InpaintingNetwork, seed: int = 0) -> None:
        super().__init__(config)
        self.network = network
        for side in config.region_sizes:
            rng = numpy_step_generator(seed, "prediction", side)
            self.register_buffer(
                f"subsets_{side}", draw_subsets(config.transform.output_size, side, config.subsets, rng)
            )

    def check(self) -> None:
        for side in self.config.region_sizes:
            if int(self.get_buffer(f"subsets_{side}").max()) >= self.config.subsets:
                raise DetectorError(
                    f"{self.name}: tensor subsets_{side} of the saved state names subsets there are not"
                )

    def reconstruction(self, batch: torch.Tensor, side: int) -> torch.Tensor:
        """float ``[B, 3, H, W]``, of which regions of ``side`` pixels were filled in one subset after the other."""
        size = self.config.transform.output_size
        subsets = pixel_subsets(self.get_buffer(f"subsets_{side}"), side, size).expand(len(batch), 1, *size)
        return inpainted(self.network, batch, subsets, self.config.subsets)

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        config, maps = self.config, []
        batch = batch.contiguous(memory_format=torch.channels_last)
        for side in config.region_sizes:
            given = self.reconstruction(batch, side)
            similar = similarity_map(given, batch, config.scales, config.gms_constant, config.gradients)
            maps.append(mean_filter(1 - similar, config.map_window)[:, 0])
        result = torch.stack(maps).mean(0)
        return result.amax(dim=(1, 2)), result

    def constant_score(self) -> float:
        return 1.0  # the end of the similarity's scale; an even image is easily filled in


class Riad(Method[RiadConfig]):
    """RIAD (Zavrtanik et al. 2021b).

    Cost, whatever the number of training images: with the published width a pass of the network over 256×256 takes 61
    billion multiplications; a prediction takes as many passes as there are sizes of regions and subsets (12).
    """

    name = "riad"
    title = "RIAD"
    paper = (
        "Zavrtanik et al., Reconstruction by inpainting for visual anomaly detection, Pattern Recognition 112, 2021, "
        "doi:10.1016/j.patcog.2020.107706"
    )
    trained = True
    Config: ClassVar[type[MethodConfig]] = RiadConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    def learn(self, fitting: Fitting) -> RiadDetector:
        network = self._network()
        default_weights(network, fitting.seed)
        fitting.train(RiadStage(fitting, network.to(fitting.device)))
        return RiadDetector(self.config, network, fitting.seed)

    def blank(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> RiadDetector:
        return RiadDetector(self.config, self._network())

    def _network(self) -> InpaintingNetwork:
        network = blank(lambda: InpaintingNetwork(self.config.width))
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
