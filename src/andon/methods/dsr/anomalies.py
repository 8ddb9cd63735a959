"""Anomalies that DSR makes in the latent space to learn from (section 3.3): codes replaced by others."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F

from andon.methods.dsr.codebook import DiscreteLatentModel, VectorQuantizer
from andon.methods.dsr.subspaces import COARSE, FINE, Encoding

__all__ = ["LatentAnomalies", "LatentDraws", "latent_anomalies", "sample_codes"]

_ROWS = 4096
"""Vectors whose distances to all codes are ranked at a time: 64 MB at 4,096 codes."""


@torch.no_grad()
def sample_codes(
    vectors: torch.Tensor, codebook: torch.Tensor, strength: float, uniform: torch.Tensor, skip: float = 0.05
) -> torch.Tensor:
    """For each vector a code drawn evenly from those that are neither too near nor too far: a replacement that differs,
    as much as ``strength`` allows.

    With N codes sorted by their distance to a vector, the ones of rank ⌊skip·N⌋ up to ⌊strength·N⌋ are drawn from (at
    least one). The order within that range does not matter, so nothing is sorted: two selections in linear time.

    Args:
        vectors: ``[M, C]``.
        codebook: ``[N, C]``.
        strength: similarity bound, 0..1.
        uniform: ``[M]`` numbers in [0, 1) that decide.
        skip: part of the codes that is left out as too near.

    Returns:
        Indices int64 ``[M]``.
    """
    n = len(codebook)
    nearest = min(int(skip * n), n - 1)
    reach = max(1, min(int(strength * n) + 1, n - 1), nearest + 1)
    count = reach - nearest
    half = 0.5 * codebook.square().sum(1)
    chosen = [vectors.new_empty(0, dtype=torch.int64)]
    for block, numbers in zip(torch.split(vectors, _ROWS), torch.split(uniform, _ROWS), strict=True):
        distances = torch.addmm(half, block, codebook.T, alpha=-1)
        near = distances.topk(reach, dim=1, largest=False, sorted=False)
        ranks = near.values.topk(count, dim=1, sorted=False).indices
        column = (numbers * count).long().clamp_(max=count - 1)[:, None]
        chosen.append(near.indices.gather(1, ranks.gather(1, column)).squeeze(1))
    return torch.cat(chosen)


class LatentDraws(NamedTuple):
    """All that is random in a batch's latent anomalies.

    Attributes:
        both: bool ``[B]``, both levels are altered.
        coarse_only: bool ``[B]``, where not both: the coarse level is altered, not the fine one.
        coarse_strength, fine_strength: similarity bounds ``[B]``.
        coarse_uniform, fine_uniform: what decides between codes, in [0, 1), ``[B, h/2, w/2]`` and ``[B, h, w]``.
    """

    both: torch.Tensor
    coarse_only: torch.Tensor
    coarse_strength: torch.Tensor
    fine_strength: torch.Tensor
    coarse_uniform: torch.Tensor
    fine_uniform: torch.Tensor

    @classmethod
    def draw(cls, batch: int, fine: tuple[int, int], lowest: float, generator: torch.Generator) -> LatentDraws:
        """Draws for ``batch`` images of ``fine`` positions; strengths are even in ``lowest``..1."""
        height, width = fine
        coins = torch.randint(0, 2, (2, batch), generator=generator).bool()
        strengths = torch.rand((2, batch), generator=generator) * (1 - lowest) + lowest
        coarse = torch.rand((batch, height // 2, width // 2), generator=generator)
        fine_level = torch.rand((batch, height, width), generator=generator)
        return cls(coins[0], coins[1], strengths[0], strengths[1], coarse, fine_level)


class LatentAnomalies(NamedTuple):
    """A batch with anomalies in its codes.

    Attributes:
        coarse_codes, fine_codes: indices of both levels after the alteration, as in ``Encoding``.
        mask: float32 ``[B, 1, H, W]`` of zeros and ones: the altered positions of the coarsest level that is altered.
    """

    coarse_codes: torch.Tensor
    fine_codes: torch.Tensor
    mask: torch.Tensor


@torch.no_grad()
def latent_anomalies(
    model: DiscreteLatentModel, encoding: Encoding, mask: torch.Tensor, draws: LatentDraws, skip: float = 0.05
) -> LatentAnomalies:
    """Replaces the codes beneath a mask by others, at both levels or at one of them.

    Half of the images are altered at both levels (the fine level then sees the altered coarse one), a quarter at the
    coarse level only, a quarter at the fine one only; which is which is in ``draws``.

    Args:
        mask: float ``[B, 1, H, W]`` of zeros and ones; a position of a level is altered where any pixel beneath is 1.
        skip: see ``sample_codes``.
    """
    on_coarse, on_fine = F.max_pool2d(mask, COARSE), F.max_pool2d(mask, FINE)
    at_coarse = draws.both | draws.coarse_only
    coarse_codes, fine_codes = encoding.coarse_codes.clone(), encoding.fine_codes.clone()
    any_altered = mask.flatten(1).any(1).tolist()
    both, coarse_only = draws.both.tolist(), draws.coarse_only.tolist()
    coarse_strength, fine_strength = draws.coarse_strength.tolist(), draws.fine_strength.tolist()

    def alter(
        codes: torch.Tensor, features: torch.Tensor, where: torch.Tensor, book: VectorQuantizer, bound: float,
        uniform: torch.Tensor,
    ) -> None:  # fmt: skip
        """One image's codes ``[h, w]`` in place; features ``[C, h, w]``, where bool ``[h, w]``."""
        codes[where] = sample_codes(features[:, where].T, book.codebook, bound, uniform[where], skip)

    for i in range(len(mask)):
        if not any_altered[i]:
            continue
        joined = encoding.joined[i]
        if both[i] or coarse_only[i]:
            where = on_coarse[i, 0] > 0
            alter(coarse_codes[i], encoding.coarse[i], where, model.top, coarse_strength[i], draws.coarse_uniform[i])
        if both[i]:
            upsampled = model.upsample_top(model.top.look_up(coarse_codes[i : i + 1]))
            joined = model.join_bottom(encoding.fine[i : i + 1], upsampled)
            fine_codes[i] = model.bottom.indices(joined)[0]
            joined = joined[0]
        if both[i] or not coarse_only[i]:
            where = on_fine[i, 0] > 0
            alter(fine_codes[i], joined, where, model.bottom, fine_strength[i], draws.fine_uniform[i])
    coarse_mask = F.interpolate(on_coarse, scale_factor=COARSE)
    fine_mask = F.interpolate(on_fine, scale_factor=FINE)
    return LatentAnomalies(
        coarse_codes, fine_codes, torch.where(at_coarse[:, None, None, None], coarse_mask, fine_mask)
    )
