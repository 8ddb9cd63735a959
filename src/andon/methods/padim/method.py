"""PaDiM: what is learned, and how (the paper is cited in the package's docstring)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from andon.core import ConfigError, DataError, DetectorError, TrainingError
from andon.data import Images
from andon.features import Extractor, iterate_features
from andon.methods._config import DESIGNED_FEATURES, LEARNED_FEATURES
from andon.methods._gaussians import BlockwiseGaussian, StreamingGaussian, positions_first, whitened
from andon.methods._maps import upsample_and_smooth
from andon.methods.base import (
    FeatureDetector,
    FeatureMethod,
    Fitting,
    MethodConfig,
)
from andon.methods.padim.config import PadimConfig
from andon.methods.padim.moments import with_vectors, without_vectors
from andon.weights import WeightsRecord

__all__ = ["Padim", "PadimDetector"]

_CHUNK_BYTES = 64 * 2**20
"""Working memory of the distances."""


def embed(features: Sequence[torch.Tensor], channels: Sequence[int]) -> torch.Tensor:
    """The kept channels at every position of the finest map, float32 ``[B, d, P]`` (III-A).

    Coarser maps give each position the vector that lies under it (nearest). Selection comes first: only what is kept is
    ever upsampled.

    Args:
        features: ``[B, C_i, h_i, w_i]``, one a stage, the finest first.
        channels: ascending, among all stages' channels in a row.
    """
    grid = features[0].shape[2:]
    parts, first = [], 0
    for level in features:
        index = [channel - first for channel in channels if first <= channel < first + level.shape[1]]
        first += level.shape[1]
        if index:
            kept = level[:, torch.tensor(index, device=level.device)]
            parts.append(kept if kept.shape[2:] == grid else F.interpolate(kept, size=grid, mode="nearest"))
    return torch.cat(parts, dim=1).flatten(2)


class PadimDetector(FeatureDetector):
    """A Gaussian at every position.

    Buffers: ``channels`` int64 ``[d]``, ascending: which of the concatenated channels are kept; ``grid`` int64 ``[2]``;
    ``mean`` float32 ``[P, d]``; ``whitening`` float32 ``[P, d, d]``, lower triangular.
    """

    config: PadimConfig
    channels: torch.Tensor
    grid: torch.Tensor
    mean: torch.Tensor
    whitening: torch.Tensor

    def __init__(
        self,
        config: PadimConfig,
        extractor: Extractor,
        channels: torch.Tensor,
        grid: torch.Tensor,
        mean: torch.Tensor,
        whitening: torch.Tensor,
    ) -> None:
        super().__init__(config, extractor)
        self.register_buffer("channels", channels)
        self.register_buffer("grid", grid)
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)
        self._kept = channels.tolist()
        self._size = (int(grid[0]), int(grid[1]))

    def check(self) -> None:
        channels, total = self.channels, sum(self.extractor.channels)
        if int(channels.min()) < 0 or int(channels.max()) >= total or bool((channels.diff() <= 0).any()):
            raise DetectorError(f"{self.name}: tensor channels of the saved state must ascend within 0..{total - 1}")
        height, width = (int(v) for v in self.grid)
        if min(height, width) < 1 or height * width != len(self.mean):
            raise DetectorError(
                f"{self.name}: tensor grid of the saved state is {height} × {width} for {len(self.mean)} positions"
            )
        self._kept, self._size = channels.tolist(), (height, width)

    def judge(self, features: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        self.check_grids(features[:1], [self._size])
        height, width = self._size
        vectors = positions_first(embed(features, self._kept))
        # As many positions at a time as fit the working memory, whatever the batch.
        chunk = max(1, _CHUNK_BYTES // (4 * vectors.shape[1] * vectors.shape[2]))
        distances = []
        for start in range(0, height * width, chunk):
            part = slice(start, start + chunk)
            centred = vectors[part].sub(self.mean[part, None])
            white = torch.bmm(centred, self.whitening[part].transpose(1, 2))
            distances.append(torch.linalg.vector_norm(white, dim=2).T)
        coarse = torch.cat(distances, dim=1).reshape(-1, height, width)
        maps = upsample_and_smooth(coarse, self.transform.output_size, self.config.sigma)
        return maps.amax((1, 2)), maps

    def without(self, images: Images, left_out: Sequence[int]) -> PadimDetector | None:
        """The detector without some training images (``detector_without``)."""
        parts = iterate_features(
            self.extractor,
            images.subset(left_out),
            self.transform,
            batch_size=self.config.batch_size,
            device=self.device,
            stage="calibration",
        )
        vectors = torch.cat([embed(features, self._kept) for _, features in parts])
        found = without_vectors(self.mean, self.whitening, len(images), vectors, self.config.epsilon)
        return None if found is None else PadimDetector(self.config, self.extractor, self.channels, self.grid, *found)

    @torch.no_grad()
    def grown(self, fitting: Fitting) -> PadimDetector:
        """The detector with more good images (``detector_with``)."""
        more, grid = statistics_of(fitting, self.extractor, self._kept)
        if grid != self._size:
            raise DataError(f"{self.name}: the images give {grid} positions, it has learned {self._size}")
        with fitting.clock("factorisation"):
            try:
                found = with_vectors(self.mean, self.whitening, self.report.n_train, more, self.config.epsilon)
            except RuntimeError as error:  # torch.linalg.LinAlgError
                raise TrainingError(f"{self.name}: a covariance is not positive definite; train again") from error
        fitting.note(f"mean and covariance with {len(fitting.images)} more images")
        return PadimDetector(self.config, self.extractor, self.channels, self.grid, *found)


class Padim(FeatureMethod[PadimConfig]):
    """A Gaussian at every position of the feature map; anomaly = Mahalanobis distance to it.

    Fit: one pass over the features. With P positions and d channels (4,096 and 100 at 256² with ResNet-18), the
    statistics take ``4·P·d²`` bytes (164 MB; 5 GB for Wide-ResNet-50-2 and 550 channels), whatever the number of
    images, ``2·P·d²`` operations an image and ``≈ P·d³`` once. Prediction: ``2·P·d²`` operations an image.
    """

    name = "padim"
    title = "PaDiM"
    paper = "Defard et al., PaDiM, ICPR workshops 2021, arXiv 2011.08785"
    Config: ClassVar[type[MethodConfig]] = PadimConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": LEARNED_FEATURES,
        "study": {},
        "designed": DESIGNED_FEATURES,
    }

    def learn(self, fitting: Fitting) -> PadimDetector:
        extractor = fitting.adapted(self.extractor)
        total = sum(extractor.channels)
        generator = torch.Generator().manual_seed(fitting.seed)
        channels = torch.randperm(total, generator=generator)[: self._n_channels(total)].sort().values
        statistics, grid = statistics_of(fitting, extractor, channels.tolist())
        with fitting.clock("factorisation"):
            white = self._factorised(fitting, statistics.covariance_(self.config.epsilon))
        fitting.note(f"{len(channels)} of {total} channels at {grid[0]} × {grid[1]} positions")
        return PadimDetector(self.config, extractor, channels, torch.tensor(grid), statistics.mean.float(), white)

    def blank(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> PadimDetector:
        extractor = self.blank_extractor(shapes, weights)
        positions, d = shapes.get("mean", (1, 1))[0], self._n_channels(sum(extractor.channels))
        return PadimDetector(
            self.config,
            extractor,
            torch.arange(d),
            torch.tensor([1, positions]),
            torch.zeros(positions, d),
            torch.zeros(positions, d, d),
        )

    def _n_channels(self, total: int) -> int:
        wanted = self.config.n_channels
        if wanted is None:
            return min(total, 550 if self.config.backbone in ("resnet50", "wide_resnet50_2") else 100)
        if wanted > total:
            raise ConfigError(
                f"{self.name}: option 'n_channels' is {wanted}, but {', '.join(self.config.layers)} "
                f"of {self.config.backbone} have only {total} channels"
            )
        return wanted

    def _factorised(self, fitting: Fitting, covariance: torch.Tensor) -> torch.Tensor:
        """Replaces each covariance by its whitening matrix, in place."""
        try:
            for done in whitened(lambda part: covariance[part], covariance):
                fitting.progress("factorisation", done, len(covariance))
        except RuntimeError as error:  # torch.linalg.LinAlgError, which torch does not export to type checkers
            raise TrainingError(
                f"{self.name}: a covariance is not positive definite: raise the option 'epsilon' "
                f"({self.config.epsilon}), or the features hold values that are not finite"
            ) from error
        return covariance


def statistics_of(
    fitting: Fitting, extractor: Extractor, channels: Sequence[int]
) -> tuple[StreamingGaussian, tuple[int, int]]:
    """Mean and scatter of the kept channels at every position in one pass over the images, and the grid."""
    statistics: BlockwiseGaussian | None = None
    grid = (0, 0)
    for _, features in fitting.features(extractor):
        with fitting.clock("statistics"):
            grid = (features[0].shape[2], features[0].shape[3])
            if statistics is None:
                statistics = BlockwiseGaussian(grid[0] * grid[1], len(channels), fitting.device)
            statistics.add(embed(features, channels))
    assert statistics is not None
    with fitting.clock("statistics"):
        return statistics.statistics(), grid
