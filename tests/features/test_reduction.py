"""Stages reduced to their principal directions, against scikit-learn."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from andon.core import TrainingError
from andon.data import Images, Transform
from andon.data.cache import ArrayCache
from andon.features import Extractor, ReducedExtractor, create_extractor, iterate_features
from andon.features.reduction import principal_directions

TRANSFORM = Transform(size=(64, 64))


def images(n: int) -> Images:
    rng = np.random.default_rng(0)
    return Images([rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(n)])


def small() -> Extractor:
    return create_extractor("resnet18", ("layer2", "layer1"), "random")


def decaying(n: int, channels: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, channels, generator=generator) * torch.arange(1, channels + 1).float() ** -0.7
    return rows @ torch.linalg.qr(torch.randn(channels, channels, generator=generator)).Q + 5


@pytest.mark.parametrize(("n", "channels", "k"), [(500, 40, 8), (2_000, 150, 64), (60, 150, 30)])
def test_directions_are_those_of_scikit_learn(n: int, channels: int, k: int) -> None:
    rows = decaying(n, channels)
    mean, directions, explained = principal_directions(rows, k)
    reference = PCA(k, svd_solver="full").fit(rows.double().numpy())
    torch.testing.assert_close(mean, torch.from_numpy(reference.mean_).float(), rtol=0, atol=1e-5)
    torch.testing.assert_close(directions.T @ directions, torch.eye(k), rtol=0, atol=1e-5)
    assert explained == pytest.approx(float(reference.explained_variance_ratio_.sum()), abs=2e-3)
    # The leading ones are apart from the others, so that they must agree one by one, up to their sign.
    leading = torch.from_numpy(reference.components_[:4]).float()
    assert float((leading @ directions[:, :4]).diagonal().abs().min()) > 0.999


@given(st.integers(1, 30), st.integers(1, 12), st.data())
@settings(deadline=None)
def test_few_or_equal_rows_give_directions_too(n: int, channels: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, channels))
    rows = decaying(n, channels, seed=data.draw(st.integers(0, 5)))
    if data.draw(st.booleans()):
        rows = rows[:1].repeat(n, 1)
    _, directions, explained = principal_directions(rows, k)
    assert directions.shape == (channels, k)
    torch.testing.assert_close(directions.T @ directions, torch.eye(k), rtol=0, atol=1e-4)
    assert 0 <= explained <= 1
    if k == channels:
        assert explained == pytest.approx(1, abs=1e-3)


def test_distances_of_the_reduced_features_are_those_of_scikit_learns() -> None:
    shown, base = images(5), small()
    extractor = ReducedExtractor(base, 16).adapt(shown, TRANSFORM)
    assert extractor.channels == (16, 16)
    assert extractor.strides == base.strides
    batch = TRANSFORM.normalise(np.stack([shown.image(i) for i in range(5)]))
    for stage, (full, reduced) in enumerate(zip(base(batch), extractor(batch), strict=True)):
        rows = full.permute(0, 2, 3, 1).flatten(0, 2)
        step = max(1, -(-len(rows) // 16_000))
        assert step == 1
        expected = PCA(16, svd_solver="full").fit(rows.double().numpy()).transform(rows.double().numpy())
        found = reduced.permute(0, 2, 3, 1).flatten(0, 2)
        wanted, got = torch.pdist(torch.from_numpy(expected[:200])), torch.pdist(found[:200].double())
        assert float((wanted - got).abs().max()) < 0.05 * float(wanted.mean()), stage


def test_before_it_is_fitted_it_is_the_extractor_itself() -> None:
    base = small()
    extractor = ReducedExtractor(base, 16)
    batch = TRANSFORM.normalise(np.stack([images(1).image(0)]))
    assert all(torch.equal(a, b) for a, b in zip(base(batch), extractor(batch), strict=True))
    assert (extractor.channels, extractor.fingerprint != "", extractor.describe()) == (base.channels, True, "")
    assert extractor.records == base.records


def test_stages_that_have_no_more_dimensions_stay_as_they_are() -> None:
    base, shown = small(), images(2)
    batch = TRANSFORM.normalise(np.stack([shown.image(0)]))
    one = ReducedExtractor(base, 100).adapt(shown, TRANSFORM)  # 128 and 64 channels
    assert one.channels == (100, 64)
    assert torch.equal(one(batch)[1], base(batch)[1])
    none = ReducedExtractor(base, 128).adapt(shown, TRANSFORM)
    assert all(torch.equal(a, b) for a, b in zip(base(batch), none(batch), strict=True))
    assert none.describe() == ""


def test_the_fingerprint_is_of_what_was_fitted() -> None:
    base, few, more = small(), images(2), images(4)
    prints = [
        base.fingerprint,
        ReducedExtractor(base, 16).adapt(few, TRANSFORM).fingerprint,
        ReducedExtractor(base, 16).adapt(more, TRANSFORM).fingerprint,
        ReducedExtractor(base, 17).adapt(few, TRANSFORM).fingerprint,
    ]
    assert len(set(prints)) == 4
    assert ReducedExtractor(base, 16).adapt(few, TRANSFORM).fingerprint == prints[1]


def test_it_reports_what_it_keeps() -> None:
    said = ReducedExtractor(small(), 16).adapt(images(3), TRANSFORM).describe()
    kept = "features reduced to 16 of 128 and 16 of 64 dimensions, which hold "
    assert re.fullmatch(kept + r"\d+ and \d+ % of their variance on good images", said)
    one = ReducedExtractor(create_extractor("resnet18", ("layer1",), "random"), 16).adapt(images(3), TRANSFORM)
    assert one.describe().startswith("features reduced to 16 of 64 dimensions, which hold ")


def test_room_for_a_saved_state() -> None:
    shown = images(3)
    fitted = ReducedExtractor(small(), 100).adapt(shown, TRANSFORM)
    blank = ReducedExtractor.blank(small(), 100)
    blank.load_state_dict(fitted.state_dict())
    batch = TRANSFORM.normalise(np.stack([shown.image(0)]))
    assert all(torch.equal(a, b) for a, b in zip(fitted(batch), blank(batch), strict=True))
    assert blank.channels == fitted.channels


def test_reduced_features_are_cached_and_unreduced_ones_are_not(tmp_path: object) -> None:
    cache = ArrayCache(tmp_path)  # type: ignore[arg-type]
    shown = Images(images(3).items, cache)
    extractor = ReducedExtractor(small(), 8).adapt(shown, TRANSFORM)
    first = [f for _, f in iterate_features(extractor, shown, TRANSFORM)]
    again = [f for _, f in iterate_features(extractor, shown, TRANSFORM)]
    assert len([folder for folder in cache.root.iterdir() if folder.name.startswith("features")]) == 1
    for a, b in zip(first, again, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_an_image_whose_features_are_not_finite_is_named() -> None:
    base = small()
    with torch.no_grad():
        base.network.conv1.weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(TrainingError, match="features of image 0 are not finite; check the weights"):
        ReducedExtractor(base, 8).adapt(images(2), TRANSFORM)
