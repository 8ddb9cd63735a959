"""PaDiM's Gaussians without some of their images: what fit would have given, from what is kept.

With N vectors of mean μ and scatter S at a position, n of which (mean m, scatter T) are taken out, N' = N − n are left:

    μ' = μ − (n / N')·(m − μ)        S' = S − T − (N·n / N')·(m − μ)(m − μ)ᵀ

(Chan, Golub & LeVeque 1979, equations 2.1, solved for the part that is left). S comes back from the whitening matrix W:
``S = (N − 1)·(W⁻¹W⁻ᵀ − ε·I)``. In float64; what it differs from a fit by is the rounding of the fit's own float32.
"""

from __future__ import annotations

import torch

from andon.methods.padim.gaussians import positions_first, whitening

__all__ = ["without_vectors"]

_CHUNK = 32
"""Positions at a time: their matrices stay in a core's cache."""


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
    identity = torch.eye(mean.shape[1], dtype=torch.float64, device=mean.device)
    for start in range(0, len(mean), _CHUNK):
        part = slice(start, start + _CHUNK)
        factor = torch.linalg.solve_triangular(white[part].double(), identity, upper=False)
        scatter = torch.bmm(factor, factor.transpose(1, 2)).sub_(epsilon * identity).mul_(n - 1)
        taken = by_position[part].double()
        centre = taken.mean(1)
        shift = centre - mean[part].double()
        rows = torch.cat([taken - centre[:, None], (n * k / left) ** 0.5 * shift[:, None]], dim=1)
        scatter.baddbmm_(rows.transpose(1, 2), rows, alpha=-1)
        covariance = scatter.div_(max(left - 1, 1)).add_(epsilon * identity)
        means[part] = (mean[part].double() - (k / left) * shift).float()
        try:
            whites[part] = whitening(covariance).float()
        except RuntimeError:  # torch.linalg.LinAlgError, which torch does not export to type checkers
            return None
    return means, whites
