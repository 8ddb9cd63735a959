"""Exact nearest neighbours of patches in a memory bank.

‖q − b‖² = ‖q‖² − 2·(q·b − ½‖b‖²): the nearest neighbour is where the bracket is largest, and the brackets of an
image's patches are one matrix product. Two things make it cheaper than the plain product:

* A patch's embedding is a fine part beside coarser parts that are bilinearly upsampled to the fine grid. Upsampling is
  linear, so the coarse part's products are taken on its own grid, where there is a quarter of the positions, and
  upsampled afterwards: for 512 fine and 1,024 coarse channels that halves the operations, exactly.
* Products are taken with a slice of the bank at a time, so that they are reduced to their maximum in the cache.

The bank is centred on its mean, which keeps the brackets small, and the winner's distance is then computed directly
from the difference of the two vectors: distances carry no cancellation error.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import nn

from andon.methods.patchcore.embedding import embed, upsample

__all__ = ["MemoryBank"]

_SLICE = 1024
"""Bank rows of one matrix product."""


class MemoryBank(nn.Module):
    """Patch features of good images, searched exactly.

    Buffers: ``centred`` float32 ``[M, D]``, features without their mean, and ``mean`` float32 ``[D]``.

    Cost of a search for an image with P fine and p coarse positions: 2·M·(P·C_fine + p·C_coarse) operations and
    ``4·P·1024`` bytes beside the bank.
    """

    centred: torch.Tensor
    mean: torch.Tensor
    _half_norms: torch.Tensor

    def __init__(self, centred: torch.Tensor, mean: torch.Tensor) -> None:
        super().__init__()
        if centred.ndim != 2 or len(centred) == 0 or mean.shape != centred.shape[1:]:
            raise ValueError(f"not a memory bank: {list(centred.shape)} with mean {list(mean.shape)}")
        self.register_buffer("centred", centred.contiguous())
        self.register_buffer("mean", mean)
        self.refresh()

    @classmethod
    def of(cls, features: torch.Tensor) -> MemoryBank:
        """The bank of float32 ``[M, D]`` features; centres them in place."""
        mean = features.mean(dim=0)
        return cls(features.sub_(mean), mean)

    def refresh(self) -> None:
        """Makes anew what follows from ``centred``; to be called when that was loaded."""
        self.register_buffer("_half_norms", self.centred.square().sum(dim=1).mul_(-0.5), persistent=False)

    def __len__(self) -> int:
        return len(self.centred)

    def nearest(self, parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The nearest neighbour of every patch.

        Args:
            parts: as for ``embed``; their channels add up to D.

        Returns:
            Distances float32 ``[B, h·w]`` and bank indices int64 ``[B, h·w]``. Each image is searched by itself, so
            its result is the same in any batch.
        """
        found = [self._nearest([part[i : i + 1] for part in parts]) for i in range(len(parts[0]))]
        return torch.stack([f[0] for f in found]), torch.stack([f[1] for f in found])

    def _nearest(self, parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = parts[0].shape[-2:]
        ends = list(accumulate(part.shape[1] for part in parts))
        if ends[-1] != self.centred.shape[1]:
            raise ValueError(f"embeddings have {ends[-1]} channels, the memory bank has {self.centred.shape[1]}")
        columns = [slice(end - part.shape[1], end) for part, end in zip(parts, ends, strict=True)]
        rows = [part[0].flatten(1).T - self.mean[c] for part, c in zip(parts, columns, strict=True)]
        values, indices = [], []
        for start in range(0, len(self.centred), _SLICE):
            bank, bias = self.centred[start : start + _SLICE], self._half_norms[start : start + _SLICE]
            products = None
            for part, queries, channels in zip(parts[1:], rows[1:], columns[1:], strict=True):
                coarse = torch.mm(queries, bank[:, channels].T)
                # Channels-last, [1, bank rows, h, w] in memory as [h, w, bank rows]: nothing is moved.
                as_maps = coarse.view(1, *part.shape[-2:], -1).permute(0, 3, 1, 2)
                fine = upsample(as_maps, (height, width)).permute(0, 2, 3, 1).reshape(height * width, -1)
                products = fine.add_(bias) if products is None else products.add_(fine)
            if products is None:
                products = torch.addmm(bias, rows[0], bank[:, columns[0]].T)
            else:
                products.addmm_(rows[0], bank[:, columns[0]].T)
            best = products.max(dim=1)
            values.append(best.values)
            indices.append(best.indices + start)
        slices, candidates = torch.stack(values, dim=1), torch.stack(indices, dim=1)
        embeddings = embed(parts) - self.mean
        return self._refine(embeddings, slices, candidates)

    def _refine(
        self, embeddings: torch.Tensor, brackets: torch.Tensor, candidates: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Direct distances to the best candidate, and to others that rounding may have put behind it."""
        top = brackets.max(dim=1, keepdim=True)
        # 2⁻²⁰ of the vectors' squares is a generous estimate of float32 rounding in a product of some thousand terms.
        squares = embeddings.norm(dim=1, keepdim=True).square_() - 2 * self._half_norms.min()
        close = brackets >= top.values - squares * 2**-20
        if torch.compiler.is_compiling():
            # How many are close depends on the values, on which an exported graph's shapes must not: it takes all.
            columns = candidates.unbind(dim=1)
            distances = torch.stack([self._between(embeddings, column) for column in columns], dim=1)
            padded = torch.where(close, distances, torch.inf)
        else:
            queries, slices = close.nonzero(as_tuple=True)
            chosen = candidates[queries, slices]
            if len(queries) == len(embeddings):  # one candidate each
                return self._between(embeddings, chosen), chosen
            padded = torch.full_like(brackets, torch.inf)
            padded[queries, slices] = self._between(embeddings[queries], chosen)
        best = padded.min(dim=1)
        return best.values, candidates.gather(1, best.indices.unsqueeze(1)).squeeze(1)

    def _between(self, embeddings: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """Distances ``[n]`` of ``[n, D]`` to one feature each."""
        distances: torch.Tensor = self.centred[indices].sub_(embeddings).norm(dim=1)
        return distances

    def neighbours(self, index: torch.Tensor, k: int) -> torch.Tensor:
        """Indices int64 ``[min(k, M)]`` of the bank's nearest features to one feature, which comes first.

        Args:
            index: int64 ``[1]``: which feature.
        """
        feature = self.centred.index_select(0, index)[0]
        squared = torch.mv(self.centred, feature).add_(self._half_norms).mul_(-2)
        itself = torch.arange(len(self), device=index.device) == index
        squared = squared.masked_fill(itself, -torch.inf)
        # A few more than asked for, so that rounding cannot push one out; then sorted by direct distance.
        close = squared.topk(min(k + 8, len(self.centred)), largest=False).indices
        distances = self.distances(feature, close).masked_fill(close == index, -1)
        return close[distances.sort().indices[:k]]

    def distances(self, centred_query: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """Direct distances float32 ``[n]`` of one centred ``[D]`` query to the features at ``indices``."""
        distances: torch.Tensor = (self.centred[indices] - centred_query).norm(dim=1)
        return distances
