"""``andon-features``: the feature extractor that comes with the package. It is designed, not learned.

Two layers of oriented filters with a modulus after each, as in wavelet scattering (Mallat 2012; Bruna & Mallat,
Invariant Scattering Convolution Networks, 2013, arXiv 1203.1513), on an octave pyramid: the same small Gabor kernels
look at every octave, so each costs a quarter of the one before. It has no weights of anybody's, and every operation
is a convolution, a pooling or pointwise, so it exports to ONNX as any backbone does.

The filters alone give several hundred correlated channels of very unequal worth. ``adapt`` fits a linear projection of
them to the good images at hand (see ``andon.features.adaptation``); docs/features.md has the comparison.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from andon.core import ConfigError, ProgressCallback, canonical_json, no_progress
from andon.data import IMAGENET_MEAN, IMAGENET_STD, Images, Transform
from andon.features.adaptation import RECIPE, AdaptedExtractor, Projection, fit_projection
from andon.features.base import Extractor
from andon.weights import WeightsRecord

__all__ = ["ANDON_FEATURES", "STAGE", "AndonFeatures", "FilterBank", "create_andon_features", "gabor_kernels"]

ANDON_FEATURES = "andon-features"
STAGE = "cells"
CELL = 8
"""Side of a cell in input pixels: the stride of the only stage."""
OCTAVES = 5
ORIENTATIONS = 6
_FINEST_LOWPASS = 2
"""Octave from which brightness and colour themselves are taken; the coarsest octave is the other."""
_EPSILON = 0.01
"""In the logarithm of every modulus: contrasts far below 1 % are sensor noise."""
_DARK = 0.05
"""Added to luminance before its logarithm, so that black is not minus infinity and its noise stays small."""
_MULTIPLE = CELL * 2 ** (OCTAVES - 4)
"""Images are padded to a multiple of this, so that every octave halves exactly."""


def gabor_kernels(size: int = 7, wavelength: float = 3.6, sigma: float = 1.6, slant: float = 0.7) -> torch.Tensor:
    """Complex Gabor wavelets at ``ORIENTATIONS`` equally spaced angles: float32 ``[2·ORIENTATIONS, 1, size, size]``.

    First the real (even) parts, then the imaginary (odd) ones; each has mean 0 and the norm 1. An ellipse of
    ``slant`` < 1 is longer along the stripes than across.
    """
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    even, odd = [], []
    for k in range(ORIENTATIONS):
        angle = math.pi * k / ORIENTATIONS
        across = x * math.cos(angle) + y * math.sin(angle)
        along = y * math.cos(angle) - x * math.sin(angle)
        envelope = torch.exp(-(across**2 + (slant * along) ** 2) / (2 * sigma**2))
        wave = envelope * torch.cos(2 * math.pi / wavelength * across)
        even.append(wave - envelope * (wave.sum() / envelope.sum()))
        odd.append(envelope * torch.sin(2 * math.pi / wavelength * across))
    kernels = torch.stack(even + odd)
    norms: torch.Tensor = torch.linalg.vector_norm(kernels, dim=(1, 2), keepdim=True)
    return (kernels / norms)[:, None].float()


class FilterBank(nn.Module):
    """Images to channels of cells: float32 ``[B, 3, H, W]`` (ImageNet normalisation) to ``[B, C, ⌈H/8⌉, ⌈W/8⌉]``.

    On log luminance (a change of light is then an offset, which no Gabor filter sees), in each of five octaves:

    - first order: moduli of 6 Gabor filters, their mean over a cell and, in the finer octaves, their maximum, which
      keeps what is smaller than a cell;
    - the parts brighter and darker than their surroundings (a modulus tells no pit from a speck): mean, maximum;
    - second order: moduli of the same 6 filters on each first-order modulus, in every coarser octave: how edges and
      textures are laid out.

    On two opponent-colour channels: first-order moduli. And brightness and colour themselves at two octaves. Moduli are
    compressed by a logarithm, and every channel is averaged over 3 × 3 cells.
    """

    kernels: torch.Tensor
    lowpass: torch.Tensor
    colour: torch.Tensor
    offset: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernels", gabor_kernels())
        binomial = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("lowpass", (binomial[:, None] * binomial[None, :])[None, None])
        # Luminance, red–green and yellow–blue of images in 0..1, from normalised ones: one 1×1 convolution.
        opponent = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])
        self.register_buffer("colour", (opponent * torch.tensor(IMAGENET_STD))[:, :, None, None])
        self.register_buffer("offset", opponent @ torch.tensor(IMAGENET_MEAN))

    @property
    def channels(self) -> int:
        """C: 478."""
        fine = int(math.log2(CELL))
        first = OCTAVES * (ORIENTATIONS + 2) + fine * (ORIENTATIONS + 2)
        return first + 2 * ORIENTATIONS * (OCTAVES - 1) + 6 + ORIENTATIONS**2 * (OCTAVES * (OCTAVES - 1) // 2)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        height, width = batch.shape[-2:]
        padded = F.pad(batch, (0, -width % _MULTIPLE, 0, -height % _MULTIPLE), mode="replicate")
        grid = (padded.shape[-2] // CELL, padded.shape[-1] // CELL)
        opponents = F.conv2d(padded, self.colour, self.offset)
        light, chroma = torch.log(opponents[:, :1].clamp(min=0) + _DARK), opponents[:, 1:]

        moduli: list[torch.Tensor] = []
        plain: list[torch.Tensor] = []
        first: list[torch.Tensor] = []
        for octave in range(OCTAVES):
            if octave:
                light, chroma = self._halve(light), self._halve(chroma)
                moduli.append(self._to_cells(self._modulus(chroma), octave, grid))
            modulus = self._modulus(light)
            first.append(modulus)
            detail = light - _surround(light)
            responses = torch.cat([modulus, detail.clamp(min=0), (-detail).clamp(min=0)], dim=1)
            moduli.append(self._to_cells(responses, octave, grid))
            if 2**octave < CELL:
                moduli.append(F.max_pool2d(responses, CELL >> octave))
            if octave in (_FINEST_LOWPASS, OCTAVES - 1):
                plain.append(self._to_cells(torch.cat([light, chroma], dim=1), octave, grid))
        for octave, modulus in enumerate(first):
            for coarser in range(octave + 1, OCTAVES):
                modulus = F.avg_pool2d(modulus, 2)
                moduli.append(self._to_cells(self._modulus(modulus), coarser, grid))

        features = torch.cat([torch.log(torch.cat(moduli, dim=1) + _EPSILON), *plain], dim=1)
        rows, columns = -(-height // CELL), -(-width // CELL)
        return F.avg_pool2d(features[..., :rows, :columns], 3, 1, 1, count_include_pad=False)

    def _modulus(self, maps: torch.Tensor) -> torch.Tensor:
        """``[B, C, h, w]`` to the moduli at every orientation, ``[B, C·ORIENTATIONS, h, w]``."""
        batch, channels, height, width = maps.shape
        margin = self.kernels.shape[-1] // 2
        single = F.pad(maps.reshape(batch * channels, 1, height, width), (margin,) * 4, mode="replicate")
        waves = F.conv2d(single, self.kernels)
        power = waves[:, :ORIENTATIONS].square() + waves[:, ORIENTATIONS:].square()
        # The root of exactly 0 has no gradient, for whoever trains through these features.
        return (power + 1e-12).sqrt().view(batch, channels * ORIENTATIONS, height, width)

    def _halve(self, maps: torch.Tensor) -> torch.Tensor:
        """Next octave. The kernel is even: a coarse pixel lies amid the four below it, so cells stay put."""
        kernel = self.lowpass.expand(maps.shape[1], -1, -1, -1)
        return F.conv2d(F.pad(maps, (1, 1, 1, 1), mode="replicate"), kernel, stride=2, groups=maps.shape[1])

    def _to_cells(self, maps: torch.Tensor, octave: int, grid: tuple[int, int]) -> torch.Tensor:
        factor = 2**octave
        if factor < CELL:
            return F.avg_pool2d(maps, CELL // factor)
        return maps if factor == CELL else F.interpolate(maps, size=grid, mode="bilinear", align_corners=False)


def _surround(maps: torch.Tensor) -> torch.Tensor:
    """Mean over 5 × 5 pixels, replicated at the border."""
    return F.avg_pool2d(F.pad(maps, (2, 2, 2, 2), mode="replicate"), 5, stride=1)


class AndonFeatures(Extractor):
    """The filter bank as an ``Extractor`` with one stage, and its adaptation to good images."""

    def __init__(self) -> None:
        super().__init__()
        self.network = FilterBank()
        self.requires_grad_(False).eval()
        self.channels = (self.network.channels,)
        self.strides = (CELL,)
        digest = hashlib.sha256(canonical_json([1, OCTAVES, ORIENTATIONS, CELL, _EPSILON, _DARK]).encode())
        for name, tensor in sorted(self.network.named_buffers()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        self.weights = WeightsRecord(
            ANDON_FEATURES, "embedded", "designed filters, version 1", digest.hexdigest(), licence="Apache-2.0"
        )

    @property
    def fingerprint(self) -> str:
        return hashlib.blake2b(f"{ANDON_FEATURES} {self.weights.sha256}".encode(), digest_size=8).hexdigest()

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.network(batch),)

    def adapt(
        self,
        images: Images,
        transform: Transform,
        *,
        device: torch.device | str = "cpu",
        progress: ProgressCallback = no_progress,
    ) -> AdaptedExtractor:
        """Fits the projection to good images; see ``andon.features.adaptation.fit_projection``.

        Where ``images`` has a cache the projection is kept in it under the images' fingerprints: all seeds, and all
        methods on these features, share it.
        """

        def fitted() -> Projection:
            return fit_projection(self.to(device), images, transform, device=device, progress=progress)

        cache = images.cache
        if cache is None:
            return AdaptedExtractor(self, fitted()).to(device)
        kind = f"projections-{RECIPE}-{self.fingerprint}-{transform.key}"
        prints = "\n".join(images.fingerprint(i) for i in range(len(images)))
        key = hashlib.blake2b(prints.encode(), digest_size=16).hexdigest()
        with cache.lock(kind):
            kept = cache.get(kind, key)
            if kept is None:
                projection = fitted()
                cache.put(kind, key, (projection.mean.numpy(), projection.matrix.numpy()))
            else:
                mean, matrix = (torch.from_numpy(array) for array in kept)
                projection = Projection(mean, matrix)
        return AdaptedExtractor(self, projection).to(device)


def create_andon_features(stages: Sequence[str | int], weights: object = None) -> AndonFeatures:
    """``create_extractor("andon-features", ("cells",), "embedded")``; ConfigError for other stages or weights."""
    if tuple(str(s) for s in stages) != (STAGE,):
        raise ConfigError(
            f"backbone {ANDON_FEATURES} has one stage, {STAGE!r}; set the layers to [{STAGE}], not {list(stages)}"
        )
    if weights not in (None, "embedded"):
        raise ConfigError(
            f"backbone {ANDON_FEATURES} has no weights but its own: set weights to 'embedded', not {str(weights)!r}"
        )
    return AndonFeatures()
