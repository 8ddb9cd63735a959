"""PaDiM: a patch distribution modelling framework for anomaly detection and localization.

Defard, Setkov, Loesch & Audigier, ICPR 2020 workshops (2021); arXiv 2011.08785.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field

from andon.core import AndonError, Prediction, ProgressCallback, no_progress
from andon.data.images import ImageLike, Images, as_images
from andon.features import FeatureExtractor, create_extractor
from andon.methods._maps import upsample_and_smooth
from andon.methods._state import checked_state
from andon.methods.base import EMBEDDED_FEATURES, FeatureMethod, FitReport, MethodConfig
from andon.methods.registry import register

__all__ = ["Padim", "PadimConfig", "StreamingGaussian", "whitening"]

_BLOCK = 32
"""Images that are added to the statistics at a time, whatever the batch size, so that it can't change the result."""
_POSITIONS = 128
"""Positions whose statistics are updated together on a CPU: they stay in a core's cache."""
_CHUNK_BYTES = 64 * 2**20
"""Working memory of the distances, and of the factorisation on a GPU."""
_CACHE_BYTES = 5 * 2**19
"""Matrices that are factorised together on a CPU: with their intermediate results they stay in a core's cache."""
_THREADS = threading.Lock()


class PadimConfig(MethodConfig):
    """Configuration; defaults as in the paper and in the AutoVI study.

    Attributes:
        backbone: see ``andon.features.create_extractor``.
        weights: see ``andon.features.create_extractor``.
        layers: stages whose vectors are concatenated, the finest first (III-A).
        n_channels: random channels that are kept (III-A); None for the paper's: 100 of 448 for ResNet-18 (and -34),
            550 of 1792 for Wide-ResNet-50-2 (and ResNet-50), 100 for others, or all where there are fewer.
        epsilon: added to the covariances' diagonal (equation 1).
        sigma: Gaussian smoothing of the map, in pixels of the method's input; 0 for none.
    """

    backbone: str = "resnet18"
    weights: str = "imagenet"
    layers: tuple[str, ...] = Field(("layer1", "layer2", "layer3"), min_length=1)
    n_channels: int | None = Field(None, ge=1)
    epsilon: float = Field(0.01, gt=0)
    sigma: float = Field(4.0, ge=0)


def _in_parallel(function: Callable[[int], None], starts: range, device: torch.device) -> Iterator[int]:
    """Calls ``function`` for every start, and yields how many are done.

    On a CPU each of torch's threads takes whole chunks. Left to itself torch would split each small product among its
    threads, and they would spend their time waiting for each other.
    """
    if device.type != "cpu":
        for done, start in enumerate(starts, start=1):
            function(start)
            yield done
        return
    with _THREADS:  # the number of threads belongs to the process: only one may change it and put it back
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads, thread_name_prefix="andon-padim") as pool:
                for done, _ in enumerate(pool.map(function, starts), start=1):
                    yield done
        finally:
            torch.set_num_threads(threads)


def _positions_first(vectors: torch.Tensor) -> torch.Tensor:
    """``[n, d, P]`` to contiguous ``[P, n, d]``; as one plain transposition, which torch does many times faster."""
    n, d, positions = vectors.shape
    return vectors.reshape(n * d, positions).T.contiguous().view(positions, n, d)


class StreamingGaussian:
    """Mean and scatter matrix of vectors at many positions, block by block, nothing kept of the vectors.

    Chan, Golub & LeVeque (1979), equations 2.1: the scatter of a union is the sum of both scatters and an outer product
    of the difference of the means. That product is one more row beside the block's centred vectors, so an update is one
    batched product. Means are float64 and blocks are centred first: nothing cancels.

    Memory: ``4·P·d²`` bytes (float32). Operations: ``2·P·d²`` an image.
    """

    mean: torch.Tensor
    scatter: torch.Tensor

    def __init__(self, positions: int, dimensions: int, device: torch.device) -> None:
        self.count = 0
        self.mean = torch.zeros((positions, dimensions), dtype=torch.float64, device=device)
        self.scatter = torch.zeros((positions, dimensions, dimensions), device=device)

    def update(self, block: torch.Tensor) -> None:
        """Adds float32 ``[n, d, P]``: n vectors at each of the P positions."""
        n, _, positions = block.shape
        by_position = _positions_first(block)
        total = self.count + n
        weight = (self.count * n / total) ** 0.5
        size = _POSITIONS if block.device.type == "cpu" else positions

        def add(start: int) -> None:
            part = slice(start, start + size)
            vectors, mean = by_position[part], self.mean[part]
            block_mean = vectors.mean(1, dtype=torch.float64)
            shift = block_mean - mean
            rows = torch.cat([vectors - block_mean[:, None].float(), (weight * shift)[:, None].float()], dim=1)
            self.scatter[part].baddbmm_(rows.transpose(1, 2), rows)
            mean += shift * (n / total)

        for _ in _in_parallel(add, range(0, positions, size), block.device):
            pass
        self.count = total

    def covariance_(self, epsilon: float) -> torch.Tensor:
        """Equation 1: ``scatter / (N − 1) + ε·I``, ``[P, d, d]``, in the scatter's own memory (which it ends)."""
        self.scatter.div_(max(self.count - 1, 1))
        self.scatter.diagonal(dim1=1, dim2=2).add_(epsilon)
        return self.scatter


