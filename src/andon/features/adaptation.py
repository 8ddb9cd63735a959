"""Adapting an extractor to a station: a linear projection fitted to its good images, in closed form.

Nearest-neighbour methods weigh every direction of feature space alike, so they drown in those in which good patches
differ anyway. Two covariances say which directions are worth something:

- ``S_r``: of the residual between a good patch and the nearest good patch of *other* images: what such a method sees
  when nothing is wrong;
- ``S_d``: of what a made-up local change (``andon.features.pseudo_defects``) does to a cell's features.

With residuals N(0, S_r) where nothing is wrong and N(0, S_r + S_d) where something is, the log likelihood ratio of a
residual r is, up to a constant, ``½ rᵀ(S_r⁻¹ − (S_r + S_d)⁻¹) r``. In the basis that makes S_r the identity and S_d the
diagonal matrix of the generalised eigenvalues λ, that is ``½ Σ λ/(1 + λ) r²``: Fisher's discriminant directions, each
weighted by ``√(λ/(1 + λ))``. The leading ones are kept, and Euclidean distance is the test.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F

from andon._tools.spacing import evenly_spaced
from andon.core import ProgressCallback, TrainingError, no_progress
from andon.data import Images, Transform
from andon.features.base import Extractor
from andon.features.pseudo_defects import add_pseudo_defect

__all__ = ["RECIPE", "AdaptedExtractor", "Projection", "discriminative_projection", "fit_projection"]

RECIPE = 1
"""Goes up with every change that gives other numbers: projections are cached under it."""
N_COMPONENTS = 32
MAX_IMAGES = 200
"""Good images that are looked at, evenly spaced over all: more change the covariances little."""
N_DEFECTS = 300
_PATCHES = 40_000
"""Good patches that are kept; the memory is 4·C bytes each."""
_DEFECT_CELLS = 20_000
_COVERED = 0.15
"""Part of a cell that a made-up defect must change."""
_QUERIES, _BANK = 16_000, 8_000
_ROUNDS = 2
_RESOLUTION = 0.02
"""Differences of features below this are noise, however little the good images vary (a grey camera's colour channels
do not vary at all). In the features' own units: for andon-features a contrast of 2 %."""
_BATCH = 8


class Projection(NamedTuple):
    """Affine map of features: ``(x − mean) @ matrix``.

    Attributes:
        mean: float32 ``[C]``.
        matrix: float32 ``[C, k]``.
    """

    mean: torch.Tensor
    matrix: torch.Tensor


class AdaptedExtractor(Extractor):
    """A one-stage extractor followed by a projection: float32 ``[B, k, h, w]``."""

    mean: torch.Tensor
    projection: torch.Tensor

    def __init__(self, base: Extractor, projection: Projection) -> None:
        super().__init__()
        self.base = base
        self.register_buffer("mean", projection.mean)
        self.register_buffer("projection", projection.matrix)
        self.channels = (projection.matrix.shape[1],)
        self.strides = base.strides
        self.weights = base.weights

    @property
    def fingerprint(self) -> str:
        digest = hashlib.blake2b(self.base.fingerprint.encode(), digest_size=8)
        for tensor in (self.mean, self.projection):
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        (features,) = self.base(batch)
        # As a 1×1 convolution; the mean goes first, for x·W and mean·W are much larger than their difference.
        kernel = self.projection.T.contiguous()[:, :, None, None]
        return (F.conv2d(features - self.mean[:, None, None], kernel),)

    def adapt(self, images: Images, transform: Transform, **options: Any) -> Extractor:
        return self.base.adapt(images, transform, **options)

    def describe(self) -> str:
        return f"features adapted to the good images: {self.channels[0]} of {self.base.channels[0]} dimensions"


