"""Coreset selection: exact greedy k-centre on a sparse random projection.

Greedy k-centre (Gonzalez 1985; Patchcore, Algorithm 1) picks, time after time, the point that is farthest from all
picks so far. The textbook loop updates every point's distance after every pick: N·k·d products in matrix–vector form,
bound by memory bandwidth. Three observations make the same selection much cheaper here:

* Distances to the nearest centre only fall. A distance that was computed some picks ago is an upper bound of today's;
  only points whose bound is still among the largest need today's value. Points in dense regions, whose bound has
  fallen below the final covering radius, are never looked at again.
* The picks that a point has not seen yet can wait and be applied together, as one matrix–matrix product.
* Two nested sets keep the work of a single pick small: out of the ``OUTER`` points with the largest bounds the
  ``INNER`` largest are brought up to date at every pick, and fit in a core's cache.

Exactness: coordinates are first rounded to a fixed-point grid, chosen so fine (about the rounding error of float32)
that every squared distance is still an integer below 2⁵³ grid units. Sums in float64 then carry no rounding error at
all, so that the selection does not depend on the order of additions: matrix–vector, matrix–matrix, another BLAS, more
threads or another device pick the same points, and ties are true ties (the lowest index wins).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from andon.core import ProgressCallback, no_progress

__all__ = [
    "Coreset",
    "StreamingCoreset",
    "continued_k_centre",
    "greedy_k_centre",
    "projection_matrix",
    "to_fixed_point",
]

OUTER = 4096
"""Points that are brought up to date when the inner set is used up."""
INNER = 256
"""Points that are brought up to date at every pick."""
_ROWS, _COLUMNS = 1024, 512
"""Size of one matrix product: its result stays in the cache until the minimum is taken."""


class Coreset(NamedTuple):
    """What greedy k-centre selected.

    Attributes:
        indices: int64 ``[k]`` in the order of selection.
        radii: float64 ``[k]``; ``radii[i]`` is the covering radius of the first ``i + 1`` picks: the largest distance
            of any point to the nearest of them. It never rises.
    """

    indices: torch.Tensor
    radii: torch.Tensor


def projection_matrix(n_samples: int, n_features: int, *, eps: float, seed: int) -> torch.Tensor | None:
    """Sparse random projection (Li, Hastie & Church 2006) of the Johnson–Lindenstrauss dimension for ``eps``.

    Args:
        n_samples: points whose pairwise squared distances are to be kept within a factor ``1 ± eps``.
        n_features: their dimension.
        eps: distortion, in (0, 1).
        seed: of the matrix's entries.

    Returns:
        float32 ``[n_features, n_components]``, to be multiplied from the right; None where the projection would not
        lower the dimension.
    """
    if n_samples < 2:
        return None
    # Dasgupta & Gupta 1999.
    n_components = int(4 * math.log(n_samples) / (eps**2 / 2 - eps**3 / 3))
    if n_components >= n_features:
        return None
    # Drawn as scikit-learn draws: a seed means the same matrix there, and went into published results.
    density = 1 / math.sqrt(n_features)
    rng = np.random.RandomState(seed)
    chosen = [_without_replacement(n_features, rng.binomial(n_features, density), rng) for _ in range(n_components)]
    columns = np.repeat(np.arange(n_components), [len(rows) for rows in chosen])
    signs = rng.binomial(1, 0.5, size=len(columns)) * 2 - 1
    # Dense: with 1/sqrt(d) of its entries set, a dense matrix product is faster than any sparse one here.
    matrix = np.zeros((n_features, n_components), dtype=np.float32)
    matrix[np.concatenate(chosen), columns] = math.sqrt(1 / density) / math.sqrt(n_components) * signs
    return torch.from_numpy(matrix)


def _without_replacement(n: int, count: int, rng: np.random.RandomState) -> npt.NDArray[np.int64]:
    """``count`` different numbers of 0..n−1: the first of a permutation, or one by one where they are few."""
    if count / n > 0.01:
        return rng.permutation(n)[:count]
    found: dict[int, None] = {}
    while len(found) < count:
        found[int(rng.randint(n))] = None
    return np.array([*found], dtype=np.int64)


def to_fixed_point(features: torch.Tensor, *, overwrite: bool = False) -> tuple[torch.Tensor, float]:
    """Rounds points to the grid on which float64 arithmetic on their squared distances is exact.

    Args:
        features: float32 ``[N, d]``, finite.
        overwrite: whether ``features`` may be used for the result.

    Returns:
        Integers as float32 ``[N, d]``, and the power of two that is one grid unit: ``grid * unit`` are the rounded
        features. With R the largest norm, ``unit`` is at most ``R · 2⁻²⁴``, and 2·R is at most 2²⁶·⁵ units: by
        Cauchy–Schwarz no partial sum in ‖x‖² − 2x·c + ‖c‖² exceeds 2⁵³.
    """
    if features.ndim != 2 or features.dtype != torch.float32:
        raise ValueError(f"features must be float32 [N, d], got {features.dtype} {list(features.shape)}")
    grid = features if overwrite else torch.empty_like(features)
    largest = 0.0
    for start in range(0, len(features), 8192):
        norms = features[start : start + 8192].double().square_().sum(dim=1)
        largest = max(largest, float(norms.amax()) if len(norms) else 0.0)
        if not math.isfinite(float(norms.sum())):
            raise ValueError("features are not finite")
    # Rounding moves a point by at most sqrt(d)/2 units; the factor keeps room for that.
    radius = math.sqrt(largest) * (1 + 2**-20 * math.sqrt(features.shape[1]))
    unit = 1.0 if radius == 0 else 2.0 ** math.ceil(math.log2(radius) - 25.5)
    for start in range(0, len(features), 8192):
        chunk = features[start : start + 8192].double()
        grid[start : start + 8192] = chunk.div_(unit).round_()
    return grid, unit


class _Top(NamedTuple):
    """The ``m`` largest keys (ties: lowest index), and the best key outside."""

    indices: torch.Tensor
    outside: tuple[float, int]

    def beats(self, value: float, index: int) -> bool:
        """Whether a key with this value and index ranks before every key outside (equal values: lowest index)."""
        return value > self.outside[0] or (value == self.outside[0] and index < self.outside[1])


def _top(keys: torch.Tensor, m: int) -> _Top:
    """Indices, ascending, of the ``m`` largest of ``keys`` ``[n]``; on equal keys those with the lowest index."""
    if m >= len(keys):
        return _Top(torch.arange(len(keys), device=keys.device), (-math.inf, 0))
    largest = keys.topk(m + 1, sorted=True).values
    threshold, runner_up = largest[-2].item(), largest[-1].item()
    indices = (keys >= threshold).nonzero().squeeze(1)
    if len(indices) == m:
        outside = int((keys == runner_up).nonzero()[0])
        return _Top(indices, (runner_up, outside))
    tied = keys[indices] == threshold
    rank = tied.cumsum(0)
    room = m - int((~tied).sum())
    outside = int(indices[tied][room])
    return _Top(indices[~tied | (rank <= room)], (threshold, outside))


class _Centres:
    """The picks so far, ready for ‖x − c‖² = ‖x‖² + (‖c‖² − 2c·x)."""

    def __init__(self, capacity: int, dimension: int, device: torch.device) -> None:
        self.doubled = torch.empty(capacity, dimension, dtype=torch.float64, device=device)  # −2c
        self.norms = torch.empty(capacity, dtype=torch.float64, device=device)
        self.count = 0
        self._buffer = torch.empty(_ROWS * _COLUMNS, dtype=torch.float64, device=device)

    def append(self, point: torch.Tensor) -> None:
        torch.mul(point, -2, out=self.doubled[self.count])
        self.norms[self.count] = point.dot(point)
        self.count += 1

    def apply(
        self, first: int, points: torch.Tensor, norms: torch.Tensor, nearest: torch.Tensor, last: int | None = None
    ) -> None:
        """Lowers ``nearest`` ``[n]``, squared distances, by the picks ``first`` to ``last`` (all); in place."""
        last = self.count if last is None else last
        for begin in range(first, last, _COLUMNS):
            end = min(begin + _COLUMNS, last)
            for start in range(0, len(points), _ROWS):
                rows = slice(start, start + _ROWS)
                block = points[rows]
                out = self._buffer[: len(block) * (end - begin)].view(len(block), end - begin)
                torch.addmm(self.norms[begin:end], block, self.doubled[begin:end].T, out=out)
                torch.minimum(nearest[rows], out.amin(dim=1).add_(norms[rows]), out=nearest[rows])


def greedy_k_centre(
    features: torch.Tensor,
    k: int,
    *,
    start: int = 0,
    overwrite: bool = False,
    progress: ProgressCallback = no_progress,
) -> Coreset:
    """Exact greedy k-centre: the same points in the same order as the textbook loop on ``to_fixed_point(features)``.

    Args:
        features: float32 ``[N, d]``, finite. Work is done on their device.
        k: points to select, 1..N. Fewer come back where every point coincides with a selected one: further picks
            would only be duplicates.
        start: index of the first pick.
        overwrite: whether ``features`` may be used as a work space (saves one copy).
        progress: told of the stage "coreset".

    Cost: at most 2·N·k·d floating-point operations in float64, mostly far fewer; memory ``N·(4d + 20)`` bytes beside
    the result and ``k·8d`` bytes for the picks.
    """
    if features.ndim != 2:
        raise ValueError(f"features must be [N, d], got {list(features.shape)}")
    n = len(features)
    if not 1 <= k <= n:
        raise ValueError(f"k must be 1..{n}, not {k}")
    if not 0 <= start < n:
        raise ValueError(f"start must be 0..{n - 1}, not {start}")
    grid, unit = to_fixed_point(features, overwrite=overwrite)
    return _Selection(grid, unit, k, range(start, start + 1), progress).run()


def continued_k_centre(
    features: torch.Tensor, chosen: int, k: int, *, progress: ProgressCallback = no_progress
) -> Coreset:
    """Greedy k-centre that goes on from picks that were made before.

    Args:
        features: float32 ``[N, d]``, finite; the picks come first.
        chosen: how many they are, at least 1.
        k: points to have in the end, ``chosen``..N; fewer where every point coincides with a pick.
        progress: told of the stage "coreset".

    Returns:
        The further picks, among all points; ``radii[i]`` is the covering radius with the first ``i + 1`` of them.
    """
    if not 1 <= chosen <= k <= len(features):
        raise ValueError(f"{chosen} picks cannot become {k} of {len(features)} points")
    grid, unit = to_fixed_point(features)
    indices, radii = _Selection(grid, unit, k, range(chosen), progress).run()
    return Coreset(indices[chosen:], radii[1:])  # the first radius is that of the earlier picks


class _Selection:
    """One run of greedy k-centre on the points of a grid; ``chosen``, a part of them, are its first picks."""

    def __init__(self, grid: torch.Tensor, unit: float, k: int, chosen: range, progress: ProgressCallback) -> None:
        self.grid, self.unit, self.k, self.progress = grid, unit, k, progress
        n, dimension = grid.shape
        self.bounds = torch.full((n,), math.inf, dtype=torch.float64, device=grid.device)
        self.seen = torch.zeros(n, dtype=torch.int32, device=grid.device)
        """Centres that a point's bound accounts for."""
        self.centres = _Centres(k, dimension, grid.device)
        for index in chosen:
            self.centres.append(grid[index].double())
        self.indices = list(chosen)
        self.radii: list[float] = []

    def run(self) -> Coreset:
        while not self._pick_from_outer(_top(self.bounds, OUTER)):
            pass
        self.progress("coreset", self.k, self.k)
        return Coreset(torch.tensor(self.indices), torch.tensor(self.radii, dtype=torch.float64))

    def _pick_from_outer(self, outer: _Top) -> bool:
        """Picks as long as the best is among the points with the largest bounds; whether the selection is complete."""
        points, norms, nearest = self._up_to_date(outer.indices)
        applied = self.centres.count
        while outer.beats(*_best(nearest, outer.indices)):
            if self._pick_from_inner(outer, points, norms, nearest):
                return True
            self.centres.apply(applied, points, norms, nearest)
            applied = self.centres.count
        self.bounds[outer.indices] = nearest
        self.seen[outer.indices] = applied
        return False

    def _up_to_date(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Points, squared norms and squared distances to the nearest pick.

        They are sorted by age, so that those that have missed a pick are one slice, then put back in the order of
        indices: of equal values the first one is then the one with the lowest index.
        """
        order = self.seen[indices].argsort(stable=True)
        by_age = indices[order]
        points, nearest, seen = self.grid[by_age].double(), self.bounds[by_age], self.seen[by_age]
        norms = points.square().sum(dim=1)
        starts = [0, *(seen.diff().nonzero().squeeze(1) + 1).tolist()]
        ages = [*seen[starts].tolist(), self.centres.count]
        for age, last, end in zip(ages, ages[1:], [*starts[1:], len(seen)], strict=False):
            self.centres.apply(age, points[:end], norms[:end], nearest[:end], last)
        back = order.argsort()
        return points[back], norms[back], nearest[back]

    def _pick_from_inner(self, outer: _Top, points: torch.Tensor, norms: torch.Tensor, nearest: torch.Tensor) -> bool:
        """Picks as long as the best of the few farthest points, brought up to date at every pick, beats all others."""
        inner, centres = _top(nearest, INNER), self.centres
        rows = inner.indices
        names, globals_ = rows.tolist(), outer.indices[rows].tolist()
        points, norms, nearest = points[rows], norms[rows], nearest[rows]
        while True:
            best = int(nearest.argmax())
            value = nearest[best].item()
            if not (inner.beats(value, names[best]) and outer.beats(value, globals_[best])):
                return False
            self.radii.append(math.sqrt(value) * self.unit)
            if len(self.indices) == self.k or value == 0:
                return True
            self.indices.append(globals_[best])
            centres.append(points[best])
            newest = centres.count - 1
            squared = torch.addmv(norms, points, centres.doubled[newest]).add_(centres.norms[newest])
            torch.minimum(nearest, squared, out=nearest)
            if len(self.indices) % 256 == 0:
                self.progress("coreset", len(self.indices), self.k)


def _best(values: torch.Tensor, indices: torch.Tensor) -> tuple[float, int]:
    """The largest value, and its index; of equal ones the first."""
    position = int(values.argmax())
    return values[position].item(), int(indices[position])


class StreamingCoreset:
    """Greedy k-centre of points that come in parts, with room for a given number of them.

    As long as all points fit, the selection is exact. When they do not, what is held is thinned by greedy k-centre to
    half the room, as often as needed, and the final selection is made from what is left. A point that was dropped lies
    within the radius of its thinning of a point that was kept, so the covering radius of the final selection is at
    most ``bound``, the sum of the radii of all thinnings and of the last selection.

    Args:
        capacity: points that are held at most; at least twice the number that will be selected.
        start: of the first points (at most ``capacity``), which one is the first pick.
    """

    def __init__(self, capacity: int, *, start: int = 0) -> None:
        self.capacity = capacity
        self.thinnings = 0
        self.bound = 0.0
        self._start = start
        self._seen = 0
        self._held = 0
        self._points: torch.Tensor | None = None
        self._names = torch.empty(capacity, dtype=torch.int64)

    def add(self, points: torch.Tensor) -> None:
        """Takes in float32 ``[n, d]``; points are named by their place in the order of arrival."""
        if self._points is None:
            self._points = points.new_empty(self.capacity, points.shape[1])
        while len(points):
            if self._held == self.capacity:
                self._thin()
            room = min(len(points), self.capacity - self._held)
            self._points[self._held : self._held + room] = points[:room]
            self._names[self._held : self._held + room] = torch.arange(self._seen, self._seen + room)
            self._held += room
            self._seen += room
            points = points[room:]

    def _thin(self) -> None:
        assert self._points is not None
        kept = greedy_k_centre(self._points, self.capacity // 2, start=self._start)
        n = len(kept.indices)
        self._points[:n] = self._points[kept.indices.to(self._points.device)]
        self._names[:n] = self._names[kept.indices]
        self._held, self._start = n, 0  # the first pick comes first, and remains the start
        self.bound += float(kept.radii[-1])
        self.thinnings += 1

    def select(self, k: int, *, progress: ProgressCallback = no_progress) -> Coreset:
        """The coreset of at most ``k`` points, by their names. Gives up the points: it can be called once."""
        if self._points is None:
            raise ValueError("no points")
        points, self._points = self._points[: self._held], None
        coreset = greedy_k_centre(points, min(k, len(points)), start=self._start, overwrite=True, progress=progress)
        self.bound += float(coreset.radii[-1])
        return Coreset(self._names[coreset.indices], coreset.radii)
