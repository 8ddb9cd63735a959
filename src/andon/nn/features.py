"""Frozen feature extractors and their per-picture cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch

from andon.core import ProgressCallback, no_progress
from andon.data.images import Images
from andon.data.transform import Transform

__all__ = ["FeatureExtractor", "WeightsRecord", "iterate_features"]


@dataclass(frozen=True)
class WeightsRecord:
    """Where a learned part came from; kept in every experiment's record and shown in the report.

    Attributes:
        part: what it is ("wide_resnet50_2").
        source: "file", "cache", "embedded", "hub" or "random".
        name: the weights' name or file name ("imagenet1k_v1", "orthogonal, seed 0").
        sha256: of the weights' bytes; for random weights of the state dict's values.
        licence: licence of the weights, "" where unknown.
        pretrained: False for random weights: the report says so on every page.
    """

    part: str
    source: str
    name: str
    sha256: str
    licence: str = ""
    pretrained: bool = True

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class FeatureExtractor(Protocol):
    """A frozen network: pictures to feature maps, one a stage."""

    @property
    def fingerprint(self) -> str:
        """Hash of architecture, weights and stages: features are cached under it."""
        ...

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each stage."""
        ...

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each stage in input pixels."""
        ...

    @property
    def weights(self) -> WeightsRecord: ...

    def to(self, device: torch.device | str) -> FeatureExtractor: ...

    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """float32 ``[B, 3, H, W]`` to one ``[B, C, h, w]`` a stage, without gradient, in evaluation mode."""
        ...


def iterate_features(
    extractor: FeatureExtractor,
    images: Images,
    transform: Transform,
    *,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    progress: ProgressCallback = no_progress,
    stage: str = "features",
) -> Iterator[tuple[range, tuple[torch.Tensor, ...]]]:
    """Features of all pictures in order, ``(indices, one [B, C, h, w] a stage)``, on ``device``.

    Where ``images`` has a cache, features are computed once a picture and read back afterwards; each picture's are
    then its own entry, so that seeds, few-shot subsets and methods share them.
    """
    cache, total = images.cache, len(images)
    kind = f"features-{extractor.fingerprint}-{transform.key}"
    for start in range(0, total, batch_size):
        indices = range(start, min(start + batch_size, total))
        entries = [cache.get(kind, images.fingerprint(i)) if cache else None for i in indices]
        missing = [i for i, entry in zip(indices, entries, strict=True) if entry is None]
        if missing:
            batch = transform.normalise(np.stack([images.resized(i, transform) for i in missing]))
            computed = extractor(batch.to(device))
            for row, i in enumerate(missing):
                arrays = tuple(f[row].cpu().numpy() for f in computed)
                entries[i - start] = arrays
                if cache:
                    cache.put(kind, images.fingerprint(i), arrays)
        stacked = zip(*(entry for entry in entries if entry is not None), strict=True)
        yield indices, tuple(torch.from_numpy(np.stack(level)).to(device) for level in stacked)
        progress(stage, indices.stop, total)