def whitening(covariance: torch.Tensor) -> torch.Tensor:
    """``L⁻¹`` of the Cholesky factorisations ``L·Lᵀ = covariance``, ``[P, d, d]``, lower triangular.

    ``‖L⁻¹(x − μ)‖`` is the Mahalanobis distance. Recursive over 2 × 2 blocks, so that nearly all the work is batched
    matrix products: a library's loop over thousands of small factorisations and inverses takes twice the time.

    Raises:
        torch.linalg.LinAlgError: a matrix that is not positive definite.
    """
    d = covariance.shape[-1]
    if d <= 16:
        identity = torch.eye(d, dtype=covariance.dtype, device=covariance.device)
        inverse: torch.Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), identity, upper=False)
        return inverse
    k = d // 2
    # [[A, ·], [B, C]]: L = [[L₁, 0], [B·L₁⁻ᵀ, L₂]] with L₂·L₂ᵀ = C − (B·L₁⁻ᵀ)(B·L₁⁻ᵀ)ᵀ.
    first = whitening(covariance[:, :k, :k])
    below = torch.bmm(covariance[:, k:, :k], first.transpose(1, 2))
    second = whitening(torch.baddbmm(covariance[:, k:, k:], below, below.transpose(1, 2), alpha=-1))
    result = torch.zeros_like(covariance)
    result[:, :k, :k] = first
    result[:, k:, k:] = second
    result[:, k:, :k] = torch.bmm(second, torch.bmm(below, first)).neg_()
    return result


