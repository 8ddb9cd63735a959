"""Patchcore: nearest neighbours of patch features in a coreset of those of good images.

Roth, Pemula, Zepeda, Schölkopf, Brox & Gehler: Towards Total Recall in Industrial Anomaly Detection, CVPR 2022
(arXiv 2106.08265). Section 3.1: locally aware patch features; 3.2: coreset (Algorithm 1); 3.3: scores (eq. 6 and 7).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator, model_validator

from andon.core import AndonError, Prediction, ProgressCallback, no_progress
from andon.data.images import ImageLike, Images, as_images
from andon.data.transform import Transform
from andon.features import FeatureExtractor, create_extractor
from andon.methods._maps import upsample_and_smooth
from andon.methods._state import checked_state
from andon.methods.base import EMBEDDED_FEATURES, FeatureMethod, FitReport, Method, MethodConfig
from andon.methods.patchcore.coreset import StreamingCoreset, projection_matrix
from andon.methods.patchcore.neighbours import MemoryBank, embed, upsample
from andon.methods.registry import register

__all__ = ["Patchcore", "PatchcoreConfig"]

_GIB = 2**30


class PatchcoreConfig(MethodConfig):
    """Hyperparameters of Patchcore; the defaults are those of the AutoVI study.

    The form in the paper's published code is ``embedding="pooled", image_score="max"``.

    Attributes:
        backbone, layers, weights: of the frozen extractor (``create_extractor``). The finest layer's grid is
            the grid of patches; coarser ones are upsampled to it bilinearly.
        patch_size: side of the neighbourhood that is averaged around each position, stride 1, zero-padded; odd.
        embedding: "concatenate": neighbourhoods are averaged, layers concatenated (512 + 1,024 channels by default).
            "pooled": channels and neighbourhood together are pooled to ``pretrain_dim`` values a layer, and these to
            ``target_dim``, by adaptive averaging, as in the published code.
        coreset: "greedy" (k-centre on a random projection), "random", or "none" (every patch is kept).
        coreset_ratio: part of the patches that is kept; ``coreset_size``, a number of patches, wins over it.
        projection_eps: distortion that sets the projection's dimension; None selects on the unprojected features.
        image_score: "reweighted" (eq. 7), "max" (the largest patch distance, eq. 6), "mean_top_k" (mean of the
            ``top_k`` largest).
        n_neighbours: b of eq. 7, the nearest memory's own neighbours in the bank, itself included.
        sigma: of the Gaussian that smooths the map, in pixels of the method's input.
        memory_limit: GiB that ``fit`` may use for patches, beside the extractor's own needs.
    """

    transform: Transform = Transform(size=(256, 256), crop=(224, 224))
    backbone: str = "wide_resnet50_2"
    layers: tuple[str, ...] = Field(default=("layer2", "layer3"), min_length=1)
    weights: str = "imagenet"
    patch_size: int = Field(default=3, ge=1, le=31)
    embedding: Literal["concatenate", "pooled"] = "concatenate"
    pretrain_dim: int = Field(default=1024, ge=1)
    target_dim: int = Field(default=1024, ge=1)
    coreset: Literal["greedy", "random", "none"] = "greedy"
    coreset_ratio: float = Field(default=0.1, gt=0, le=1)
    coreset_size: int | None = Field(default=None, ge=1)
    projection_eps: float | None = Field(default=0.9, gt=0, lt=1)
    image_score: Literal["reweighted", "max", "mean_top_k"] = "reweighted"
    n_neighbours: int = Field(default=9, ge=1)
    top_k: int = Field(default=20, ge=1)
    sigma: float = Field(default=4.0, ge=0)
    memory_limit: float = Field(default=4.0, gt=0)

    @field_validator("patch_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that a neighbourhood has a centre")
        return value

    @model_validator(mode="after")
    def _target(self) -> PatchcoreConfig:
        if self.embedding == "pooled" and self.target_dim > len(self.layers) * self.pretrain_dim:
            raise ValueError(f"target_dim {self.target_dim} is more than layers × pretrain_dim")
        return self


@register
class Patchcore(FeatureMethod[PatchcoreConfig]):
    """Patchcore (Roth et al. 2022).

    Cost of ``fit``, with N = images × grid positions patches of D channels, a projection to P dimensions (about
    21·ln N at eps 0.9) and k kept: the features once, 2·N·D·P operations for the projection, at most 2·N·k·P for the
    coreset. Memory: ``4·N·D`` bytes where that fits ``memory_limit``; otherwise only projections are held
    (``(4·P + 20)·N`` bytes, a fifth) and the selected patches are taken in a second pass over the features, which the
    feature cache serves where there is one. Where even the projections do not fit, they are thinned on the way (see
    ``StreamingCoreset``): the only case in which the coreset is not exactly the greedy one; the report notes it.
    """

    name: ClassVar[str] = "patchcore"
    title: ClassVar[str] = "Patchcore"
    paper: ClassVar[str] = (
        "Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022, arXiv:2106.08265"
    )
    Config = PatchcoreConfig
    # The embedded extractor averages its cells over 3 × 3 already. The mean of the 20 largest of 784 distances is a
    # little steadier than the largest alone.
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "study": {},
        "embedded": {**EMBEDDED_FEATURES, "patch_size": 1, "image_score": "mean_top_k", "top_k": 20},
    }

    def __init__(self, config: PatchcoreConfig) -> None:
        super().__init__(config)
        self._extractor: FeatureExtractor | None = None
        self._bank: MemoryBank | None = None

    @property
    def extractor(self) -> FeatureExtractor:
        if self._extractor is None:
            config = self.config
            self._extractor = create_extractor(config.backbone, config.layers, config.weights).to(self.device)
        return self._extractor

    @property
    def bank(self) -> MemoryBank:
        """The memory bank; AndonError before ``fit``."""
        if self._bank is None:
            raise AndonError("patchcore has learned nothing yet: call fit or load_state_dict first")
        return self._bank

    # Section 3.1: locally aware patch features.

    def parts(self, features: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Patch features, each layer's still on its own grid, the finest first.

        Averaging, pooling and upsampling are all linear and act on different axes, so that upsampling may come last:
        ``embed(parts)`` is the embedding, and the memory bank is searched without ever upsampling the features.

        Args:
            features: ``[B, C_i, h_i, w_i]``, one a layer.
        """
        config = self.config
        if config.embedding == "concatenate":
            parts = [
                F.avg_pool2d(f, config.patch_size, stride=1, padding=config.patch_size // 2, count_include_pad=True)
                for f in features
            ]
            return tuple(sorted(parts, key=lambda part: -part.shape[-1] * part.shape[-2]))
        pooled = [self._pooled(f) for f in features]
        window, rest = divmod(len(pooled) * config.pretrain_dim, config.target_dim)
        if rest == 0 and config.pretrain_dim % window == 0:
            # Every target value averages values of one layer only, so that the layers stay apart.
            parts = [_average_channels(part, config.pretrain_dim // window) for part in pooled]
            return tuple(sorted(parts, key=lambda part: -part.shape[-1] * part.shape[-2]))
        size = max((tuple(part.shape[-2:]) for part in pooled), key=lambda s: s[0] * s[1])
        maps = torch.cat([upsample(part, (size[0], size[1])) for part in pooled], dim=1)
        return (_average_channels(maps, config.target_dim),)

    def _pooled(self, features: torch.Tensor) -> torch.Tensor:
        """Channels × neighbourhood to ``pretrain_dim`` values a position, ``[B, pretrain_dim, h, w]``."""
        size = self.config.patch_size
        neighbourhoods = F.unfold(features, size, padding=size // 2)
        return _average_channels(
            neighbourhoods.view(*neighbourhoods.shape[:2], *features.shape[-2:]), self.config.pretrain_dim
        )

    # Section 3.2: the memory bank.

    def fit(
        self,
        train: Images | Iterable[ImageLike],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        progress: ProgressCallback = no_progress,
    ) -> FitReport:
        """Fills the memory bank from good images; the seed decides the projection and the first pick.

        Raises:
            AndonError: no images, features that are not finite, or a bank that does not fit ``memory_limit``.
        """
        images = as_images(train)
        if len(images) == 0:
            raise AndonError("patchcore: there are no images to learn from")
        self.to(device)
        self._bank = None
        started = time.perf_counter()
        adapted = self.adapt_extractor(images, progress)
        fill = _Filling(self, images, seed, progress)
        if adapted:
            fill.seconds["adaptation"] = time.perf_counter() - started
            fill.notes.extend(adapted)
        self._bank = fill.run()
        return FitReport(
            n_train=len(images), seconds=fill.seconds, weights=(self.extractor.weights,), notes=tuple(fill.notes)
        )

    # Section 3.3: scores.

    def predict_features(self, features: tuple[torch.Tensor, ...]) -> Prediction:
        bank = self.bank
        with torch.inference_mode():
            parts = self.parts(features)
            height, width = parts[0].shape[-2:]
            distances, nearest = bank.nearest(parts)
            grid = distances.view(-1, height, width)
            maps = upsample_and_smooth(grid, self.transform.output_size, self.config.sigma)
            scores = self._image_scores(parts, distances, nearest)
        return Prediction(scores.cpu().numpy(), maps.cpu().numpy(), self.transform.region)

    def _image_scores(
        self, parts: Sequence[torch.Tensor], distances: torch.Tensor, nearest: torch.Tensor
    ) -> torch.Tensor:
        config = self.config
        if config.image_score == "mean_top_k":
            return distances.topk(min(config.top_k, distances.shape[1]), dim=1).values.mean(dim=1)
        largest = distances.max(dim=1)
        if config.image_score == "max" or config.n_neighbours == 1 or len(self.bank) == 1:
            # Without a neighbour beside the nearest memory itself eq. 7 would be zero for every image.
            return largest.values
        scores = []
        for i, position in enumerate(largest.indices.tolist()):
            patch = embed([part[i : i + 1] for part in parts])[position] - self.bank.mean
            around = self.bank.neighbours(int(nearest[i, position]), config.n_neighbours)
            scores.append(reweighted(self.bank.distances(patch, around)))
        return torch.stack(scores)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """``bank``: float32 ``[k, D]`` without their mean, in the order of selection; ``mean``: float32 ``[D]``."""
        return {"bank": self.bank.centred, "mean": self.bank.mean} | self.extractor_state()

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        state = self.restore_extractor(state)
        dimension = self._dimension()
        expected = {"bank": (torch.float32, ("k", dimension)), "mean": (torch.float32, (dimension,))}
        tensors = checked_state(self.name, state, expected)
        self._bank = MemoryBank(tensors["bank"].to(self.device), tensors["mean"].to(self.device))

    def _dimension(self) -> int:
        return self.config.target_dim if self.config.embedding == "pooled" else sum(self.extractor.channels)

    def to(self, device: torch.device | str) -> Method[PatchcoreConfig]:
        super().to(device)
        if self._extractor is not None:
            self._extractor = self._extractor.to(self.device)
        if self._bank is not None:
            self._bank = self._bank.to(self.device)
        return self


def reweighted(distances: torch.Tensor) -> torch.Tensor:
    """Image score of eq. 7.

    ``s = (1 − exp‖t − m*‖ / Σ_{m ∈ N_b(m*)} exp‖t − m‖) · ‖t − m*‖`` for the image's most distant patch t, its
    nearest memory m* and the b memories nearest to m*, m* among them. The quotient is formed from logarithms:
    exponentials of distances (tens to hundreds) overflow float32.

    Args:
        distances: ``[b]`` distances of t to the memories of N_b(m*), to m* first.
    """
    values = distances.double()
    weight = -torch.expm1(values[0] - values.logsumexp(dim=0))
    return (weight * values[0]).float()


def _average_channels(maps: torch.Tensor, n: int) -> torch.Tensor:
    """Adaptive averaging of the channels of ``[B, C, h, w]`` to ``n``."""
    batch, _, height, width = maps.shape
    rows = F.adaptive_avg_pool1d(maps.flatten(2).transpose(1, 2), n)
    return rows.transpose(1, 2).reshape(batch, n, height, width)


class _Filling:
    """One run of ``fit``: which patches become the bank, and from where they are taken."""

    def __init__(self, method: Patchcore, images: Images, seed: int, progress: ProgressCallback) -> None:
        self.method, self.images, self.progress = method, images, progress
        self.config = method.config
        self.generator = torch.Generator().manual_seed(seed)
        self.seed = seed
        self.limit = int(self.config.memory_limit * _GIB)
        self.per_image = 0
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []

    def run(self) -> MemoryBank:
        started = time.perf_counter()
        batches = self._batches("features")
        first = next(batches)
        self.per_image, dimension = len(first[1]) // len(first[0]), first[1].shape[1]
        n = len(self.images) * self.per_image
        k = n if self.config.coreset == "none" else self._size(n)
        self._check_bank(k, dimension)
        self._clock("features", started)
        if self.config.coreset == "greedy" and k < n:
            return MemoryBank.of(self._greedy(n, k, first, batches))
        started = time.perf_counter()
        if k < n:
            chosen = torch.randperm(n, generator=self.generator)[:k]
            self.notes.append(f"coreset: {k:,} of {n:,} patches at random")
        else:
            chosen = torch.arange(n)
            self.notes.append(f"memory bank: all {n:,} patches")
        bank = self._gather(chosen, dimension, chain([first], batches))
        self._clock("features", started)
        return MemoryBank.of(bank)

    def _greedy(
        self, n: int, k: int, first: tuple[range, torch.Tensor], batches: Iterator[tuple[range, torch.Tensor]]
    ) -> torch.Tensor:
        started = time.perf_counter()
        eps, device, dimension = self.config.projection_eps, self.method.device, first[1].shape[1]
        projection = None if eps is None else projection_matrix(n, dimension, eps=eps, seed=self.seed)
        if projection is not None:
            projection = projection.to(device)
        projected = dimension if projection is None else projection.shape[1]
        capacity, held = self._capacity(n, k, dimension, projected)
        start = int(torch.randint(min(n, capacity), (1,), generator=self.generator))
        coreset = StreamingCoreset(min(n, capacity), start=start)
        embeddings = torch.empty(n, dimension, device=device) if held else None
        for indices, rows in chain([first], batches):
            coreset.add(rows if projection is None else rows @ projection)
            if embeddings is not None:
                embeddings[indices.start * self.per_image :][: len(rows)] = rows
        self._clock("features", started)

        started = time.perf_counter()
        chosen, _ = coreset.select(k, progress=self.progress)
        self._clock("coreset", started)
        self._note_coreset(n, k, coreset, len(chosen), dimension, projected)
        started = time.perf_counter()
        if embeddings is not None:
            bank = embeddings[chosen.to(device)]
        else:
            self.notes.append("patches did not fit memory_limit: selected by their projections, taken in a second pass")
            bank = self._gather(chosen, dimension, self._batches("memory bank"))
        self._clock("memory bank", started)
        return bank

    def _note_coreset(
        self, n: int, k: int, coreset: StreamingCoreset, found: int, dimension: int, projected: int
    ) -> None:
        how = f"greedy k-centre on a projection from {dimension:,} to {projected} dimensions"
        if projected == dimension:
            how = f"greedy k-centre in {dimension:,} dimensions"
        self.notes.append(f"coreset: {found:,} of {n:,} patches, {how}, covering radius {coreset.bound:.4g}")
        if found < k:
            self.notes.append(f"coreset: {k:,} were asked for, but there are only {found:,} distinct patches")
        if coreset.thinnings:
            self.notes.append(
                f"coreset: not exactly greedy, as at most {coreset.capacity:,} of {n:,} patches fitted memory_limit: "
                f"thinned {coreset.thinnings} times on the way (the covering radius is an upper bound)"
            )

    def _size(self, n: int) -> int:
        if self.config.coreset_size is not None:
            return min(n, self.config.coreset_size)
        # 0.7 · 170 is 118.999… in doubles: the user meant 119.
        return max(1, int(n * self.config.coreset_ratio + 1e-9))

    def _check_bank(self, k: int, dimension: int) -> None:
        """The bank itself, and one copy while it is made, must fit."""
        if 8 * k * dimension > self.limit:
            raise AndonError(
                f"patchcore: a memory bank of {k:,} patches of {dimension:,} channels does not fit "
                f"memory_limit = {self.config.memory_limit:g} GiB; set coreset_size to at most "
                f"{self.limit // (8 * dimension):,}, or raise memory_limit"
            )

    def _capacity(self, n: int, k: int, dimension: int, projected: int) -> tuple[int, bool]:
        """How many projected patches may be held (n where all fit), and whether the embeddings may be held too."""
        room = self.limit - k * (8 * dimension + 8 * projected)
        if n * (4 * projected + 28) <= room:
            return n, n * (4 * projected + 28 + 4 * dimension) <= room
        # Thinning needs a second copy of the points, and its picks, half the capacity, in float64.
        capacity = max(0, room) // (12 * projected + 28)
        if capacity < 2 * k:
            raise AndonError(
                f"patchcore: a coreset of {k:,} out of {n:,} patches cannot be selected within "
                f"memory_limit = {self.config.memory_limit:g} GiB; lower coreset_ratio or coreset_size, "
                f"set coreset to 'random', or raise memory_limit"
            )
        return min(capacity, n), False

    def _gather(
        self, chosen: torch.Tensor, dimension: int, batches: Iterable[tuple[range, torch.Tensor]]
    ) -> torch.Tensor:
        """The embeddings of the patches ``chosen``, in that order, from one pass over all."""
        names, slots = chosen.sort()
        bank = torch.empty(len(chosen), dimension, device=self.method.device)
        for indices, rows in batches:
            offset = indices.start * self.per_image
            low, high = torch.searchsorted(names, torch.tensor([offset, offset + len(rows)])).tolist()
            bank[slots[low:high].to(bank.device)] = rows[(names[low:high] - offset).to(bank.device)]
        return bank

    def _batches(self, stage: str) -> Iterator[tuple[range, torch.Tensor]]:
        """Embeddings ``[len(indices)·positions, D]`` batch by batch."""
        for indices, features in self.method.iterate_features(self.images, progress=self.progress, stage=stage):
            with torch.inference_mode():
                rows = embed(self.method.parts(features))
                finite = rows.isfinite().all(dim=1)
                if not bool(finite.all()):
                    name = self.images.name(indices[int(finite.logical_not().nonzero()[0]) * len(indices) // len(rows)])
                    weights = self.method.extractor.weights.name
                    raise AndonError(f"patchcore: the features of {name} are not finite; check the weights ({weights})")
            yield indices, rows

    def _clock(self, stage: str, started: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started