def fit_projection(
    extractor: Extractor,
    images: Images,
    transform: Transform,
    *,
    n_components: int = N_COMPONENTS,
    device: torch.device | str = "cpu",
    progress: ProgressCallback = no_progress,
) -> Projection:
    """Fits the projection of this module to good images.

    Deterministic: which images, patches and made-up defects are used does not depend on a method's seed, so that all
    seeds share one adapted extractor (and its cached features). At least one image; with one alone its own halves
    stand for different images.

    Cost: features of up to 200 images and of 300 made-up defects; ``2·40,000·C²`` operations for a covariance and
    ``2·2·16,000·8,000·C`` for neighbours: about half a minute on one core at 256² and C = 478. Memory: 150 MB.
    """
    rng = np.random.default_rng(20_240_917)
    chosen = evenly_spaced(len(images), MAX_IMAGES)
    shown = [images.resized(int(i), transform) for i in chosen]
    per_image = -(-_PATCHES // len(shown))
    defects_each = -(-N_DEFECTS // len(shown))
    cells_each = -(-_DEFECT_CELLS // (len(shown) * defects_each))
    patches, owners, changes = [], [], []
    for number, image in enumerate(shown):
        fakes = [add_pseudo_defect(image, shown[int(rng.integers(len(shown)))], rng) for _ in range(defects_each)]
        stack = [image, *(changed for changed, _ in fakes)]
        maps = torch.cat(
            [
                extractor(transform.normalise(torch.from_numpy(np.stack(stack[i : i + _BATCH])).to(device)))[0].cpu()
                for i in range(0, len(stack), _BATCH)
            ]
        )
        rows = maps.flatten(2).transpose(1, 2)
        if not bool(rows.isfinite().all()):
            raise TrainingError(f"the features of {images.name(int(chosen[number]))} are not finite")
        keep = torch.from_numpy(rng.permutation(rows.shape[1])[:per_image])
        patches.append(rows[0, keep])
        owners.append(torch.full((len(keep),), number) if len(shown) > 1 else torch.arange(len(keep)) % 2)
        for k, (_, mask) in enumerate(fakes, start=1):
            covered = F.interpolate(torch.from_numpy(mask)[None, None].float(), size=maps.shape[-2:], mode="area")
            cells = torch.nonzero(covered.flatten() > _COVERED).flatten()
            cells = cells[torch.from_numpy(rng.permutation(len(cells))[:cells_each])]
            changes.append(rows[k, cells] - rows[0, cells])
        progress("adaptation", number + 1, len(shown))
    return discriminative_projection(torch.cat(patches), torch.cat(owners), torch.cat(changes), n_components, rng)


def discriminative_projection(
    patches: torch.Tensor,
    owners: torch.Tensor,
    changes: torch.Tensor,
    n_components: int,
    rng: np.random.Generator,
    resolution: float = _RESOLUTION,
) -> Projection:
    """The projection from features alone.

    Args:
        patches: float32 ``[N, C]`` of good patches.
        owners: ``[N]``: which image each is of; neighbours are sought in other images.
        changes: float32 ``[M, C]``: features of changed cells minus those of the cells before.
        n_components: k, at most C.
        resolution: standard deviation, in the features' units, that every channel has at least.
    """
    if len(torch.unique(owners)) < 2:
        raise TrainingError("features cannot be adapted: the images are too small to have two cells")
    mean = patches.mean(dim=0, dtype=torch.float64).float()
    centred = patches - mean
    # Whitening, so that the first round's neighbours do not depend on the channels' units.
    covariance = (centred.T @ centred / len(centred)).double()
    covariance.diagonal().add_(resolution**2)
    scale = covariance.diagonal().sqrt()
    values, vectors = np.linalg.eigh(_shrunk(covariance / scale / scale[:, None], len(centred)).numpy())
    whiten = torch.from_numpy(vectors / np.sqrt(values)) / scale[:, None]
    white = centred @ whiten.float()
    moved = (changes @ whiten.float()).double()
    if len(moved) == 0:
        raise TrainingError("features cannot be adapted: no made-up defect changed any cell; are the images all alike?")

    dimension = white.shape[1]
    noise = resolution**2 * whiten.T @ whiten
    basis = torch.eye(dimension, dtype=torch.float64)
    typical = torch.linalg.vector_norm(moved, dim=1).median()
    for _ in range(_ROUNDS):
        residuals = _residuals(white, owners, basis.float(), rng).double()
        within = _shrunk(residuals.T @ residuals / len(residuals) + noise, len(residuals))
        # Every change counts alike, the glaring ones no more than the faint ones.
        unit = moved * (typical / torch.linalg.vector_norm(moved @ basis, dim=1).clamp(min=1e-6))[:, None]
        between = unit.T @ unit / len(unit)
        eigenvalues, directions = scipy.linalg.eigh(between.numpy(), within.numpy())
        ratio = torch.from_numpy(eigenvalues[::-1].copy()).clamp(min=0)
        basis = torch.from_numpy(directions[:, ::-1].copy()) * (ratio / (1 + ratio)).sqrt()
        typical = torch.linalg.vector_norm(moved @ basis, dim=1).median()
    return Projection(mean, (whiten @ basis[:, :n_components]).float().contiguous())


def _shrunk(covariance: torch.Tensor, n: int) -> torch.Tensor:
    """A covariance ``[C, C]`` of n rows drawn towards a multiple of the identity, by C/(C + n).

    Of n rows at most n directions are known at all; the others must not seem to be free of variation.
    """
    dimension = len(covariance)
    weight = dimension / (dimension + n)
    mean = float(covariance.trace()) / dimension
    return (1 - weight) * covariance + weight * mean * torch.eye(dimension, dtype=covariance.dtype)


def _residuals(
    white: torch.Tensor, owners: torch.Tensor, basis: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    """Patches minus their nearest ones among other images, ``[Q, C]``: images are dealt into queries and bank."""
    distinct = torch.unique(owners)
    order = distinct[torch.from_numpy(rng.permutation(len(distinct)))]
    in_bank = torch.isin(owners, order[: len(order) // 2])
    bank = torch.nonzero(in_bank).flatten()
    queries = torch.nonzero(~in_bank).flatten()
    bank = bank[torch.from_numpy(rng.permutation(len(bank))[:_BANK])]
    queries = queries[torch.from_numpy(rng.permutation(len(queries))[:_QUERIES])]
    memory = white[bank] @ basis
    half_norms = memory.square().sum(dim=1) / 2
    nearest = [
        torch.addmm(half_norms, white[part] @ basis, memory.T, alpha=-1).argmin(dim=1)
        for part in torch.split(queries, 1_000)
    ]
    return white[queries] - white[bank[torch.cat(nearest)]]
