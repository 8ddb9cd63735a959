"""DSR's trained parts, and the anomalies that it makes in the latent space (Zavrtanik, Kristan & Skočaj, ECCV 2022;
arXiv 2208.01521, section 3; the authors' repository VitjanZ/DSR_anomaly_detection).

Names and shapes of tensors are those of the authors' repository, so its checkpoints load. Every normalisation is an
instance normalisation: no part mixes the images of a batch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional as F

from andon.methods.dsr.codebook import DiscreteLatentModel, ResidualStack, VectorQuantizer

__all__ = [
    "COARSE",
    "FINE",
    "AnomalyDetectionModule",
    "Encoding",
    "ImageReconstructionNetwork",
    "LatentAnomalies",
    "LatentDraws",
    "SubspaceRestrictionModule",
    "UpsamplingModule",
    "encode",
    "latent_anomalies",
    "sample_codes",
]

FINE = 4
"""Pixels a side of an image to one position of the fine level."""
COARSE = 8
"""The same of the coarse level."""
_ROWS = 4096
"""Vectors whose distances to all codes are ranked at a time: 64 MB at 4,096 codes."""


def _convolutions(*channels: int) -> list[nn.Module]:
    """3×3 convolutions from each number of channels to the next, each with instance normalisation and ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.InstanceNorm2d(outputs), nn.ReLU(inplace=True)]
    return layers


def _block(*channels: int) -> nn.Sequential:
    return nn.Sequential(*_convolutions(*channels))


def _up(inputs: int, outputs: int) -> nn.Sequential:
    """Twice the size (bilinear, corners aligned), then a convolution."""
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), *_convolutions(inputs, outputs)
    )


