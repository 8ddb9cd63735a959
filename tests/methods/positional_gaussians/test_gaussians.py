"""The parts against scikit-learn, scipy and loops."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import ledoit_wolf

from andon.methods._gaussians import StreamingGaussian
from andon.methods.positional_gaussians.gaussians import (
    Gaussians,
    cell_distances,
    merged,
    nearest_within,
    shrinkage,
    shrunk_gaussians,
)
from andon.methods.positional_gaussians.stage import StageGaussians, chosen_radius, usual_distances

CPU = torch.device("cpu")


def statistics_of(vectors: torch.Tensor) -> StreamingGaussian:
    """Of ``[P, n, d]``."""
    found = StreamingGaussian(vectors.shape[0], vectors.shape[2], CPU)
    found.update(vectors.permute(1, 2, 0).contiguous())
    return found


def drawn(positions: int, n: int, d: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(0, 1, (positions, d, d)) * rng.uniform(0.1, 3, d)
    return torch.from_numpy(rng.standard_t(5, (positions, n, d)) @ mixing + rng.normal(0, 5, (positions, 1, d))).float()


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 60), d=st.integers(1, 20), seed=st.integers(0, 1000))
def test_the_covariance_is_scikit_learns(n: int, d: int, seed: int) -> None:
    vectors = drawn(3, n, d, seed)
    found = shrunk_gaussians(statistics_of(vectors), vectors, 1e-9)
    variance = float(vectors.double().var(1, unbiased=False).mean())
    for position in range(3):
        own = vectors[position].double()
        covariance, weight = np.cov(own.numpy().T, bias=True).reshape(d, d), ledoit_wolf(own.numpy())[1]
        fourth = (own - own.mean(0)).square().sum(1).square().mean()[None]
        found_weight = float(shrinkage(torch.from_numpy(covariance)[None], fourth, n))
        # Of one dimension there is nothing to estimate: no direction is known better than another.
        weight = max(weight, 1 / n) if d > 1 else 1.0
        assert found_weight == pytest.approx(weight, abs=1e-6)
        expected = (1 - weight) * covariance + (weight + 1e-9) * variance * np.eye(d)
        inverse = (found.whitening[position].T @ found.whitening[position]).double().numpy()
        np.testing.assert_allclose(inverse @ expected, np.eye(d), atol=1e-2)


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_merged_statistics_are_those_of_all_vectors(sizes: list[int], seed: int) -> None:
    vectors = drawn(2, sum(sizes) + 1, 4, seed)
    parts = [StreamingGaussian(2, 4, CPU) for _ in sizes] + [statistics_of(vectors[:, sum(sizes) :])]
    for part, (a, b) in zip(parts, pairwise(np.cumsum([0, *sizes])), strict=False):
        if b > a:
            part.update(vectors[:, a:b].permute(1, 2, 0).contiguous())
    before = [part.scatter.clone() for part in parts]
    found = merged(parts)
    assert found.count == sum(sizes) + 1
    torch.testing.assert_close(found.mean, vectors.double().mean(1))
    centred = vectors.double() - vectors.double().mean(1, keepdim=True)
    torch.testing.assert_close(found.scatter.double(), centred.mT @ centred, rtol=1e-4, atol=1e-2)
    assert all(torch.equal(part.scatter, scatter) for part, scatter in zip(parts, before, strict=True))


def test_without_variance_the_distance_is_euclidean() -> None:
    vectors = torch.ones(4, 3, 2)
    found = shrunk_gaussians(statistics_of(vectors), vectors, 0.25)
    # Weight 1 on the identity, no variance to scale it: 1 + ε = 1.25.
    torch.testing.assert_close(found.whitening, (torch.eye(2) / 1.25**0.5).expand(4, 2, 2))


@pytest.mark.parametrize("radius", [0, 1, 2, 3])
def test_distances_around_each_cell_by_loops(radius: int) -> None:
    height, width, d = 4, 5, 3
    vectors = drawn(height * width, 12, d, 0)
    gaussians = shrunk_gaussians(statistics_of(vectors), vectors, 1e-3)
    maps = drawn(2, d, height * width, 1).reshape(2, d, height, width)
    found = cell_distances(maps, gaussians, radius)
    assert found.shape == (2 * radius + 1, 2 * radius + 1, 2, height, width)
    least = np.full((radius + 1, 2, height, width), np.inf)
    for image in range(2):
        for y in range(height):
            for x in range(width):
                for dy in range(-radius, radius + 1):
                    for dx in range(-radius, radius + 1):
                        value = found[dy + radius, dx + radius, image, y, x]
                        if not (0 <= y + dy < height and 0 <= x + dx < width):
                            assert value == torch.inf
                            continue
                        there = (y + dy) * width + x + dx
                        white = gaussians.whitening[there].double().numpy()
                        expected = mahalanobis(
                            maps[image, :, y, x].numpy(), gaussians.mean[there].numpy(), white.T @ white
                        )
                        assert float(value) == pytest.approx(expected, rel=1e-3)
                        for r in range(max(abs(dy), abs(dx)), radius + 1):
                            least[r, image, y, x] = min(least[r, image, y, x], expected)
    for r in range(radius + 1):
        np.testing.assert_allclose(nearest_within(found, r), least[r], rtol=1e-3)


def test_usual_distances_by_hand() -> None:
    distances = torch.zeros(2, 3, 4)
    distances[0, 1, 1], distances[1, 1, 1] = 9.0, 27.0  # mean 18, variance 162 in one cell
    mean, deviation = usual_distances(distances, 0.0)
    # Averaged over 3 × 3 cells, borders repeated: the centre, and its neighbours once; a corner of a border row twice.
    assert mean.reshape(3, 4)[1].tolist() == pytest.approx([2.0, 2.0, 2.0, 0.0])
    assert deviation.reshape(3, 4)[1].tolist() == pytest.approx([18**0.5] * 3 + [1.0])
    everywhere, spread = usual_distances(distances, 1.0)
    assert everywhere.unique().numel() == 1
    assert spread.unique().numel() == 1
    assert float(everywhere[0]) == pytest.approx(float(mean.mean()))


def test_the_radius_is_the_least_that_helps() -> None:
    rng = np.random.default_rng(0)
    even = torch.from_numpy(rng.uniform(4, 6, (6, 8, 8)))
    edges = even.clone()
    edges[:, 3] += torch.from_numpy(rng.uniform(0, 6, (6, 8)))
    # All fall alike: nothing is gained. The large ones fall: radius 1 is enough, and 2 changes next to nothing.
    assert chosen_radius(torch.stack([even, 0.9 * even, 0.8 * even])) == 0
    assert chosen_radius(torch.stack([edges, even, 0.999 * even])) == 1
    assert chosen_radius(torch.stack([edges, (edges + even) / 2, even])) == 2
    assert chosen_radius(torch.zeros(3, 2, 4, 4)) == 0


def test_scores_are_on_the_scale_of_good_images() -> None:
    rng = np.random.default_rng(3)
    good = torch.from_numpy(rng.gamma(9, 1, (50, 8, 8)))
    gaussians = Gaussians(torch.zeros(64, 2), torch.eye(2).expand(64, 2, 2).contiguous())
    stage = StageGaussians(torch.tensor([8, 8]), torch.tensor([0]), gaussians, top=0.05)
    stage.calibrate(good, 0.25)
    scores, maps = stage.image_scores(good), stage.standardised(good)
    assert float(scores.mean()) == pytest.approx(0, abs=1e-5)
    assert float(scores.std()) == pytest.approx(1, abs=1e-5)
    assert float(maps.mean()) == pytest.approx(0, abs=1e-5)
    assert float(maps.std()) == pytest.approx(1, abs=1e-5)
    worse = good.clone()
    worse[:, 2, 2] += 20
    assert bool((stage.image_scores(worse) > scores).all())
    # The mean of the 3 largest of 64 cells: one more of them that stands out counts, one that does not is not seen.
    mean, deviation = usual_distances(good, 0.25)
    unusual = np.sort(((good.flatten(1) - mean) / deviation).numpy(), axis=1)[:, -3:].mean(1)
    np.testing.assert_allclose(scores, (unusual - unusual.mean()) / unusual.std(ddof=1), rtol=1e-4, atol=1e-5)
