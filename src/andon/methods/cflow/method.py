"""CFlow: what is learned, and how images are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import nn

from andon.core import DetectorError
from andon.features import Extractor
from andon.methods._config import DESIGNED_FEATURES, LEARNED_FEATURES
from andon.methods._maps import gaussian_smooth, upsample
from andon.methods.base import FeatureDetector, FeatureMethod, Fitting, MethodConfig
from andon.methods.cflow.config import CflowConfig
from andon.methods.cflow.flows import ConditionalFlow, positional_encoding
from andon.methods.cflow.grid import GridFlow
from andon.methods.cflow.training import FlowStage, TrainingFeatures, new_flow
from andon.weights import WeightsRecord

__all__ = ["Cflow", "CflowDetector"]


class CflowDetector(FeatureDetector):
    """A flow a scale ("flows.0.blocks.…").

    Buffers: ``grids`` int64 ``[scales, 2]``; ``references`` float32 ``[scales]``, the largest log-likelihood a
    dimension among training images.
    """

    config: CflowConfig
    grids: torch.Tensor
    references: torch.Tensor

    def __init__(
        self,
        config: CflowConfig,
        extractor: Extractor,
        flows: Sequence[ConditionalFlow],
        grids: Sequence[tuple[int, int]],
        references: torch.Tensor,
    ) -> None:
        super().__init__(config, extractor)
        self.flows = nn.ModuleList(flows)
        self.register_buffer("grids", torch.tensor(grids))
        self.register_buffer("references", references)
        self._place()

    def _place(self) -> None:
        """Makes anew what follows from the flows and the grids: the flows at all positions of their grids."""
        self._grids = [(int(height), int(width)) for height, width in self.grids]
        self.on_grid = nn.ModuleList(
            GridFlow(flow, positional_encoding(self.config.condition, *grid).to(self.device))
            for flow, grid in zip(self.conditional_flows(), self._grids, strict=True)
        )

    def conditional_flows(self) -> list[ConditionalFlow]:
        """``flows``, one a scale."""
        return cast(list[ConditionalFlow], list(self.flows))

    def grid_flows(self) -> list[GridFlow]:
        """``flows`` at all positions of their grids."""
        return cast(list[GridFlow], list(self.on_grid))

    def check(self) -> None:
        largest = torch.tensor(self.transform.output_size)
        if bool((self.grids < 1).any()) or bool((self.grids > largest).any()):
            raise DetectorError(
                f"{self.name}: tensor grids of the saved state has sides outside 1..{largest.tolist()}: "
                f"{self.grids.tolist()}"
            )
        for scale, flow in enumerate(self.conditional_flows()):
            for number, block in enumerate(flow.coupling_blocks()):
                order = block.mixing.sort().values
                if block.permutation == "hard" and not torch.equal(order, torch.arange(len(order))):
                    name = f"flows.{scale}.blocks.{number}.mixing"
                    raise DetectorError(f"{self.name}: tensor {name} of the saved state is not a permutation")
        self._place()

    def log_likelihoods(self, features: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        """Log-likelihood a dimension, ``log p / C`` in nats, at every position: ``[B, h, w]`` a scale."""
        self.check_grids(features, self._grids)
        return [flow(maps) / maps.shape[1] for flow, maps in zip(self.grid_flows(), features, strict=True)]

    def judge(self, features: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Likelihoods are compared with those of training images, so a score depends on its own image alone; the
        authors' code divides by the largest likelihood among all images that it is given."""
        size = self.transform.output_size
        total = torch.zeros((len(features[0]), *size), device=features[0].device)
        for likelihood, reference in zip(self.log_likelihoods(features), self.references, strict=True):
            relative = likelihood - reference
            if self.config.anomaly == "likelihood":
                total += 1 - upsample(relative.exp(), size)
            else:
                total -= upsample(relative, size)
        maps = gaussian_smooth(total, self.config.sigma) if self.config.sigma > 0 else total
        pixels = maps.flatten(1)
        return pixels.topk(min(self.config.image_top_k, pixels.shape[1]), dim=1).values.mean(dim=1), maps


# Minutes on a CPU: few wide steps on features that are whitened first, so that the flow begins as a Gaussian.
_QUICK: Mapping[str, Any] = {
    "condition": 64,
    "coupling_blocks": 4,
    "meta_epochs": 16,
    "sub_epochs": 1,
    "fibres": 1024,
    "learning_rate": 1e-2,
    "loss": "nll",
    "standardise": "whiten",
    "anomaly": "log-likelihood",
    "sigma": 4.0,
}


class Cflow(FeatureMethod[CflowConfig]):
    """A conditional normalising flow at each scale of a frozen network's features; anomaly = unlikeliness.

    A flow of C channels, condition P and K blocks has about ``K·(C/2 + P)·(3·C + 2·P)`` weights (and ``K·C²`` fixed
    ones with soft permutations), as many multiplications a vector at prediction and three times as many in training.
    Memory of ``fit``: all features, ``4·N·Σ S·C`` bytes with S positions a scale, up to ``memory_limit``.
    """

    name = "cflow"
    title = "CFlow"
    paper = "Gudovskiy et al., CFLOW-AD, WACV 2022, arXiv 2107.12571"
    trained = True
    Config: ClassVar[type[MethodConfig]] = CflowConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "study": {"learning_rate": 1e-4, "fibres": 64, "meta_epochs": 100, "sub_epochs": 1},
        "released-code": {
            "learning_rate": 1e-4,
            "fibres": 64,
            "meta_epochs": 100,
            "sub_epochs": 1,
            "schedule": "constant",
            "permutation": "hard",
        },
        "default": {**LEARNED_FEATURES, **_QUICK},
        "designed": {**DESIGNED_FEATURES, **_QUICK},
    }

    def learn(self, fitting: Fitting) -> CflowDetector:
        """Trains one flow after the other: they share no weight, and no step of one touches another."""
        extractor = fitting.adapted(self.extractor)
        features = TrainingFeatures(fitting, self.config, extractor)
        flows: list[ConditionalFlow] = []
        for scale in range(len(self.config.layers)):
            stage = FlowStage(features, scale)
            fitting.train(stage)
            flows.append(stage.flow.requires_grad_(False).eval())
        unknown = torch.zeros(len(flows), device=fitting.device)
        detector = CflowDetector(self.config, extractor, flows, features.grids, unknown)
        with fitting.clock("references"):
            detector.references.copy_(features.largest_likelihoods(detector.grid_flows()))
        return detector

    def blank(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> CflowDetector:
        extractor = self.blank_extractor(shapes, weights)
        scales = len(self.config.layers)
        flows = [new_flow(self.config, channels, None) for channels in extractor.channels]
        return CflowDetector(self.config, extractor, flows, [(1, 1)] * scales, torch.zeros(scales))
