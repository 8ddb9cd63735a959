"""Greedy k-centre: the textbook loop's selection, on data with and without ties, however it is computed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.random_projection import SparseRandomProjection, johnson_lindenstrauss_min_dim

from andon.methods.patchcore import coreset as _coreset
from andon.methods.patchcore.coreset import StreamingCoreset, greedy_k_centre, projection_matrix, to_fixed_point


def textbook(points: torch.Tensor, k: int, start: int) -> tuple[list[int], list[float]]:
    """The loop as in Algorithm 1, on the grid: farthest point from all picks, lowest index on ties."""
    grid, unit = to_fixed_point(points)
    exact = grid.numpy().astype(np.float64)
    nearest = np.full(len(exact), np.inf)
    picks, radii = [start], []
    while True:
        nearest = np.minimum(nearest, ((exact - exact[picks[-1]]) ** 2).sum(axis=1))
        farthest = int(np.argmax(nearest))
        radii.append(math.sqrt(nearest[farthest]) * unit)
        if len(picks) == k or nearest[farthest] == 0:
            return picks, radii
        picks.append(farthest)


def smooth_patches(rng: torch.Generator) -> torch.Tensor:
    """Patches of smooth fields with few latent dimensions: neighbours are alike, as in a network's feature maps."""
    fields = torch.randn(24, 12, 18, 18, generator=rng) * torch.arange(1, 13).float().pow(-0.7).view(1, 12, 1, 1)
    fields = torch.nn.functional.avg_pool2d(fields, 3, stride=1)
    mixed = torch.einsum("bchw,cd->bhwd", fields, torch.randn(12, 48, generator=rng)).relu()
    return (mixed + 0.05 * torch.randn(mixed.shape, generator=rng)).reshape(-1, 48)


def hard_case(name: str) -> torch.Tensor:
    rng = torch.Generator().manual_seed(3)
    match name:
        case "noise":
            return torch.randn(2500, 40, generator=rng)
        case "clusters":
            centres = 4 * torch.randn(15, 40, generator=rng)
            return centres[torch.randint(15, (2500,), generator=rng)] + 0.2 * torch.randn(2500, 40, generator=rng)
        case "smooth":
            return smooth_patches(rng)
        case "duplicates":
            return torch.randn(300, 24, generator=rng).repeat(9, 1)
        case "lattice":
            return torch.randint(0, 4, (2500, 5), generator=rng).float()
        case "line":
            return torch.arange(2500.0).unsqueeze(1)
        case "far from the origin":
            return 1000 + torch.randn(2500, 8, generator=rng)
        case "wide range":
            return torch.randn(2500, 8, generator=rng) * torch.logspace(-6, 6, 2500).unsqueeze(1)
    raise AssertionError(name)


CASES = ("noise", "clusters", "smooth", "duplicates", "lattice", "line", "far from the origin", "wide range")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sizes", [(4096, 256), (500, 40), (37, 5)])
def test_selects_what_the_textbook_loop_selects(
    case: str, sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_coreset, "OUTER", sizes[0])
    monkeypatch.setattr(_coreset, "INNER", sizes[1])
    points = hard_case(case)
    picks, radii = textbook(points, 330, start=11)
    found = greedy_k_centre(points, 330, start=11)
    assert found.indices.tolist() == picks
    assert found.radii.tolist() == radii


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60).flatmap(
        lambda n: st.tuples(
            st.lists(
                st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.1, 3e4]), min_size=2, max_size=2), min_size=n, max_size=n
            ),
            st.integers(1, n),
            st.integers(0, n - 1),
        )
    )
)
def test_small_sets_with_many_ties(case: tuple[list[list[float]], int, int]) -> None:
    rows, k, start = case
    points = torch.tensor(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_coreset, "OUTER", 7)
        patch.setattr(_coreset, "INNER", 3)
        found = greedy_k_centre(points, k, start=start)
    picks, radii = textbook(points, k, start)
    assert found.indices.tolist() == picks
    assert found.radii.tolist() == radii


def test_the_order_of_additions_does_not_matter() -> None:
    """On the grid, the direct and the expanded form agree to the last bit, in any order of the dimensions."""
    for case in CASES:
        grid = to_fixed_point(hard_case(case))[0].double()
        x, c = grid[:500], grid[500:600]
        direct = (x[:, None] - c[None]).square().sum(-1)
        flipped = torch.addmm(c.square().sum(1), x.flip(1), c.flip(1).T, alpha=-2) + x.square().sum(1, keepdim=True)
        assert torch.equal(direct, flipped), case
        assert direct.max() < 2**53


def test_the_grid_is_as_fine_as_float32() -> None:
    points = hard_case("noise")
    grid, unit = to_fixed_point(points)
    assert (grid == grid.round()).all()
    error = (grid.double() * unit - points.double()).abs().max().item()
    assert error <= unit / 2
    assert unit <= points.norm(dim=1).max().item() * 2**-24
    again, same_unit = to_fixed_point((grid.double() * unit).float())
    assert torch.equal(again, grid)
    assert same_unit == unit


def test_the_grid_can_overwrite_its_input() -> None:
    points = hard_case("smooth")
    expected = to_fixed_point(points)[0]
    result = to_fixed_point(points, overwrite=True)[0]
    assert result.data_ptr() == points.data_ptr()
    assert torch.equal(result, expected)


