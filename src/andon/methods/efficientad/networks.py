"""EfficientAD's networks besides the patch description network: the autoencoder, and extractors as teachers."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

from andon._tools.networks import blank, default_weights
from andon.features import Extractor
from andon.methods.efficientad.config import EfficientAdConfig
from andon.methods.efficientad.pdn import PDN, output_centres, output_size

__all__ = ["Autoencoder", "ExtractorTeacher", "Networks", "Teacher", "on_grid"]


class Autoencoder(nn.Module):
    """Section 3.3 and appendix A.1: images float32 ``[B, 3, H, W]`` to ``[B, channels, h, w]``.

    The encoder's last convolution spans all that reaches it, so the bottleneck is one vector for every size of image;
    at 256×256 its kernel is 8×8 and the decoder's sizes are 3, 8, 15, 32, 63 and 127, as in the paper.

    Args:
        image: (H, W).
        grid: (h, w) of the student's output.
        channels: of the teacher.
    """

    def __init__(
        self,
        image: tuple[int, int],
        grid: tuple[int, int],
        channels: int,
        *,
        latent: int = 64,
        width: int = 64,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        encoder: list[nn.Module] = []
        before = 3
        for after in (width // 2, width // 2, width, width, width):
            encoder += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
            before = after
        height, breadth = image
        self.encoder = nn.Sequential(*encoder, nn.Conv2d(width, latent, (height // 32, breadth // 32)))
        decoder: list[nn.Module] = []
        before = latent
        for divisor, less in ((64, 1), (32, 0), (16, 1), (8, 0), (4, 1), (2, 1)):
            size = (max(1, height // divisor - less), max(1, breadth // divisor - less))
            decoder += [
                nn.Upsample(size, mode="bilinear"),
                nn.Conv2d(before, width, 4, padding=2),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
            ]
            before = width
        self.decoder = nn.Sequential(
            *decoder,
            nn.Upsample(grid, mode="bilinear"),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        decoded: torch.Tensor = self.decoder(self.encoder(batch))
        return decoded


class Networks(nn.Module):
    """All that is trained; ``channels`` are the teacher's."""

    def __init__(self, config: EfficientAdConfig, channels: int) -> None:
        super().__init__()
        size = config.transform.output_size
        self.student = PDN(config.size, 2 * channels, width=config.student_width)
        self.autoencoder = Autoencoder(
            size,
            output_size(*size),
            channels,
            latent=config.latent,
            width=config.autoencoder_width,
            dropout=config.dropout,
        )

    @classmethod
    def blank(cls, config: EfficientAdConfig, channels: int) -> Networks:
        """Networks whose weights are to be overwritten."""
        return blank(lambda: cls(config, channels))

    @classmethod
    def initialised(cls, config: EfficientAdConfig, channels: int, seed: int) -> Networks:
        """Networks with PyTorch's default weights, from the seed."""
        networks = cls.blank(config, channels)
        default_weights(networks, seed, bias_first=False)
        return networks


class ExtractorTeacher(nn.Module):
    """A frozen extractor in the place of a patch description network: ``[B, 3, H, W]`` to ``[B, channels, h, w]``.

    Buffers: ``mean`` and ``std``, float32 ``[channels]``, by which outputs are normalised; 0 and 1 at first.

    Args:
        grid: (h, w) of the student's output, to which features are interpolated.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, extractor: Extractor, grid: tuple[int, int]) -> None:
        super().__init__()
        self.extractor, self.grid = extractor, grid
        self.channels = sum(extractor.channels)
        device = next((tensor.device for tensor in (*extractor.parameters(), *extractor.buffers())), None)
        self.register_buffer("mean", torch.zeros(self.channels, device=device))
        self.register_buffer("std", torch.ones(self.channels, device=device))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        image = (batch.shape[2], batch.shape[3])
        parts = [on_grid(stage, image, self.grid) for stage in self.extractor(batch)]
        output = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return output.sub_(self.mean[:, None, None]).div_(self.std[:, None, None])

    @torch.no_grad()
    def merge_normalisation(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """From now on the output is ``(output − mean) / std``, both float32 ``[channels]``; once."""
        self.mean.copy_(mean)
        self.std.copy_(std)


Teacher: TypeAlias = PDN | ExtractorTeacher
"""What the student learns from: ``channels``, the output, and ``merge_normalisation``."""


def on_grid(features: torch.Tensor, image: tuple[int, int], grid: tuple[int, int]) -> torch.Tensor:
    """Features ``[B, C, h, w]`` that cover an image evenly, bilinear at the centres of a PDN's patches."""
    rows, columns = (
        ((output_centres(count) + 0.5) / side * 2 - 1).to(features.device)
        for count, side in zip(grid, image, strict=True)
    )
    places = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
    places = places.expand(features.shape[0], -1, -1, -1)
    return F.grid_sample(features, places, mode="bilinear", padding_mode="border", align_corners=False)
