"""EfficientAD's networks besides the patch description network, and extractors as teachers."""

from __future__ import annotations

from typing import TypeAlias

from torch import nn

from andon._tools.networks import blank, default_weights
from andon.features import Extractor
from andon.methods._autoencoder import Autoencoder
from andon.methods._teachers import ExtractorTeacher
from andon.methods.efficientad.config import EfficientAdConfig
from andon.methods.efficientad.pdn import PDN, SAMPLING, output_size

__all__ = ["Networks", "Teacher", "extractor_teacher"]


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


Teacher: TypeAlias = PDN | ExtractorTeacher
"""What the student learns from: ``channels``, the output, and ``merge_normalisation``."""


def extractor_teacher(extractor: Extractor, image: tuple[int, int]) -> ExtractorTeacher:
    """An extractor in the place of a patch description network: its features at the centres of a PDN's patches."""
    return ExtractorTeacher(extractor, output_size(*image), SAMPLING)
