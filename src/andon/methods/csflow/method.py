"""CS-Flow: what is learned, and how images are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch

from andon.core import DetectorError
from andon.features import Extractor, create_extractor
from andon.methods._config import DESIGNED_FEATURES, LEARNED_FEATURES
from andon.methods._maps import upsample_and_smooth
from andon.methods.base import FeatureDetector, FeatureMethod, Fitting, MethodConfig
from andon.methods.csflow.config import CsflowConfig
from andon.methods.csflow.flow import CrossScaleFlow
from andon.methods.csflow.pyramid import PyramidExtractor
from andon.methods.csflow.training import CsflowStage
from andon.weights import WeightsRecord

__all__ = ["Csflow", "CsflowDetector"]


class CsflowDetector(FeatureDetector):
    """The extractor at all scales ("extractor.base.…") and the flow ("flow.blocks.0.…")."""

    config: CsflowConfig

    def __init__(self, config: CsflowConfig, extractor: Extractor, flow: CrossScaleFlow) -> None:
        super().__init__(config, extractor)
        self.flow = flow

    def check(self) -> None:
        usual = torch.arange(self.flow.channels)
        for number, block in enumerate(self.flow.coupling_blocks()):
            if any(not torch.equal(order.sort().values, usual) for order in block.orders):
                name = f"flow.blocks.{number}.orders"
                raise DetectorError(f"{self.name}: tensor {name} of the saved state is not permutations")

    def judge(self, features: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        z, _ = self.flow(features)
        config, size = self.config, self.transform.output_size
        energies = [maps.square().mean(dim=1) for maps in z]
        if config.map_scales == "finest":
            result = upsample_and_smooth(energies[0], size, config.sigma)
        else:
            result = torch.stack([upsample_and_smooth(each, size, config.sigma) for each in energies]).mean(dim=0)
        if config.image_score == "max":
            return result.amax(dim=(1, 2)), result
        positions = sum(each[0].numel() for each in energies)
        total = torch.stack([each.sum(dim=(1, 2)) for each in energies]).sum(dim=0)
        return 0.5 * total / positions, result


# Minutes on a CPU: narrow networks, on features that are whitened first, so that the flow begins as a Gaussian. The
# networks' gains begin at 0 and Adam moves them by the learning rate a step: a few hundred steps need a large one.
_QUICK: Mapping[str, Any] = {
    "downscaling": "area",
    "kernels": (3, 3, 3),
    "hidden": 64,
    "epochs": 60,
    "train_batch_size": 8,
    "learning_rate": 5e-3,
    "standardise": "whiten",
    "sigma": 4.0,
}


class Csflow(FeatureMethod[CsflowConfig]):
    """One normalising flow on the feature maps of several sizes of an image; anomaly = how far z is from 0.

    With C channels, H hidden ones, K blocks of k×k filters and three scales the flow has about ``17·K·C·H·k²``
    parameters (275 million at the authors' sizes). Memory of ``fit``: all features, up to ``memory_limit``.
    """

    name = "csflow"
    title = "CS-Flow"
    paper = (
        "Rudolph et al., Fully convolutional cross-scale-flows for image-based defect detection, WACV 2022, "
        "arXiv:2110.02855"
    )
    trained = True
    Config: ClassVar[type[MethodConfig]] = CsflowConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "study": {},
        "default": {**LEARNED_FEATURES, "layers": ("row5",), **_QUICK},
        "designed": {**DESIGNED_FEATURES, **_QUICK},
    }

    @cached_property
    def extractor(self) -> Extractor:
        config = self.config
        base = create_extractor(config.backbone, config.layers, config.weights)
        return PyramidExtractor(base, config.scales, config.downscaling)

    def learn(self, fitting: Fitting) -> CsflowDetector:
        extractor = fitting.adapted(self.extractor)
        stage = CsflowStage(fitting, self.config, extractor)
        fitting.train(stage)
        return CsflowDetector(self.config, extractor, stage.flow)

    def blank(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> CsflowDetector:
        config = self.config
        base = self.blank_extractor(shapes, weights, "extractor.base.")
        extractor = PyramidExtractor(base, config.scales, config.downscaling)
        return CsflowDetector(config, extractor, CrossScaleFlow.blank(config, extractor.channels[0]))
