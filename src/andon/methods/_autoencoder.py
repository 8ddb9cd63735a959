"""An autoencoder that sees the whole image through a bottleneck of one vector, and answers on a grid of descriptors.

EfficientAD's (Batzner, Heckler & König, WACV 2024; arXiv 2303.14535); GCAD's global encoder is built alike.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Autoencoder"]


class Autoencoder(nn.Module):
    """Section 3.3 and appendix A.1 of EfficientAD: images float32 ``[B, 3, H, W]`` to ``[B, channels, h, w]``.

    The encoder's last convolution spans all that reaches it, so the bottleneck is one vector for every size of image;
    at 256×256 its kernel is 8×8 and the decoder's sizes are 3, 8, 15, 32, 63 and 127, as in the paper.

    Args:
        image: (H, W).
        grid: (h, w) of the output.
        channels: of the output.
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
