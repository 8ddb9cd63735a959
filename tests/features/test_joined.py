"""Extractors side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from andon.data import Images, Transform
from andon.data.cache import ArrayCache
from andon.features import Extractor, JoinedExtractor, create_extractor, iterate_features
from andon.features.adaptation import AdaptedExtractor

TRANSFORM = Transform(size=(64, 64))


def parts() -> list[Extractor]:
    return [
        create_extractor("resnet18", ("layer2", "layer1"), "random"),
        create_extractor("andon-features", ("cells",)),
    ]


def images(n: int) -> list[np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(n)]


def test_stages_follow_one_another() -> None:
    first, second = parts()
    joined = JoinedExtractor([first, second])
    batch = TRANSFORM.normalise(np.stack(images(2)))
    found = joined(batch)
    expected = (*first(batch), *second(batch))
    assert len(found) == len(expected) == 3
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert joined.channels == (128, 64, second.channels[0])
    assert joined.strides == (8, 4, 8)
    assert joined.records == (first.weights, second.weights)
    assert joined.weights == first.weights
    assert joined.describe() == ""


def test_the_fingerprint_is_of_all_parts_in_their_order() -> None:
    first, second = parts()
    prints = {JoinedExtractor(p).fingerprint for p in ([first, second], [second, first], [first], [second])}
    assert len(prints) == 4
    assert JoinedExtractor(parts()).fingerprint == JoinedExtractor([first, second]).fingerprint


def test_each_part_is_adapted_where_it_can_be() -> None:
    first, second = parts()
    shown = Images(images(3))
    adapted = JoinedExtractor([first, second]).adapt(shown, TRANSFORM)
    kinds = [type(part) for part in adapted.parts]
    assert adapted.parts[0] is first
    assert kinds[1] is AdaptedExtractor
    assert adapted.channels == (128, 64, 32)
    assert adapted.describe() == f"features adapted to the good images: 32 of {second.channels[0]} dimensions"
    alone = second.adapt(shown, TRANSFORM)
    batch = TRANSFORM.normalise(np.stack(images(1)))
    assert torch.equal(adapted(batch)[2], alone(batch)[0])


def test_features_are_cached_together(tmp_path: Path) -> None:
    joined, shown = JoinedExtractor(parts()), Images(images(3), ArrayCache(tmp_path))
    first, again = (list(iterate_features(joined, shown, TRANSFORM)) for _ in range(2))
    plain = list(iterate_features(joined, Images(images(3)), TRANSFORM))
    for (_, a), (_, b), (_, c) in zip(first, again, plain, strict=True):
        assert all(torch.equal(x, y) and torch.equal(x, z) for x, y, z in zip(a, b, c, strict=True))


def test_nothing_cannot_be_joined() -> None:
    with pytest.raises(ValueError, match="no extractors"):
        JoinedExtractor([])