@register
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
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"study": {}, "embedded": EMBEDDED_FEATURES}

    def __init__(self, config: PadimConfig) -> None:
        super().__init__(config)
        self._extractor: FeatureExtractor | None = None
        self._channels: torch.Tensor | None = None
        """int64 ``[d]``, ascending: which of the concatenated channels are kept."""
        self._grid: tuple[int, int] = (0, 0)
        self._mean = torch.empty(0)
        """float32 ``[P, d]``."""
        self._whitening = torch.empty(0)
        """float32 ``[P, d, d]``, lower triangular."""

    @property
    def extractor(self) -> FeatureExtractor:
        if self._extractor is None:
            config = self.config
            self._extractor = create_extractor(config.backbone, config.layers, config.weights).to(self.device)
        return self._extractor

    def _n_channels(self) -> int:
        total, wanted = sum(self.extractor.channels), self.config.n_channels
        if wanted is None:
            return min(total, 550 if self.config.backbone in ("resnet50", "wide_resnet50_2") else 100)
        if wanted > total:
            raise AndonError(
                f"{self.name}: option 'n_channels' is {wanted}, but {', '.join(self.config.layers)} "
                f"of {self.config.backbone} have only {total} channels"
            )
        return wanted

    def _embed(self, features: tuple[torch.Tensor, ...], channels: torch.Tensor) -> torch.Tensor:
        """The kept channels at every position of the finest map, float32 ``[B, d, P]`` (III-A).

        Coarser maps give each position the vector that lies under it (nearest). Selection comes first: only what is
        kept is ever upsampled.
        """
        grid = features[0].shape[2:]
        parts, first = [], 0
        for level in features:
            index = channels[(channels >= first) & (channels < first + level.shape[1])] - first
            first += level.shape[1]
            if len(index):
                kept = level[:, index.to(level.device)]
                parts.append(kept if kept.shape[2:] == grid else F.interpolate(kept, size=grid, mode="nearest"))
        return torch.cat(parts, dim=1).flatten(2)

    def fit(
        self,
        train: Images | Iterable[ImageLike],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        progress: ProgressCallback = no_progress,
    ) -> FitReport:
        images = as_images(train)
        if len(images) == 0:
            raise AndonError(f"{self.name}: no images to learn from")
        self.to(device)
        begin = time.perf_counter()
        adapted = self.adapt_extractor(images, progress)
        fitted = time.perf_counter()
        total = sum(self.extractor.channels)
        generator = torch.Generator().manual_seed(seed)
        channels = torch.randperm(total, generator=generator)[: self._n_channels()].sort().values

        statistics: StreamingGaussian | None = None
        grid = (0, 0)
        waiting: list[torch.Tensor] = []
        seconds = 0.0
        for indices, features in self.iterate_features(images, progress=progress):
            start = time.perf_counter()
            grid = (features[0].shape[2], features[0].shape[3])
            waiting.append(self._embed(features, channels))
            if statistics is None:
                statistics = StreamingGaussian(grid[0] * grid[1], len(channels), self.device)
            last = indices.stop == len(images)
            while waiting and (last or sum(map(len, waiting)) >= _BLOCK):
                block = torch.cat(waiting) if len(waiting) > 1 else waiting[0]
                statistics.update(block[:_BLOCK])
                waiting = [block[_BLOCK:]] if len(block) > _BLOCK else []
            seconds += time.perf_counter() - start
        assert statistics is not None
        features_done = time.perf_counter()
        self._whitening = self._factorise(statistics.covariance_(self.config.epsilon), progress)
        self._mean, self._channels, self._grid = statistics.mean.float(), channels, grid
        end = time.perf_counter()
        return FitReport(
            n_train=len(images),
            seconds={
                **({"adaptation": fitted - begin} if adapted else {}),
                "features": features_done - fitted - seconds,
                "statistics": seconds,
                "factorisation": end - features_done,
            },
            weights=(self.extractor.weights,),
            notes=(
                *adapted,
                f"{len(channels)} of {total} channels at {grid[0]} × {grid[1]} positions",
            ),
        )

    def _factorise(self, covariance: torch.Tensor, progress: ProgressCallback) -> torch.Tensor:
        """Replaces each covariance by its whitening matrix, in place, in float64 a chunk at a time."""
        positions, d, _ = covariance.shape
        size = max(1, (_CACHE_BYTES if covariance.device.type == "cpu" else _CHUNK_BYTES) // (8 * d * d))

        def whiten(start: int) -> None:
            part = covariance[start : start + size]
            part.copy_(whitening(part.double()))

        try:
            for done in _in_parallel(whiten, range(0, positions, size), covariance.device):
                progress("factorisation", min(done * size, positions), positions)
        except RuntimeError as error:  # torch.linalg.LinAlgError, which torch does not export to type checkers
            raise AndonError(
                f"{self.name}: a covariance is not positive definite: raise the option 'epsilon' "
                f"({self.config.epsilon}), or the features hold values that are not finite"
            ) from error
        return covariance

    def predict_features(self, features: tuple[torch.Tensor, ...]) -> Prediction:
        if self._channels is None:
            raise AndonError(f"{self.name}: predict before fit")
        height, width = features[0].shape[2:]
        if (height, width) != self._grid:
            raise AndonError(
                f"{self.name}: the images give {height} × {width} positions, "
                f"it has learned {self._grid[0]} × {self._grid[1]}: another input size"
            )
        vectors = _positions_first(self._embed(features, self._channels))
        distance = torch.empty((vectors.shape[1], height * width), device=vectors.device)
        chunk = max(1, _CHUNK_BYTES // (4 * vectors.shape[1] * vectors.shape[2]))
        for start in range(0, height * width, chunk):
            part = slice(start, start + chunk)
            centred = vectors[part].sub_(self._mean[part, None])
            white = torch.bmm(centred, self._whitening[part].transpose(1, 2))
            distance[:, part] = torch.linalg.vector_norm(white, dim=2).T
        coarse = distance.reshape(-1, height, width)
        maps = upsample_and_smooth(coarse, self.transform.output_size, self.config.sigma)
        return Prediction(maps.amax((1, 2)).cpu().numpy(), maps.cpu().numpy(), self.transform.region)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Channels, grid, means, and the lower triangles of the whitening matrices (half of their memory)."""
        if self._channels is None:
            raise AndonError(f"{self.name}: nothing is learned yet: fit first")
        rows, columns = torch.tril_indices(len(self._channels), len(self._channels), device=self.device)
        return {
            "channels": self._channels,
            "grid": torch.tensor(self._grid),
            "mean": self._mean,
            "whitening": self._whitening[:, rows, columns],
        } | self.extractor_state()

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        state = self.restore_extractor(state)
        d = self._n_channels()
        tensors = checked_state(
            self.name,
            state,
            {
                "channels": (torch.int64, (d,)),
                "grid": (torch.int64, (2,)),
                "mean": (torch.float32, ("positions", d)),
                "whitening": (torch.float32, ("positions", d * (d + 1) // 2)),
            },
        )
        channels, total = tensors["channels"].cpu(), sum(self.extractor.channels)
        if int(channels.min()) < 0 or int(channels.max()) >= total or bool((channels.diff() <= 0).any()):
            raise AndonError(f"{self.name}: tensor channels of the saved state must ascend within 0..{total - 1}")
        height, width = (int(v) for v in tensors["grid"])
        mean = tensors["mean"].to(self.device)
        if min(height, width) < 1 or height * width != len(mean):
            raise AndonError(
                f"{self.name}: tensor grid of the saved state is {height} × {width} for {len(mean)} positions"
            )
        full = torch.zeros((len(mean), d, d), device=self.device)
        rows, columns = torch.tril_indices(d, d, device=self.device)
        full[:, rows, columns] = tensors["whitening"].to(self.device)
        self._channels, self._grid, self._mean, self._whitening = channels, (height, width), mean, full

    def to(self, device: torch.device | str) -> Padim:
        super().to(device)
        self._mean = self._mean.to(self.device)
        self._whitening = self._whitening.to(self.device)
        if self._extractor is not None:
            self._extractor = self._extractor.to(self.device)
        return self
