"""The memory bank's search against brute force in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from andon.methods.patchcore.embedding import embed
from andon.methods.patchcore.neighbours import MemoryBank


def make_parts(seed: int, shapes: list[tuple[int, int, int]], batch: int = 2) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *shape, generator=rng).relu_() for shape in shapes]


def test_embedding_is_upsampled_and_concatenated() -> None:
    parts = make_parts(0, [(3, 4, 6), (2, 2, 3)])
    rows = embed(parts)
    assert rows.shape == (2 * 4 * 6, 5)
    maps = rows.view(2, 4, 6, 5)
    assert torch.equal(maps[1, 2, 5, :3], parts[0][1, :, 2, 5])
    upsampled = F.interpolate(parts[1], size=(4, 6), mode="bilinear", align_corners=False)
    assert torch.equal(maps[0, 3, 1, 3:], upsampled[0, :, 3, 1])


SHAPES = {
    "one part": [(24, 7, 5)],
    "two parts": [(16, 8, 6), (32, 4, 3)],
    "odd grids": [(16, 7, 9), (8, 4, 5)],
    "three parts": [(8, 12, 12), (16, 6, 6), (32, 3, 3)],
    "same grid": [(8, 5, 5), (16, 5, 5)],
}


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("size", [1, 700, 2500])
def test_nearest_is_the_brute_force_nearest(shapes: list[tuple[int, int, int]], size: int) -> None:
    parts = make_parts(1, shapes)
    rng = torch.Generator().manual_seed(2)
    features = torch.randn(size, sum(shape[0] for shape in shapes), generator=rng).relu_() + 3
    bank = MemoryBank.of(features.clone())
    distances, indices = bank.nearest(parts)
    expected = cdist(embed(parts).double().numpy(), features.double().numpy())
    np.testing.assert_allclose(distances.flatten().numpy(), expected.min(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(indices.flatten().numpy(), expected.argmin(axis=1))


def test_no_cancellation_where_distances_are_small_against_the_features() -> None:
    rng = torch.Generator().manual_seed(4)
    features = 100 + torch.randn(1500, 64, generator=rng)
    chosen = torch.randint(1500, (36,), generator=rng)
    queries = features[chosen] + 1e-2 * torch.randn(36, 64, generator=rng)
    part = queries.T.reshape(1, 64, 6, 6)
    distances, indices = MemoryBank.of(features.clone()).nearest([part])
    expected = cdist(queries.double().numpy(), features.double().numpy()).min(axis=1)
    np.testing.assert_allclose(distances[0].numpy(), expected, rtol=1e-4)
    assert torch.equal(indices[0], chosen)


def test_a_memory_is_at_distance_zero_from_itself() -> None:
    rng = torch.Generator().manual_seed(4)
    features = torch.randn(3000, 32, generator=rng) + 5
    distances, indices = MemoryBank.of(features.clone()).nearest([features[:64].T.reshape(1, 32, 8, 8)])
    assert distances.max() == 0
    assert torch.equal(indices[0], torch.arange(64))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 12), st.floats(0.01, 1e3))
def test_never_below_and_hardly_above_the_true_distance(seed: int, size: int, channels: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(scale=scale, size=(size, channels)).astype(np.float32)
    queries = rng.normal(scale=scale, size=(channels, 3, 4)).astype(np.float32)
    queries[:, 0, 0] = features[0]
    distances, indices = MemoryBank.of(torch.from_numpy(features.copy())).nearest([torch.from_numpy(queries)[None]])
    table = cdist(queries.reshape(channels, -1).T.astype(float), features.astype(float))
    size_of_all = np.abs(table).max()
    np.testing.assert_allclose(distances[0].numpy(), table.min(axis=1), rtol=1e-4, atol=1e-6 * size_of_all)
    np.testing.assert_allclose(table[np.arange(12), indices[0]], table.min(axis=1), rtol=1e-4, atol=1e-6 * size_of_all)


def test_an_images_result_does_not_depend_on_its_batch() -> None:
    parts = make_parts(5, SHAPES["two parts"], batch=5)
    bank = MemoryBank.of(torch.randn(1100, 48, generator=torch.Generator().manual_seed(1)))
    distances, indices = bank.nearest(parts)
    for i in (0, 3):
        alone = bank.nearest([part[i : i + 1] for part in parts])
        assert torch.equal(alone[0][0], distances[i])
        assert torch.equal(alone[1][0], indices[i])


def test_neighbours_are_scikit_learns() -> None:
    features = torch.randn(400, 16, generator=torch.Generator().manual_seed(6))
    bank = MemoryBank.of(features.clone())
    reference = NearestNeighbors(n_neighbors=9).fit(features.numpy())
    expected = reference.kneighbors(features[:20].numpy(), return_distance=False)
    for index in range(20):
        assert bank.neighbours(torch.tensor([index]), 9).tolist() == expected[index].tolist()


def test_a_memory_comes_first_among_its_neighbours_even_beside_its_doubles() -> None:
    features = torch.randn(30, 8, generator=torch.Generator().manual_seed(7)).repeat(20, 1)
    bank = MemoryBank.of(features)
    for index in (0, 123, 599):
        around = bank.neighbours(torch.tensor([index]), 9)
        assert around[0] == index
        assert len(around.unique()) == 9
        assert (around % 30 == index % 30).all()


def test_fewer_memories_than_neighbours() -> None:
    bank = MemoryBank.of(torch.eye(3))
    assert sorted(bank.neighbours(torch.tensor([1]), 9).tolist()) == [0, 1, 2]


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="not a memory bank"):
        MemoryBank(torch.zeros(3, 4), torch.zeros(5))
    with pytest.raises(ValueError, match="5 channels, the memory bank has 4"):
        MemoryBank(torch.zeros(3, 4), torch.zeros(4)).nearest([torch.zeros(1, 5, 2, 2)])


def test_queries_and_bank_stay_as_they_are() -> None:
    queries = torch.randn(36, 8, generator=torch.Generator().manual_seed(8)).T.reshape(1, 8, 6, 6)
    copy = queries.clone()
    bank = MemoryBank.of(torch.randn(50, 8, generator=torch.Generator().manual_seed(9)))
    first = bank.nearest([queries])
    assert torch.equal(queries, copy)
    assert torch.equal(bank.nearest([queries])[0], first[0])
