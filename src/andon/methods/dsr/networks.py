"""DSR's trained parts (Zavrtanik, Kristan & Skočaj, ECCV 2022; arXiv 2208.01521, section 3).

Names and shapes of tensors are those of the authors' repository, so its checkpoints load. Every normalisation is an
instance normalisation: no part mixes the images of a batch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from andon.methods.dsr.codebook import ResidualStack, VectorQuantizer

__all__ = ["AnomalyDetectionModule", "ImageReconstructionNetwork", "SubspaceRestrictionModule", "UpsamplingModule"]


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
