"""Frozen feature extractors and their per-image cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from andon._tools.parallel import shared_pool
from andon.core import ProgressCallback, canonical_json, no_progress
from andon.data import ArrayCache, Images, Transform
from andon.weights import WeightsRecord

__all__ = ["Extractor", "full_float32", "iterate_features"]


class Extractor(nn.Module):
    """A frozen network: images to feature maps, one a stage.

    A subclass sets ``channels``, ``strides`` and ``weights`` and implements ``forward`` and ``fingerprint``; its
    parameters need no gradient, and it is in evaluation mode.
    """

    channels: tuple[int, ...]
    """Channels of each stage."""
    strides: tuple[int, ...]
    """Stride of each stage in input pixels."""
    weights: WeightsRecord

    @property
    def fingerprint(self) -> str:
        """Hash of architecture, weights and stages: features are cached under it."""
        raise NotImplementedError

    @property
    def records(self) -> tuple[WeightsRecord, ...]:
        """Where all that it has learned is from: several where it is made of several extractors."""
        return (self.weights,)

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """float32 ``[B, 3, H, W]`` to one float32 ``[B, C, h, w]`` a stage."""
        raise NotImplementedError

    def maps(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The same as ``forward``, in whatever memory format it comes: for who only reads it once."""
        found: tuple[torch.Tensor, ...] = self(batch)
        return found

    def adapt(
        self,
        images: Images,
        transform: Transform,
        *,
        device: torch.device | str = "cpu",
        progress: ProgressCallback = no_progress,
    ) -> Extractor:
        """The extractor fitted to a station's good images, where it can be (andon-features); itself where not.

        The same images give the same result, whatever the method's seed.
        """
        return self

    def describe(self) -> str:
        """What was fitted, in a few words for a report's notes; "" where nothing was."""
        return ""


def extractor_fingerprint(backbone: str, stages: Sequence[object], weights: WeightsRecord) -> str:
    """Hash of what decides an extractor's output, 16 hexadecimal digits; features are cached under it."""
    version = 1  # raise it when the computation changes by more than rounding
    what = canonical_json([version, backbone, [str(s) for s in stages], weights.sha256])
    return hashlib.blake2b(what.encode(), digest_size=8).hexdigest()


def iterate_features(
    extractor: Extractor,
    images: Images,
    transform: Transform,
    *,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    progress: ProgressCallback = no_progress,
    stage: str = "features",
) -> Iterator[tuple[range, tuple[torch.Tensor, ...]]]:
    """Features of all images in order, ``(indices, one float32 [B, C, h, w] a stage)``, on ``device``.

    Where ``images`` has a cache, features are computed once an image and read back afterwards; each image's are
    then its own entry, so that seeds, few-shot subsets and methods share them. While missing ones are computed the
    cache's lock is held: a second process that wants the same waits and reads.

    On a CPU each image is computed alone, so that its features do not hang, not even in their last bits, on its batch
    or on what the cache has already; that costs no time there. On an accelerator whole batches are computed, without
    TF32: features then differ by rounding (some 1e-6 of their largest) with the batch that they were computed in.

    Memory: one batch of images and features, whatever the number of images.
    """
    cache, total = images.cache, len(images)
    if cache is None:
        for indices, batch in images.batches(transform, batch_size):
            yield indices, _extracted(extractor, batch, device)
            progress(stage, indices.stop, total)
        return
    kind = f"features-{extractor.fingerprint}-{transform.key}"
    for start in range(0, total, batch_size):
        indices = range(start, min(start + batch_size, total))
        yield indices, _read_or_compute(extractor, images, transform, indices, device, cache, kind)
        progress(stage, indices.stop, total)


def _compute(
    extractor: Extractor,
    images: Images,
    transform: Transform,
    indices: Sequence[int],
    device: torch.device | str,
) -> tuple[torch.Tensor, ...]:
    batch = np.stack(list(shared_pool().map(lambda i: images.resized(i, transform), indices)))
    return _extracted(extractor, transform.normalise(batch), device)


def _extracted(extractor: Extractor, batch: torch.Tensor, device: torch.device | str) -> tuple[torch.Tensor, ...]:
    """Features of a batch: on a CPU image by image, elsewhere all at once and in full float32."""
    batch = batch.to(device)
    features: tuple[torch.Tensor, ...]
    if batch.device.type == "cpu":
        single = [extractor(image) for image in torch.split(batch, 1)]
        return tuple(torch.cat(level) for level in zip(*single, strict=True)) if len(single) > 1 else single[0]
    with full_float32():
        features = extractor(batch)
    return features


@contextmanager
def full_float32() -> Iterator[None]:
    """CUDA's matrix products and convolutions in float32, not in TF32 with its 10 bits of mantissa."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _read_or_compute(
    extractor: Extractor,
    images: Images,
    transform: Transform,
    indices: range,
    device: torch.device | str,
    cache: ArrayCache,
    kind: str,
) -> tuple[torch.Tensor, ...]:
    keys = [images.fingerprint(i) for i in indices]
    entries = [cache.get(kind, key) for key in keys]
    if any(entry is None for entry in entries):
        with cache.lock(kind):
            # Another process may have put some there in the meantime.
            entries = [
                cache.get(kind, key) if entry is None else entry for key, entry in zip(keys, entries, strict=True)
            ]
            rows = [row for row, entry in enumerate(entries) if entry is None]
            if rows:
                computed = _compute(extractor, images, transform, [indices[row] for row in rows], device)
                on_host = [level.cpu().numpy() for level in computed]
                for number, row in enumerate(rows):
                    entry = tuple(level[number] for level in on_host)
                    cache.put(kind, keys[row], entry)
                    entries[row] = entry
                if len(rows) == len(entries):
                    return computed
    complete = [entry for entry in entries if entry is not None]
    return tuple(torch.from_numpy(np.stack(level)).to(device) for level in zip(*complete, strict=True))
