"""PaDiM's Gaussians with more images, and without some of theirs: what fit would have given, from what is kept.

With N vectors of mean μ and scatter S at a position, and n others (mean m, scatter T) that join them, N' = N + n:

    μ' = μ + (n / N')·(m − μ)        S' = S + T + (N·n / N')·(m − μ)(m − μ)ᵀ

(Chan, Golub & LeVeque 1979, equations 2.1.) Solved for N, where n are taken out and N' = N − n are left:

    μ' = μ − (n / N')·(m − μ)        S' = S − T − (N·n / N')·(m − μ)(m − μ)ᵀ

S comes back from the whitening matrix W: ``S = (N − 1)·(W⁻¹W⁻ᵀ − ε·I)``, so the file needs no scatter beside it. In
float64; what it differs from a fit by is the rounding of W and of the fit's own sums, which are float32.
"""

from __future__ import annotations

import torch

from andon.methods._gaussians import StreamingGaussian, positions_first, whitening

__all__ = ["with_vectors", "without_vectors"]

_CHUNK = 32
"""Positions at a time: their matrices stay in a core's cache."""


def with_vectors(
    mean: torch.Tensor, white: torch.Tensor, n: int, more: StreamingGaussian, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and whitening matrix with more vectors.

    Args:
        mean: float32 ``[P, d]`` of the ``n`` vectors so far.
        white: float32 ``[P, d, d]``, lower triangular.
        n: vectors at each position.
        more: statistics of those that join them, at the same positions, at least one; not changed.
        epsilon: that stands on the covariances' diagonal.

    Returns:
        ``[P, d]`` and ``[P, d, d]``, float32.

    Raises:
        torch.linalg.LinAlgError: rounding leaves a matrix that is no covariance.
    """
    k, total = more.count, n + more.count
    means, whites = torch.empty_like(mean), torch.empty_like(white)
    for start in range(0, len(mean), _CHUNK):
        part = slice(start, start + _CHUNK)
        scatter = _scatter(white[part], n, epsilon).add_(more.scatter[part])
        shift = more.mean[part] - mean[part].double()
        row = ((n * k / total) ** 0.5 * shift)[:, None]
        scatter.baddbmm_(row.transpose(1, 2), row)
        means[part] = (mean[part].double() + (k / total) * shift).float()
        whites[part] = _whitened(scatter, total, epsilon)
    return means, whites


def without_vectors(
    mean: torch.Tensor, white: torch.Tensor, n: int, vectors: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Mean and whitening matrix without some vectors.

    Args:
        mean: float32 ``[P, d]`` of all ``n`` vectors.
        white: float32 ``[P, d, d]``, lower triangular.
        n: vectors at each position.
        vectors: float32 ``[k, d, P]``: those to take out, k < n.
        epsilon: that stands on the covariances' diagonal.

    Returns:
        ``[P, d]`` and ``[P, d, d]``, float32; None where rounding leaves a matrix that is no covariance.
    """
    by_position = positions_first(vectors)
    k = by_position.shape[1]
    left = n - k
    means, whites = torch.empty_like(mean), torch.empty_like(white)
    for start in range(0, len(mean), _CHUNK):
        part = slice(start, start + _CHUNK)
        scatter = _scatter(white[part], n, epsilon)
        taken = by_position[part].double()
        centre = taken.mean(1)
        shift = centre - mean[part].double()
        rows = torch.cat([taken - centre[:, None], (n * k / left) ** 0.5 * shift[:, None]], dim=1)
        scatter.baddbmm_(rows.transpose(1, 2), rows, alpha=-1)
        means[part] = (mean[part].double() - (k / left) * shift).float()
        try:
            whites[part] = _whitened(scatter, left, epsilon)
        except RuntimeError:  # torch.linalg.LinAlgError, which torch does not export to type checkers
            return None
    return means, whites


def _scatter(white: torch.Tensor, n: int, epsilon: float) -> torch.Tensor:
    """Of ``n`` vectors, float64 ``[P, d, d]``, from the whitening matrices."""
    identity = torch.eye(white.shape[1], dtype=torch.float64, device=white.device)
    factor = torch.linalg.solve_triangular(white.double(), identity, upper=False)
    return torch.bmm(factor, factor.transpose(1, 2)).sub_(epsilon * identity).mul_(n - 1)


def _whitened(scatter: torch.Tensor, n: int, epsilon: float) -> torch.Tensor:
    """Whitening matrices float32 of a scatter of ``n`` vectors, whose memory is used."""
    covariance = scatter.div_(max(n - 1, 1))
    covariance.diagonal(dim1=1, dim2=2).add_(epsilon)
    return whitening(covariance).float()
