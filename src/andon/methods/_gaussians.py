"""Gaussians at many positions: their statistics, block by block, and their whitening."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

__all__ = ["BlockwiseGaussian", "StreamingGaussian", "positions_first", "whitened", "whitening"]

_BLOCK = 32
"""Images that are added to the statistics at a time, whatever the batch size, so that it can't change the result."""
_POSITIONS = 128
"""Positions whose statistics are updated together on a CPU: they stay in a core's cache."""
_CACHE_BYTES = 5 * 2**19
"""Matrices that are factorised together on a CPU: with their intermediate results they stay in a core's cache."""
_DEVICE_BYTES = 64 * 2**20
"""Matrices that are factorised together on a GPU."""
_THREADS = threading.Lock()


def in_parallel(function: Callable[[int], None], starts: range, device: torch.device) -> Iterator[int]:
    """Calls ``function`` for every start, and yields how many are done.

    On a CPU each of torch's threads takes whole chunks. Left to itself torch would split each small product among its
    threads, and they would spend their time waiting for each other.
    """
    if device.type != "cpu":
        for done, start in enumerate(starts, start=1):
            function(start)
            yield done
        return
    with _THREADS:  # the number of threads belongs to the process: only one may change it and put it back
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads, thread_name_prefix="andon-padim") as pool:
                for done, _ in enumerate(pool.map(function, starts), start=1):
                    yield done
        finally:
            torch.set_num_threads(threads)


def positions_first(vectors: torch.Tensor) -> torch.Tensor:
    """``[n, d, P]`` to contiguous ``[P, n, d]``; as one plain transposition, which torch does many times faster."""
    n, d, positions = vectors.shape
    return vectors.reshape(n * d, positions).T.contiguous().view(positions, n, d)


class StreamingGaussian:
    """Mean and scatter matrix of vectors at many positions, block by block, nothing kept of the vectors.

    Chan, Golub & LeVeque (1979), equations 2.1: the scatter of a union is the sum of both scatters and an outer product
    of the difference of the means. That product is one more row beside the block's centred vectors, so an update is one
    batched product. Means are float64 and blocks are centred first: nothing cancels.

    Memory: ``4·P·d²`` bytes (float32). Operations: ``2·P·d²`` an image.
    """

    mean: torch.Tensor
    scatter: torch.Tensor

    def __init__(self, positions: int, dimensions: int, device: torch.device) -> None:
        self.count = 0
        self.mean = torch.zeros((positions, dimensions), dtype=torch.float64, device=device)
        self.scatter = torch.zeros((positions, dimensions, dimensions), device=device)

    def update(self, block: torch.Tensor) -> None:
        """Adds float32 ``[n, d, P]``: n vectors at each of the P positions."""
        n, _, positions = block.shape
        by_position = positions_first(block)
        total = self.count + n
        weight = (self.count * n / total) ** 0.5
        size = _POSITIONS if block.device.type == "cpu" else positions

        def add(start: int) -> None:
            part = slice(start, start + size)
            vectors, mean = by_position[part], self.mean[part]
            block_mean = vectors.mean(1, dtype=torch.float64)
            shift = block_mean - mean
            rows = torch.cat([vectors - block_mean[:, None].float(), (weight * shift)[:, None].float()], dim=1)
            self.scatter[part].baddbmm_(rows.transpose(1, 2), rows)
            mean += shift * (n / total)

        for _ in in_parallel(add, range(0, positions, size), block.device):
            pass
        self.count = total

    def join(self, other: StreamingGaussian) -> None:
        """Adds the vectors of other statistics, which stay as they are."""
        if not other.count:
            return
        total = self.count + other.count
        shift = other.mean - self.mean
        row = ((self.count * other.count / total) ** 0.5 * shift).float()[:, None]
        self.scatter.add_(other.scatter).baddbmm_(row.transpose(1, 2), row)
        self.mean += shift * (other.count / total)
        self.count = total

    def covariance_(self, epsilon: float) -> torch.Tensor:
        """Equation 1: ``scatter / (N − 1) + ε·I``, ``[P, d, d]``, in the scatter's own memory (which it ends)."""
        self.scatter.div_(max(self.count - 1, 1))
        self.scatter.diagonal(dim1=1, dim2=2).add_(epsilon)
        return self.scatter


class BlockwiseGaussian:
    """A ``StreamingGaussian`` that batches of any size come to, and that always takes blocks of one size."""

    def __init__(self, positions: int, dimensions: int, device: torch.device) -> None:
        self._statistics = StreamingGaussian(positions, dimensions, device)
        self._waiting: list[torch.Tensor] = []

    def add(self, vectors: torch.Tensor) -> None:
        """Adds float32 ``[n, d, P]``."""
        self._waiting.append(vectors)
        while sum(map(len, self._waiting)) >= _BLOCK:
            self._take()

    def statistics(self) -> StreamingGaussian:
        """Of all that was added; nothing can be added afterwards."""
        if self._waiting:
            self._take()
        return self._statistics

    def _take(self) -> None:
        block = torch.cat(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        self._statistics.update(block[:_BLOCK])
        self._waiting = [block[_BLOCK:]] if len(block) > _BLOCK else []


def whitened(covariance_of: Callable[[slice], torch.Tensor], out: torch.Tensor) -> Iterator[int]:
    """Whitening matrices of many covariances, in float64, as many at a time as stay in a core's cache.

    Args:
        covariance_of: the covariances of some positions, ``[n, d, d]``.
        out: float32 ``[P, d, d]``, is filled; it may be where the covariances come from.

    Yields:
        how many positions are done.

    Raises:
        torch.linalg.LinAlgError: a matrix that is not positive definite.
    """
    positions, d, _ = out.shape
    size = max(1, (_CACHE_BYTES if out.device.type == "cpu" else _DEVICE_BYTES) // (8 * d * d))

    def fill(start: int) -> None:
        part = slice(start, start + size)
        out[part] = whitening(covariance_of(part).double())

    for done in in_parallel(fill, range(0, positions, size), out.device):
        yield min(done * size, positions)


def whitening(covariance: torch.Tensor) -> torch.Tensor:
    """``L⁻¹`` of the Cholesky factorisations ``L·Lᵀ = covariance``, ``[P, d, d]``, lower triangular.

    ``‖L⁻¹(x − μ)‖`` is the Mahalanobis distance. Recursive over 2 × 2 blocks, so that nearly all the work is batched
    matrix products: a library's loop over thousands of small factorisations and inverses takes twice the time.

    Raises:
        torch.linalg.LinAlgError: a matrix that is not positive definite.
    """
    d = covariance.shape[-1]
    if d <= 16:
        identity = torch.eye(d, dtype=covariance.dtype, device=covariance.device)
        inverse: torch.Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), identity, upper=False)
        return inverse
    k = d // 2
    # [[A, ·], [B, C]]: L = [[L₁, 0], [B·L₁⁻ᵀ, L₂]] with L₂·L₂ᵀ = C − (B·L₁⁻ᵀ)(B·L₁⁻ᵀ)ᵀ.
    first = whitening(covariance[:, :k, :k])
    below = torch.bmm(covariance[:, k:, :k], first.transpose(1, 2))
    second = whitening(torch.baddbmm(covariance[:, k:, k:], below, below.transpose(1, 2), alpha=-1))
    result = torch.zeros_like(covariance)
    result[:, :k, :k] = first
    result[:, k:, k:] = second
    result[:, k:, :k] = torch.bmm(second, torch.bmm(below, first)).neg_()
    return result