def test_radii_are_the_covering_radii() -> None:
    points = hard_case("smooth")
    found = greedy_k_centre(points, 200, start=0)
    distances = torch.cdist(points.double(), points[found.indices].double())
    for i in (0, 1, 50, 199):
        covering = distances[:, : i + 1].amin(dim=1).max().item()
        assert found.radii[i].item() == pytest.approx(covering, rel=1e-5)
    assert (found.radii.diff() <= 0).all()


def test_a_shorter_coreset_is_the_beginning_of_a_longer_one() -> None:
    points = hard_case("clusters")
    long = greedy_k_centre(points, 120, start=3).indices
    assert torch.equal(greedy_k_centre(points, 30, start=3).indices, long[:30])


def test_stops_when_every_point_is_covered() -> None:
    points = torch.tensor([[0.0], [2.0], [0.0], [2.0], [1.0]])
    found = greedy_k_centre(points, 5, start=2)
    assert found.indices.tolist() == [2, 1, 4]
    assert found.radii.tolist() == [2.0, 1.0, 0.0]
    assert greedy_k_centre(torch.zeros(4, 3), 3, start=1).indices.tolist() == [1]


def test_features_stay_as_they_are_unless_they_may_be_overwritten() -> None:
    points = hard_case("noise")
    copy = points.clone()
    greedy_k_centre(points, 20)
    assert torch.equal(points, copy)


def test_progress_reaches_the_end() -> None:
    calls: list[tuple[str, int, int]] = []
    greedy_k_centre(hard_case("noise"), 600, progress=lambda *call: calls.append(call))
    assert calls == [("coreset", 256, 600), ("coreset", 512, 600), ("coreset", 600, 600)]


@pytest.mark.parametrize(("k", "start"), [(0, 0), (6, 0), (2, 5), (2, -1)])
def test_impossible_requests(k: int, start: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        greedy_k_centre(torch.zeros(5, 2), k, start=start)


def test_features_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="not finite"):
        greedy_k_centre(torch.tensor([[1.0], [math.nan]]), 1)
    with pytest.raises(ValueError, match="float32"):
        to_fixed_point(torch.zeros(3, 2, dtype=torch.float64))


# Of 17 features often none is taken, of 10,000 often so few (at most 1 %) that scikit-learn draws them otherwise.
@pytest.mark.parametrize(
    ("n_samples", "n_features", "eps"),
    [(2, 18, 0.99), (1000, 400, 0.9), (50, 1536, 0.5), (102_400, 1536, 0.9), (1000, 10_000, 0.9)],
)
@pytest.mark.parametrize("seed", [0, 5, 6])
def test_projection_is_scikit_learns_bit_for_bit(n_samples: int, n_features: int, eps: float, seed: int) -> None:
    n_components = int(johnson_lindenstrauss_min_dim(n_samples, eps=eps))
    reference = SparseRandomProjection(n_components, random_state=seed)
    expected = reference.fit(np.zeros((1, n_features), np.float32)).components_.toarray().T
    matrix = projection_matrix(n_samples, n_features, eps=eps, seed=seed)
    assert matrix is not None
    np.testing.assert_array_equal(matrix.numpy(), expected.astype(np.float32))


def test_projection_dimension_of_the_study() -> None:
    matrix = projection_matrix(102_400, 1536, eps=0.9, seed=0)
    assert matrix is not None
    assert matrix.shape == (1536, 284)
    other = projection_matrix(102_400, 1536, eps=0.9, seed=1)
    assert other is not None
    assert not torch.equal(matrix, other)


def test_no_projection_where_it_would_not_shrink() -> None:
    assert projection_matrix(102_400, 284, eps=0.9, seed=0) is None
    assert projection_matrix(1, 1536, eps=0.9, seed=0) is None


def in_parts(points: torch.Tensor, capacity: int, part: int) -> StreamingCoreset:
    stream = StreamingCoreset(capacity, start=5)
    for begin in range(0, len(points), part):
        stream.add(points[begin : begin + part])
    return stream


def test_stream_that_fits_is_exact() -> None:
    points = hard_case("smooth")
    stream = in_parts(points, len(points), 700)
    found = stream.select(150)
    expected = greedy_k_centre(points, 150, start=5)
    assert torch.equal(found.indices, expected.indices)
    assert stream.thinnings == 0
    assert stream.bound == expected.radii[-1]


@pytest.mark.parametrize("case", ["smooth", "duplicates"])
def test_stream_that_does_not_fit_keeps_its_bound(case: str) -> None:
    points = hard_case(case)
    stream = in_parts(points, 600, 250)
    found = stream.select(150)
    assert stream.thinnings >= 4
    assert found.indices[0] == 5
    assert len(found.indices.unique()) == len(found.indices) == 150
    covering = torch.cdist(points.double(), points[found.indices].double()).amin(dim=1).max().item()
    assert covering <= stream.bound * (1 + 1e-6)
    # Far better than its bound: little is lost against the exact selection.
    assert covering <= 1.35 * greedy_k_centre(points, 150, start=5).radii[-1].item()