class _FeatureEncoder(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.block1 = _block(channels, width, width)
        self.block2 = _block(width, 2 * width, 2 * width)
        self.block3 = _block(2 * width, 4 * width, 4 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.block1(x), 2)
        x = F.max_pool2d(self.block2(x), 2)
        return cast(torch.Tensor, self.block3(x))


class _FeatureDecoder(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.up2 = _up(4 * width, 2 * width)
        self.db2 = _block(2 * width, 2 * width, 2 * width)
        self.up3 = _up(2 * width, width)
        self.db3 = _block(width, width, width)
        self.fin_out = nn.Sequential(nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.db2(self.up2(x))
        return cast(torch.Tensor, self.fin_out(self.db3(self.up3(x))))


class _FeatureNetwork(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.encoder = _FeatureEncoder(channels, width)
        self.decoder = _FeatureDecoder(channels, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.decoder(self.encoder(x)))


class SubspaceRestrictionModule(nn.Module):
    """Brings codes back to what good parts look like: an encoder–decoder without skips, then the nearest codes.

    Args:
        channels: of the codes.
        width: channels of the first block; doubled twice.
    """

    def __init__(self, channels: int = 128, width: int = 128) -> None:
        super().__init__()
        self.unet = _FeatureNetwork(channels, width)

    def forward(
        self, codes: torch.Tensor, codebook: VectorQuantizer, offset: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``[B, C, h, w]``, sides multiples of 4, to the restored features and their nearest codes, both of its shape.

        Gradients pass straight through the choice of codes.

        Args:
            offset: ``[C, h, w]`` that is added to the restored features; None for the paper's module.
        """
        features = self.unet(codes)
        if offset is not None:
            features = features + offset
        return features, codebook.restrict(features)


class ImageReconstructionNetwork(nn.Module):
    """The object-specific appearance decoder: images from both levels' restored codes.

    Args:
        channels: of both levels' codes together.
        width: channels of the first block; doubled twice.
        bottleneck: channels between the encoding and the decoding half.
        hidden, residual: of the decoding half, as in the general decoder.
    """

    def __init__(
        self, channels: int = 256, width: int = 256, bottleneck: int = 64, hidden: int = 128, residual: int = 64
    ) -> None:
        super().__init__()
        self.block1 = _block(channels, width, 2 * width)
        self.block2 = _block(2 * width, 2 * width, 4 * width)
        self.pre_vq_conv = nn.Conv2d(4 * width, bottleneck, 1)
        self.upblock1 = nn.ConvTranspose2d(bottleneck, bottleneck, 4, stride=2, padding=1)
        self.upblock2 = nn.ConvTranspose2d(bottleneck, bottleneck, 4, stride=2, padding=1)
        self._conv_1 = nn.Conv2d(bottleneck, hidden, 3, padding=1)
        self._residual_stack = ResidualStack(hidden, residual)
        self._conv_trans_1 = nn.ConvTranspose2d(hidden, hidden // 2, 4, stride=2, padding=1)
        self._conv_trans_2 = nn.ConvTranspose2d(hidden // 2, 3, 4, stride=2, padding=1)

    def forward(self, upsampled_top: torch.Tensor, bottom: torch.Tensor) -> torch.Tensor:
        """``[B, C, h, w]`` of both levels at the fine one's resolution to images ``[B, 3, 4h, 4w]``."""
        x = F.max_pool2d(self.block1(torch.cat((upsampled_top, bottom), 1)), 2)
        x = F.max_pool2d(self.block2(x), 2)
        x = F.relu(self.upblock1(self.pre_vq_conv(x)))
        x = F.relu(self.upblock2(x))
        x = self._residual_stack(self._conv_1(x))
        return cast(torch.Tensor, self._conv_trans_2(F.relu(self._conv_trans_1(x))))


class _UnetEncoder(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.block1 = _block(channels, width, width)
        self.block2 = _block(width, 2 * width, 2 * width)
        self.block3 = _block(2 * width, 4 * width, 4 * width)
        self.block4 = _block(4 * width, 4 * width, 4 * width)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        b1 = self.block1(x)
        b2 = self.block2(F.max_pool2d(b1, 2))
        b3 = self.block3(F.max_pool2d(b2, 2))
        return b1, b2, b3, self.block4(F.max_pool2d(b3, 2))


class _UnetDecoder(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.up1 = _up(4 * width, 4 * width)
        self.db1 = _block(8 * width, 4 * width, 4 * width)
        self.up2 = _up(4 * width, 2 * width)
        self.db2 = _block(4 * width, 2 * width, 2 * width)
        self.up3 = _up(2 * width, width)
        self.db3 = _block(2 * width, width, width)
        self.fin_out = nn.Sequential(nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, b1: torch.Tensor, b2: torch.Tensor, b3: torch.Tensor, b4: torch.Tensor) -> torch.Tensor:
        x = self.db1(torch.cat((self.up1(b4), b3), 1))
        x = self.db2(torch.cat((self.up2(x), b2), 1))
        x = self.db3(torch.cat((self.up3(x), b1), 1))
        return cast(torch.Tensor, self.fin_out(x))


class _Unet(nn.Module):
    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.encoder = _UnetEncoder(inputs, width)
        self.decoder = _UnetDecoder(outputs, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.decoder(*self.encoder(x)))


class AnomalyDetectionModule(nn.Module):
    """A U-Net that tells where the two decoders' images differ as they do at anomalies.

    Args:
        width: channels of the first block.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.unet = _Unet(6, 2, width)

    def forward(self, specific: torch.Tensor, general: torch.Tensor) -> torch.Tensor:
        """Object-specific and general images ``[B, 3, H, W]``, sides multiples of 8, to logits ``[B, 2, H, W]``.

        The first channel is for normal, the second for anomalous.
        """
        return cast(torch.Tensor, self.unet(torch.cat((specific, general), 1)))


class UpsamplingModule(nn.Module):
    """A U-Net that refines the detection module's mask, which knows only the latent levels' resolution.

    Args:
        width: channels of the first block.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.unet = _Unet(8, 2, width)

    def forward(self, specific: torch.Tensor, general: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Both images ``[B, 3, H, W]`` and the mask's probabilities ``[B, 2, H, W]`` to logits ``[B, 2, H, W]``."""
        return cast(torch.Tensor, self.unet(torch.cat((specific, general, mask), 1)))


# Anomalies in the latent space (section 3.3)


class Encoding(NamedTuple):
    """What the frozen general model makes of images; h, w are the fine level's sides, H/4 and W/4.

    Attributes:
        fine: features of the fine level before the coarse one joins, ``[B, C, h, w]``.
        coarse: F_lo, coarse features before quantisation, ``[B, C, h/2, w/2]``.
        coarse_codes: indices of Q_lo, int64 ``[B, h/2, w/2]``.
        joined: F_hi, fine features before quantisation, ``[B, C, h, w]``.
        fine_codes: indices of Q_hi, int64 ``[B, h, w]``.
    """

    fine: torch.Tensor
    coarse: torch.Tensor
    coarse_codes: torch.Tensor
    joined: torch.Tensor
    fine_codes: torch.Tensor


def encode(model: DiscreteLatentModel, images: torch.Tensor) -> Encoding:
    """Both levels of images float32 ``[B, 3, H, W]`` in 0..1."""
    fine = model.encode_bottom(images)
    coarse = model.encode_top(fine)
    coarse_codes = model.top.indices(coarse)
    joined = model.join_bottom(fine, model.upsample_top(model.top.look_up(coarse_codes)))
    return Encoding(fine, coarse, coarse_codes, joined, model.bottom.indices(joined))


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
