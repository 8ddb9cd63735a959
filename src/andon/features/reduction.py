"""Fewer dimensions for an extractor's stages: the leading principal directions of a station's good patches.

A stage of hundreds of channels varies on good parts in some dozens of directions. Those are kept, at their natural
scale, so that Euclidean distances stay what they were but for what the others add; a memory bank of them is smaller and
searched faster by as much.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from andon._tools.convolution import convolved
from andon._tools.spacing import evenly_spaced
from andon.core import ProgressCallback, TrainingError, no_progress
from andon.data import Images, Transform
from andon.features.base import Extractor, iterate_features
from andon.weights import WeightsRecord

__all__ = ["Principal", "ReducedExtractor", "principal_directions"]

_IMAGES = 24
"""Good images that are looked at, evenly spaced over all."""
_ROWS = 16_000
"""Positions of a stage that are looked at, evenly spaced."""
_SPARE = 10
_ROUNDS = 8


class Principal(nn.Module):
    """Projection of a stage: ``(x − mean) @ directions`` at every position.

    Buffers: ``mean`` float32 ``[C]``; ``directions`` float32 ``[C, k]``, orthonormal, the leading one first.
    """

    mean: torch.Tensor
    directions: torch.Tensor

    def __init__(self, mean: torch.Tensor, directions: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("directions", directions)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Of float32 ``[B, C, h, w]`` its ``[B, k, h, w]``."""
        # As a 1×1 convolution, which adds −mean·directions at the end: the kept directions lose nothing by it.
        kernel = self.directions.T.contiguous()
        return convolved(maps, kernel[:, :, None, None], -(kernel @ self.mean))


class ReducedExtractor(Extractor):
    """An extractor whose stages come with no more than so many dimensions, once it is adapted to good images.

    Args:
        base: the extractor.
        dimensions: that a stage is reduced to; one that has no more stays as it is.
        stages: what was fitted, a ``Principal`` a stage, or an identity; None where nothing was: all dimensions.
        explained: parts of the stages' variance that are kept.
    """

    def __init__(
        self,
        base: Extractor,
        dimensions: int,
        stages: Sequence[nn.Module] | None = None,
        explained: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.base, self.dimensions = base, dimensions
        self.reduced = None if stages is None else nn.ModuleList(stages)
        self.channels = base.channels if stages is None else tuple(min(c, dimensions) for c in base.channels)
        self.strides, self.weights = base.strides, base.weights
        self._explained = tuple(explained)

    @classmethod
    def blank(cls, base: Extractor, dimensions: int) -> ReducedExtractor:
        """One with room for what was fitted."""
        kept = [(channels, min(channels, dimensions)) for channels in base.channels]
        stages = [Principal(torch.zeros(c), torch.zeros(c, k)) if k < c else nn.Identity() for c, k in kept]
        return cls(base, dimensions, stages)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.blake2b(self.base.fingerprint.encode(), digest_size=8)
        for name, tensor in () if self.reduced is None else self.reduced.named_buffers():
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def records(self) -> tuple[WeightsRecord, ...]:
        return self.base.records

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.reduced is None:
            features: tuple[torch.Tensor, ...] = self.base(batch)
            return features
        maps = self.base.maps(batch)
        return tuple(stage(found).contiguous() for stage, found in zip(self.reduced, maps, strict=True))

    def adapt(
        self,
        images: Images,
        transform: Transform,
        *,
        device: torch.device | str = "cpu",
        progress: ProgressCallback = no_progress,
    ) -> ReducedExtractor:
        """Fits the directions to no more than 24 of the good images.

        Cost: their features; with n ≤ 16,000 positions of C channels ``2·n·C²`` operations and ``4·n·C`` bytes a stage.

        Raises:
            TrainingError: features that are not finite.
        """
        base = self.base.adapt(images, transform, device=device, progress=progress)
        if all(channels <= self.dimensions for channels in base.channels):
            return ReducedExtractor(base, self.dimensions, [nn.Identity() for _ in base.channels])
        stages: list[nn.Module] = []
        explained = []
        for rows in _rows_of(base, images, transform, device, progress):
            if rows.shape[1] <= self.dimensions:
                stages.append(nn.Identity())
                explained.append(1.0)
                continue
            mean, directions, part = principal_directions(rows, self.dimensions)
            stages.append(Principal(mean, directions).to(device))
            explained.append(part)
        return ReducedExtractor(base, self.dimensions, stages, explained)

    def describe(self) -> str:
        own = ""
        if self._explained:
            kept = _listed([f"{k:,} of {c:,}" for k, c in zip(self.channels, self.base.channels, strict=True)])
            parts = _listed([f"{100 * part:.0f}" for part in self._explained])
            own = f"features reduced to {kept} dimensions, which hold {parts} % of their variance on good images"
        return "; ".join(filter(None, (self.base.describe(), own)))


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


@torch.no_grad()
def principal_directions(rows: torch.Tensor, k: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Mean, the k leading principal directions, and the part of the variance that they hold.

    By subspace iteration from random directions (Halko, Martinsson & Tropp 2011, algorithm 4.4, on the covariance):
    products of matrices alone. A full decomposition of a thousand channels takes a hundred times the time, and on a
    loaded machine many times more, as its threads wait for each other.

    Args:
        rows: float32 ``[n, C]``, n ≥ 1.
        k: at most C.
        seed: of the random directions; another one changes the result by rounding where eigenvalues are apart.

    Returns:
        float32 ``[C]`` and ``[C, k]``, and a number in 0..1 (1 where nothing varies).
    """
    mean = rows.mean(0, dtype=torch.float64).float()
    centred = rows - mean
    covariance = (centred.T @ centred).double() / len(rows)
    channels, generator = len(mean), torch.Generator().manual_seed(seed)
    start = torch.randn(channels, min(channels, k + _SPARE), dtype=torch.float64, generator=generator)
    basis = torch.linalg.qr(start.to(rows.device)).Q
    for _ in range(_ROUNDS):
        basis = torch.linalg.qr(covariance @ basis).Q
    values, vectors = torch.linalg.eigh(basis.T @ covariance @ basis)
    directions = (basis @ vectors.flip(1)[:, :k]).float().contiguous()
    total = float(covariance.trace())
    part = float(values.flip(0)[:k].sum()) / total if total > 0 else 1.0
    return mean, directions, min(1.0, max(0.0, part))


def _rows_of(
    base: Extractor, images: Images, transform: Transform, device: torch.device | str, progress: ProgressCallback
) -> Iterator[torch.Tensor]:
    """Of each stage vectors of good images, ``[n, C]``."""
    chosen = evenly_spaced(len(images), _IMAGES)
    # Without the cache: unreduced features are ten times what is kept, and nobody reads them again.
    shown = Images([images.items[index] for index in chosen])
    parts: list[list[torch.Tensor]] = [[] for _ in base.channels]
    for indices, features in iterate_features(
        base, shown, transform, batch_size=1, device=device, progress=progress, stage="adaptation"
    ):
        for rows, maps in zip(parts, features, strict=True):
            flat = maps[0].flatten(1)
            step = max(1, -(-len(chosen) * flat.shape[1] // _ROWS))
            rows.append(flat[:, ::step].T.contiguous())
            if not bool(rows[-1].isfinite().all()):
                raise TrainingError(
                    f"the features of {images.name(chosen[indices.start])} are not finite; "
                    f"check the weights ({base.weights.name})"
                )
    for rows in parts:
        yield torch.cat(rows)
        rows.clear()
