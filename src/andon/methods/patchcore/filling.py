"""How the memory bank is filled (section 3.2): which patches are kept, and from where they are taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import torch

from andon.core import ConfigError
from andon.features import Extractor
from andon.methods.base import Fitting
from andon.methods.patchcore.config import PatchcoreConfig
from andon.methods.patchcore.coreset import StreamingCoreset, projection_matrix
from andon.methods.patchcore.embedding import embed, patch_parts
from andon.methods.patchcore.neighbours import MemoryBank

__all__ = ["Filling", "bank_size", "check_bank"]

_GIB = 2**30
Batch = tuple[range, torch.Tensor]
"""Indices of images, and their embeddings ``[len(indices)·positions, D]``."""


def bank_size(config: PatchcoreConfig, n: int) -> int:
    """How many of ``n`` patches the memory bank keeps."""
    if config.coreset == "none":
        return n
    if config.coreset_size is not None:
        return min(n, config.coreset_size)
    # 0.7 · 170 is 118.999… in doubles: the user meant 119.
    return max(1, int(n * config.coreset_ratio + 1e-9))


def check_bank(config: PatchcoreConfig, k: int, dimension: int) -> None:
    """ConfigError where a bank of k patches, and one copy while it is made, do not fit ``memory_limit``."""
    limit = int(config.memory_limit * _GIB)
    if 8 * k * dimension > limit:
        raise ConfigError(
            f"patchcore: a memory bank of {k:,} patches of {dimension:,} channels does not fit "
            f"memory_limit = {config.memory_limit:g} GiB; set coreset_size to at most "
            f"{limit // (8 * dimension):,}, or raise memory_limit"
        )


class Filling:
    """One run of ``fit``; the seed decides the projection and the first pick."""

    def __init__(self, fitting: Fitting, config: PatchcoreConfig, extractor: Extractor) -> None:
        self.fitting, self.config, self.extractor = fitting, config, extractor
        self.generator = torch.Generator().manual_seed(fitting.seed)
        self.limit = int(config.memory_limit * _GIB)
        self.per_image = 0

    @torch.no_grad()
    def run(self) -> tuple[MemoryBank, torch.Tensor]:
        """The bank, and of each of its rows which patch it is, int64, counted through all images in order.

        Raises:
            ConfigError: a bank that does not fit ``memory_limit``.
        """
        with self.fitting.clock("features"):
            batches = self._batches("features")
            first = next(batches)
            self.per_image, dimension = len(first[1]) // len(first[0]), first[1].shape[1]
            n = len(self.fitting.images) * self.per_image
            k = bank_size(self.config, n)
            check_bank(self.config, k, dimension)
        everything = chain([first], batches)
        if self.config.coreset == "greedy" and k < n:
            bank, chosen = self._greedy(n, k, dimension, everything)
            return MemoryBank.of(bank), chosen
        if k < n:
            chosen = torch.randperm(n, generator=self.generator)[:k]
            self.fitting.note(f"coreset: {k:,} of {n:,} patches at random")
        else:
            chosen = torch.arange(n)
            self.fitting.note(f"memory bank: all {n:,} patches")
        with self.fitting.clock("features"):
            return MemoryBank.of(self._gather(chosen, dimension, everything)), chosen

    def _greedy(self, n: int, k: int, dimension: int, batches: Iterable[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
        fitting, eps = self.fitting, self.config.projection_eps
        with fitting.clock("features"):
            projection = None if eps is None else projection_matrix(n, dimension, eps=eps, seed=fitting.seed)
            if projection is not None:
                projection = projection.to(fitting.device)
            projected = dimension if projection is None else projection.shape[1]
            capacity, held = self._capacity(n, k, dimension, projected)
            start = int(torch.randint(min(n, capacity), (1,), generator=self.generator))
            coreset = StreamingCoreset(min(n, capacity), start=start)
            embeddings = torch.empty(n, dimension, device=fitting.device) if held else None
            for indices, rows in batches:
                coreset.add(rows if projection is None else rows @ projection)
                if embeddings is not None:
                    embeddings[indices.start * self.per_image :][: len(rows)] = rows
        with fitting.clock("coreset"):
            chosen, _ = coreset.select(k, progress=fitting.progress)
        self._note_coreset(n, k, coreset, len(chosen), dimension, projected)
        with fitting.clock("memory bank"):
            if embeddings is not None:
                return embeddings[chosen.to(fitting.device)], chosen
            fitting.note("patches did not fit memory_limit: selected by their projections, taken in a second pass")
            return self._gather(chosen, dimension, self._batches("memory bank")), chosen

    def _note_coreset(
        self, n: int, k: int, coreset: StreamingCoreset, found: int, dimension: int, projected: int
    ) -> None:
        note = self.fitting.note
        how = f"greedy k-centre on a projection from {dimension:,} to {projected} dimensions"
        if projected == dimension:
            how = f"greedy k-centre in {dimension:,} dimensions"
        note(f"coreset: {found:,} of {n:,} patches, {how}, covering radius {coreset.bound:.4g}")
        if found < k:
            note(f"coreset: {k:,} were asked for, but there are only {found:,} distinct patches")
        if coreset.thinnings:
            note(
                f"coreset: not exactly greedy, as at most {coreset.capacity:,} of {n:,} patches fitted memory_limit: "
                f"thinned {coreset.thinnings} times on the way (the covering radius is an upper bound)"
            )

    def _capacity(self, n: int, k: int, dimension: int, projected: int) -> tuple[int, bool]:
        """How many projected patches may be held (n where all fit), and whether the embeddings may be held too."""
        room = self.limit - k * (8 * dimension + 8 * projected)
        if n * (4 * projected + 28) <= room:
            return n, n * (4 * projected + 28 + 4 * dimension) <= room
        # Thinning needs a second copy of the points, and its picks, half the capacity, in float64.
        capacity = max(0, room) // (12 * projected + 28)
        if capacity < 2 * k:
            raise ConfigError(
                f"patchcore: a coreset of {k:,} out of {n:,} patches cannot be selected within "
                f"memory_limit = {self.config.memory_limit:g} GiB; lower coreset_ratio or coreset_size, "
                f"set coreset to 'random', or raise memory_limit"
            )
        return min(capacity, n), False

    def _gather(self, chosen: torch.Tensor, dimension: int, batches: Iterable[Batch]) -> torch.Tensor:
        """The embeddings of the patches ``chosen``, in that order, from one pass over all."""
        names, slots = chosen.sort()
        bank = torch.empty(len(chosen), dimension, device=self.fitting.device)
        for indices, rows in batches:
            offset = indices.start * self.per_image
            low, high = torch.searchsorted(names, torch.tensor([offset, offset + len(rows)])).tolist()
            bank[slots[low:high].to(bank.device)] = rows[(names[low:high] - offset).to(bank.device)]
        return bank

    def _batches(self, stage: str) -> Iterator[Batch]:
        for indices, features in self.fitting.features(self.extractor, stage=stage):
            yield indices, embed(patch_parts(self.config, features))
