"""Patchcore: what is learned, and how images are scored (section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch

from andon.data import Images
from andon.features import Extractor, ReducedExtractor
from andon.methods._config import DESIGNED_FEATURES, LEARNED_FEATURES
from andon.methods._leaving_out import Recall
from andon.methods._maps import upsample_and_smooth
from andon.methods.base import (
    FeatureDetector,
    FeatureMethod,
    Fitting,
    MethodConfig,
)
from andon.methods.patchcore.config import PatchcoreConfig
from andon.methods.patchcore.embedding import dimension, embed, patch_parts
from andon.methods.patchcore.filling import Filling
from andon.methods.patchcore.growing import grown_bank
from andon.methods.patchcore.neighbours import MemoryBank
from andon.weights import WeightsRecord

__all__ = ["Patchcore", "PatchcoreDetector"]


class PatchcoreDetector(FeatureDetector):
    """Patch features of good images, in the order of their selection: ``bank``.

    ``origins``: int64 ``[M]``, which patch each of them was, counted through all training images in order; not saved.
    """

    config: PatchcoreConfig
    origins: torch.Tensor | None

    def __init__(
        self, config: PatchcoreConfig, extractor: Extractor, bank: MemoryBank, origins: torch.Tensor | None = None
    ) -> None:
        super().__init__(config, extractor)
        self.bank = bank
        self.register_buffer("origins", origins, persistent=False)

    def check(self) -> None:
        self.bank.refresh()

    def parts(self, features: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Patch features, each still on its own grid, the finest first (``patch_parts``)."""
        return patch_parts(self.config, features)

    def judge(self, features: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        parts = self.parts(features)
        height, width = parts[0].shape[-2:]
        distances, nearest = self.bank.nearest(parts)
        grid = distances.view(-1, height, width)
        maps = upsample_and_smooth(grid, self.transform.output_size, self.config.sigma)
        return self._image_scores(parts, distances, nearest), maps

    def recall(self, batch: torch.Tensor) -> Recall:
        """The bank's nearest patch to every patch of float32 ``[B, 3, H, W]``."""
        parts = self.parts(self.extractor(batch))
        distances, nearest = self.bank.nearest(parts)
        shape = (-1, *parts[0].shape[-2:])
        return Recall(distances.view(shape), nearest.view(shape))

    def without(self, images: Images, left_out: Sequence[int]) -> PatchcoreDetector | None:
        """The detector without some training images (``detector_without``); None where the bank is a selection."""
        config = self.config
        every = config.coreset == "none" or (config.coreset_ratio == 1 and config.coreset_size is None)
        if not every or len(self.bank) % len(images):
            return None
        kept = torch.ones(len(images), dtype=torch.bool, device=self.device)
        kept[list(left_out)] = False
        rows = kept.repeat_interleave(len(self.bank) // len(images))
        return PatchcoreDetector(config, self.extractor, MemoryBank.of(self.bank.centred[rows] + self.bank.mean))

    def grown(self, fitting: Fitting) -> PatchcoreDetector:
        """The detector with more good images (``detector_with``)."""
        bank, origins = grown_bank(fitting, self.config, self.extractor, self.bank, self.origins, self.report.n_train)
        return PatchcoreDetector(self.config, self.extractor, bank, origins)

    def _image_scores(
        self, parts: Sequence[torch.Tensor], distances: torch.Tensor, nearest: torch.Tensor
    ) -> torch.Tensor:
        config = self.config
        if config.image_score == "mean_top_k":
            return distances.topk(min(config.top_k, distances.shape[1]), dim=1).values.mean(dim=1)
        largest = distances.max(dim=1)
        if config.image_score == "max" or config.n_neighbours == 1 or len(self.bank) == 1:
            # Without a neighbour beside the nearest memory itself eq. 7 would be zero for every image.
            return largest.values
        scores = []
        for i in range(len(distances)):
            position = largest.indices[i : i + 1]  # kept as a tensor: an exported graph has no numbers of Python's
            patch = embed([part[i : i + 1] for part in parts]).index_select(0, position)[0] - self.bank.mean
            around = self.bank.neighbours(nearest[i].index_select(0, position), config.n_neighbours)
            scores.append(reweighted(self.bank.distances(patch, around)))
        return torch.stack(scores)


# The designed features average their cells over 3 × 3 already. The mean of the 20 largest of 784 distances is a little
# steadier than the largest alone.
_DESIGNED: Mapping[str, Any] = {**DESIGNED_FEATURES, "patch_size": 1, "image_score": "mean_top_k", "top_k": 20}


class Patchcore(FeatureMethod[PatchcoreConfig]):
    """Patchcore (Roth et al. 2022).

    Cost of ``fit``, with N = images × grid positions patches of D channels, a projection to P dimensions (about
    21·ln N at eps 0.9) and k kept: the features once, 2·N·D·P operations for the projection, at most 2·N·k·P for the
    coreset. Memory: ``4·N·D`` bytes where that fits ``memory_limit``; otherwise only projections are held
    (``(4·P + 20)·N`` bytes, a fifth) and the selected patches are taken in a second pass over the features, which the
    feature cache serves where there is one. Where even the projections do not fit, they are thinned on the way (see
    ``StreamingCoreset``): the only case in which the coreset is not exactly the greedy one; the report notes it.
    """

    name = "patchcore"
    title = "Patchcore"
    paper = "Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022, arXiv:2106.08265"
    Config: ClassVar[type[MethodConfig]] = PatchcoreConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Chosen by measurement on real images (docs/features.md).
        "default": {
            **LEARNED_FEATURES,
            "layers": ("expanded3", "expanded5", "expanded6"),
            "dimensions": 96,
            "transform": {"size": (384, 384), "crop": None},
            "grid_stride": 16,
            "image_score": "mean_top_k",
            "top_k": 6,
        },
        "study": {},
        "designed": _DESIGNED,
    }

    @cached_property
    def extractor(self) -> Extractor:
        found = super().extractor
        return found if self.config.dimensions is None else ReducedExtractor(found, self.config.dimensions)

    def blank_extractor(
        self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord], prefix: str = "extractor."
    ) -> Extractor:
        dimensions = self.config.dimensions
        if dimensions is None:
            return super().blank_extractor(shapes, weights, prefix)
        return ReducedExtractor.blank(super().blank_extractor(shapes, weights, f"{prefix}base."), dimensions)

    def learn(self, fitting: Fitting) -> PatchcoreDetector:
        extractor = fitting.adapted(self.extractor)
        return PatchcoreDetector(self.config, extractor, *Filling(fitting, self.config, extractor).run())

    def blank(self, shapes: Mapping[str, Sequence[int]], weights: Sequence[WeightsRecord]) -> PatchcoreDetector:
        extractor = self.blank_extractor(shapes, weights)
        channels = dimension(self.config, extractor.channels)
        rows = max(1, next(iter(shapes.get("bank.centred", ())), 1))
        return PatchcoreDetector(self.config, extractor, MemoryBank(torch.zeros(rows, channels), torch.zeros(channels)))


def reweighted(distances: torch.Tensor) -> torch.Tensor:
    """Image score of eq. 7.

    ``s = (1 − exp‖t − m*‖ / Σ_{m ∈ N_b(m*)} exp‖t − m‖) · ‖t − m*‖`` for the image's most distant patch t, its
    nearest memory m* and the b memories nearest to m*, m* among them. The quotient is formed from logarithms:
    exponentials of distances (tens to hundreds) overflow float32.

    Args:
        distances: ``[b]`` distances of t to the memories of N_b(m*), to m* first.
    """
    values = distances.double()
    weight = -torch.expm1(values[0] - values.logsumexp(dim=0))
    return (weight * values[0]).float()
