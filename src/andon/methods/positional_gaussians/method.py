"""Positional Gaussians: learned and designed features, each with its Gaussians, its pose, its scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import nn

from andon.core import DetectorError, TrainingError
from andon.features import ANDON_FEATURES, Extractor, JoinedExtractor, blank_extractor, create_extractor
from andon.methods._batches import one_by_one
from andon.methods._config import DESIGNED_FEATURES
from andon.methods._gaussians import BlockwiseGaussian, StreamingGaussian
from andon.methods._maps import upsample_and_smooth
from andon.methods._state import shapes_under
from andon.methods.base import FeatureDetector, FeatureMethod, Fitting, MethodConfig
from andon.methods.positional_gaussians.config import CELLS, PositionalGaussiansConfig
from andon.methods.positional_gaussians.gaussians import (
    Gaussians,
    cell_distances,
    cells_of,
    merged,
    nearest_within,
    shrunk_gaussians,
)
from andon.methods.positional_gaussians.stage import StageGaussians, chosen_radius
from andon.weights import WeightsRecord

__all__ = ["PositionalGaussians", "PositionalGaussiansDetector"]

_FOLDS = 5
_KEPT = 400
"""Images whose features are kept, evenly spaced over all: what is usual is measured on them."""
_BATCH = 8
"""Images whose distances are measured together."""


class PositionalGaussiansDetector(FeatureDetector):
    """A ``StageGaussians`` a stage of the extractor, in its order: ``stages``."""

    config: PositionalGaussiansConfig

    def __init__(
        self, config: PositionalGaussiansConfig, extractor: Extractor, stages: Sequence[StageGaussians]
    ) -> None:
        super().__init__(config, extractor)
        self.stages = nn.ModuleList(stages)

    def check(self) -> None:
        for name, stage in self._named():
            if fault := stage.faults(self.config.radii[-1]):
                raise DetectorError(f"{self.name}: the saved state of stage {name}: {fault}")
            stage.read()

    def judge(self, features: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        distances = self._distances(features)
        scores = [stage.image_scores(distances[name]) for name, stage in self._named(self.config.score_stages)]
        maps = [self._enlarged(stage, distances[name]) for name, stage in self._named(self.config.map_stages)]
        return torch.stack(scores).logsumexp(0), torch.stack(maps).mean(0)

    def branches(self, batch: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """What each stage says alone, on the scale of good images: image scores ``[B]`` and maps ``[B, h, w]``."""
        distances = self._distances(self.extractor(batch))
        return {
            name: (stage.image_scores(distances[name]), self._enlarged(stage, distances[name]))
            for name, stage in self._named()
        }

    def _distances(self, features: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        named = self._named()
        self.check_grids(features, [stage.size for _, stage in named])
        return {name: one_by_one(stage.distances, maps) for (name, stage), maps in zip(named, features, strict=True)}

    def _enlarged(self, stage: StageGaussians, distances: torch.Tensor) -> torch.Tensor:
        return upsample_and_smooth(stage.standardised(distances), self.transform.output_size, self.config.sigma)

    def _named(self, only: Sequence[str] | None = None) -> list[tuple[str, StageGaussians]]:
        pairs = zip(self.config.stages, self.stages, strict=True)
        return [(name, s) for name, s in pairs if isinstance(s, StageGaussians) and (only is None or name in only)]


class PositionalGaussians(FeatureMethod[PositionalGaussiansConfig]):
    """At every cell a shrunk Gaussian of what good images have there; anomaly = distance to the nearest one close by.

    Each stage of the learned and of the designed features has Gaussians of its own; their covariances are drawn towards
    the stage's mean variance, by Ledoit and Wolf's weight. A cell's distance is the least Mahalanobis distance to the
    Gaussians within a radius, which the good images choose. Out-of-fold distances of good images say what is usual at
    each cell: the image score is made of distances relative to that, the map of distances as they are.

    Fit: one pass over the features. With P cells and d channels (28² × 32, 28² × 40 and 14² × 112) the statistics take
    ``4·5·P·d²`` bytes (90 MB, five folds), whatever the number of images; features of up to 400 images are kept
    (0.3 MB each). Prediction: ``2·(2r + 1)²·P·d²`` operations an image, 0.2 GFLOP at radius 2.
    """

    name = "positional-gaussians"
    title = "Positional Gaussians"
    paper = "Andon's own, after Defard et al., PaDiM, 2021; Ledoit & Wolf, doi:10.1016/S0047-259X(03)00096-4"
    seeded = False
    Config: ClassVar[type[MethodConfig]] = PositionalGaussiansConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "designed": {**DESIGNED_FEATURES, "designed": False, "score_stages": (CELLS,), "map_stages": (CELLS,)},
    }

    @cached_property
    def extractor(self) -> Extractor:
        learned = create_extractor(self.config.backbone, self.config.layers, self.config.weights)
        if not self.config.designed:
            return learned
        return JoinedExtractor([learned, create_extractor(ANDON_FEATURES, (CELLS,))])

    def blank_extractor(
        self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord], prefix: str = "extractor."
    ) -> Extractor:
        if not self.config.designed:
            return super().blank_extractor(shapes, weights, prefix)
        if len(weights) != 2:
            raise DetectorError(f"{self.name}: the saved state does not say which weights its extractors had")
        learned = super().blank_extractor(shapes, weights[:1], f"{prefix}parts.0.")
        designed = blank_extractor(ANDON_FEATURES, (CELLS,), weights[1], shapes_under(shapes, f"{prefix}parts.1."))
        return JoinedExtractor([learned, designed])

    def blank(
        self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]
    ) -> PositionalGaussiansDetector:
        extractor = self.blank_extractor(shapes, weights)
        stages = []
        for number, channels in enumerate(extractor.channels):
            positions = shapes.get(f"stages.{number}.mean", (1, 1))[0]
            empty = Gaussians(torch.zeros(positions, channels), torch.zeros(positions, channels, channels))
            grid, radius = torch.tensor([1, positions]), torch.zeros(1, dtype=torch.int64)
            stages.append(StageGaussians(grid, radius, empty, self.config.top))
        return PositionalGaussiansDetector(self.config, extractor, stages)

    def learn(self, fitting: Fitting) -> PositionalGaussiansDetector:
        extractor = fitting.adapted(self.extractor)
        learned = [_Learning(self.config, name, fitting) for name in self.config.stages]
        for indices, features in fitting.features(extractor):
            with fitting.clock("statistics"):
                for stage, maps in zip(learned, features, strict=True):
                    stage.add(indices, maps)
        with fitting.clock("Gaussians"):
            stages = []
            for number, stage in enumerate(learned, start=1):
                stages.append(stage.finished())
                fitting.progress("Gaussians", number, len(learned))
        if len(fitting.images) == 1:
            fitting.note("one image: what distances are usual is not known, scores are on no scale")
        return PositionalGaussiansDetector(self.config, extractor, stages)


class _Learning:
    """One stage while its features come by."""

    def __init__(self, config: PositionalGaussiansConfig, name: str, fitting: Fitting) -> None:
        self.config, self.name, self.fitting = config, name, fitting
        self.total = len(fitting.images)
        self.n_folds = min(_FOLDS, self.total)
        count = min(_KEPT, self.total)
        self.to_keep = {i * self.total // count for i in range(count)}
        self.folds: list[BlockwiseGaussian] = []
        self.kept: list[torch.Tensor] = []
        self.fold_of_kept: list[int] = []

    def add(self, indices: range, maps: torch.Tensor) -> None:
        """Takes in features ``[B, d, h, w]`` of the images with these numbers, which come in order.

        Neighbours in order are alike: a fold is a block of them, so that an image is not judged by its neighbour.
        """
        for index, image in zip(indices, torch.split(maps, 1), strict=True):
            fold = index * self.n_folds // self.total
            if len(self.folds) <= fold:
                size = int(image.shape[2] * image.shape[3])
                self.folds.append(BlockwiseGaussian(size, int(image.shape[1]), image.device))
            self.folds[fold].add(image.flatten(2))
            if index in self.to_keep:
                self.kept.append(image)
                self.fold_of_kept.append(fold)

    def finished(self) -> StageGaussians:
        """The stage, on the scale of the images that each fold did not see."""
        config, folds = self.config, [fold.statistics() for fold in self.folds]
        kept = torch.cat(self.kept)
        grid = torch.tensor(kept.shape[2:], device=kept.device)
        everything = self._gaussians(folds, kept)
        if self.total == 1:
            radius = torch.tensor(config.radii[:1], device=kept.device)
            return StageGaussians(grid, radius, everything, config.top)
        tried = config.radii
        owner = torch.tensor(self.fold_of_kept, device=kept.device)
        found = torch.empty((len(tried), len(kept), *kept.shape[2:]), device=kept.device)
        for fold in range(self.n_folds):
            held = (owner == fold).nonzero()[:, 0]
            others = [part for number, part in enumerate(folds) if number != fold]
            gaussians = self._gaussians(others, kept[owner != fold])
            for rows in torch.split(held, _BATCH):
                distances = cell_distances(kept[rows], gaussians, tried[-1])
                for number, radius_tried in enumerate(tried):
                    found[number, rows] = nearest_within(distances, radius_tried)
        best = chosen_radius(found)
        self.fitting.note(f"{self.name}: tolerance of pose {tried[best]} cells of {kept.shape[2]} × {kept.shape[3]}")
        stage = StageGaussians(grid, torch.tensor([tried[best]], device=kept.device), everything, config.top)
        stage.calibrate(found[best], config.mix)
        return stage

    def _gaussians(self, parts: Sequence[StreamingGaussian], kept: torch.Tensor) -> Gaussians:
        try:
            return shrunk_gaussians(merged(parts), cells_of(kept), self.config.epsilon)
        except RuntimeError as error:  # torch.linalg.LinAlgError, which torch does not export to type checkers
            raise TrainingError(
                f"{self.fitting.method.name}: a covariance of {self.name} is not positive definite: raise the option "
                f"'epsilon' ({self.config.epsilon}), or the features hold values that are not finite"
            ) from error
