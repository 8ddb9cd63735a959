"""Features with their cache: computed once, shared, the same whether cached or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from andon.data.images import Images
from andon.data.transform import Transform
from andon.features import Extractor, create_extractor, iterate_features
from andon.features.base import full_float32

TRANSFORM = Transform(size=(32, 40))


class MemoryCache:
    """The cache's contract, in memory, with a record of what was asked of it."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], tuple[np.ndarray[Any, Any], ...]] = {}
        self.locked = False
        self.locks = 0

    def get(self, kind: str, key: str) -> tuple[np.ndarray[Any, Any], ...] | None:
        return self.entries.get((kind, key))

    def put(self, kind: str, key: str, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
        if kind.startswith("features"):
            assert self.locked, "features are put while the lock is held"
        self.entries[kind, key] = tuple(np.array(a) for a in arrays)

    @contextmanager
    def lock(self, kind: str) -> Iterator[None]:
        assert not self.locked
        self.locked = True
        self.locks += 1
        yield
        self.locked = False


class Counting(Extractor):
    """An extractor that counts the images it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = create_extractor("resnet18", ("layer1", "layer2"), "random")
        self.channels, self.strides = self.inner.channels, self.inner.strides
        self.weights = self.inner.weights
        self.batches: list[int] = []

    @property
    def fingerprint(self) -> str:
        return self.inner.fingerprint

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.batches.append(len(batch))
        found: tuple[torch.Tensor, ...] = self.inner(batch)
        return found


@pytest.fixture(scope="module")
def noise() -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8) for i in range(7)]


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    """Equal up to the rounding by which a convolution of three images differs from one of seven."""
    assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def collected(extractor: Counting, images: Images, batch_size: int) -> list[torch.Tensor]:
    parts = list(iterate_features(extractor, images, TRANSFORM, batch_size=batch_size))
    assert [i for indices, _ in parts for i in indices] == list(range(len(images)))
    return [torch.cat([features[level] for _, features in parts]) for level in range(2)]


def test_without_a_cache_features_are_the_extractors(noise: list[np.ndarray[Any, Any]]) -> None:
    extractor = Counting()
    found = collected(extractor, Images(noise), 3)
    batch = TRANSFORM.normalise(np.stack([TRANSFORM.resize(p) for p in noise]))
    for a, b in zip(found, extractor.inner(batch), strict=True):
        close(a, b)
    assert extractor.batches == [1] * 7


def test_each_image_is_computed_once_and_read_back_equal(noise: list[np.ndarray[Any, Any]]) -> None:
    cache, extractor = MemoryCache(), Counting()
    images = Images(noise, cache)  # type: ignore[arg-type]
    plain = collected(Counting(), Images(noise), 3)
    few = collected(extractor, images.subset([1, 4]), 3)
    assert extractor.batches == [1, 1]
    everything = collected(extractor, images, 3)
    assert extractor.batches == [1] * 7, "only what was missing is computed"
    again = collected(extractor, images, 5)
    assert sum(extractor.batches) == len(noise)
    locks = cache.locks
    assert locks == 4, "no lock where nothing is missing"
    for level in range(2):
        assert torch.equal(everything[level], again[level])
        assert torch.equal(few[level], everything[level][[1, 4]])
        assert torch.equal(everything[level], plain[level]), "not even a bit hangs on what was cached"


def test_what_another_process_puts_while_we_wait_is_read(noise: list[np.ndarray[Any, Any]]) -> None:
    filled = MemoryCache()
    collected(Counting(), Images(noise, filled), 7)  # type: ignore[arg-type]

    class Late(MemoryCache):
        @contextmanager
        def lock(self, kind: str) -> Iterator[None]:
            self.entries.update(filled.entries)
            with super().lock(kind):
                yield

    extractor = Counting()
    collected(extractor, Images(noise, Late()), 7)  # type: ignore[arg-type]
    assert extractor.batches == []


def test_other_stages_weights_and_transforms_have_entries_of_their_own(noise: list[np.ndarray[Any, Any]]) -> None:
    cache = MemoryCache()
    images = Images(noise[:1], cache)  # type: ignore[arg-type]
    for weights in ("random", "random:1"):
        for transform in (TRANSFORM, Transform(size=(32, 40), normalisation="unit")):
            list(iterate_features(create_extractor("resnet18", (1,), weights), images, transform))
    assert len({kind for kind, _ in cache.entries if kind.startswith("features")}) == 4


def test_progress_is_told(noise: list[np.ndarray[Any, Any]]) -> None:
    told: list[tuple[str, int, int]] = []
    list(
        iterate_features(
            Counting(), Images(noise), TRANSFORM, batch_size=4, progress=lambda *a: told.append(a), stage="look"
        )
    )
    assert told == [("look", 4, 7), ("look", 7, 7)]


@pytest.mark.parametrize("threads", [1, 2])
def test_no_bit_hangs_on_what_is_cached_or_on_the_batch(noise: list[np.ndarray[Any, Any]], threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        expected = collected(Counting(), Images(noise), 7)
        for filled in ([], [0], [1, 4], [0, 1, 2, 3, 4, 5], list(range(7))):
            for size in (1, 3, 7):
                cache = MemoryCache()
                images = Images(noise, cache)  # type: ignore[arg-type]
                if filled:
                    collected(Counting(), images.subset(filled), 2)
                for a, b in zip(collected(Counting(), images, size), expected, strict=True):
                    assert torch.equal(a, b)
    finally:
        torch.set_num_threads(before)


def test_tf32_is_off_inside_and_as_it_was_afterwards() -> None:
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    try:
        for value in (True, False):
            for flag in flags:
                flag.allow_tf32 = value
            with full_float32():
                assert [flag.allow_tf32 for flag in flags] == [False, False]
            assert [flag.allow_tf32 for flag in flags] == [value, value]
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.allow_tf32 = value
