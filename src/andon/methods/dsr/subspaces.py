"""DSR's two subspaces (section 3.2): the codes of images, and what the general and the specific path make of them."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import nn

from andon._tools.networks import default_weights
from andon.methods.dsr.codebook import DiscreteLatentModel
from andon.methods.dsr.config import DsrConfig
from andon.methods.dsr.networks import (
    AnomalyDetectionModule,
    ImageReconstructionNetwork,
    SubspaceRestrictionModule,
    UpsamplingModule,
)

__all__ = ["COARSE", "FINE", "DsrNetworks", "Encoding", "Views", "compare", "encode", "render", "restore"]

FINE = 4
"""Pixels a side of an image to one position of the fine level."""
COARSE = 8
"""The same of the coarse level."""


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


class DsrNetworks(nn.Module):
    """All that is trained.

    With ``restriction_mean`` also the buffers ``mean_coarse`` ``[C, H/8, W/8]`` and ``mean_fine`` ``[C, H/4, W/4]``:
    the mean code of each position on good images.

    Args:
        channels: of a code.
    """

    mean_coarse: torch.Tensor | None
    mean_fine: torch.Tensor | None

    def __init__(self, config: DsrConfig, channels: int) -> None:
        super().__init__()
        self.decoder = config.decoder
        height, width = config.transform.output_size
        for name, stride in (("mean_coarse", COARSE), ("mean_fine", FINE)):
            mean = torch.zeros(channels, height // stride, width // stride) if config.restriction_mean else None
            self.register_buffer(name, mean)
        self.restriction_fine = SubspaceRestrictionModule(channels, config.subspace_width)
        self.restriction_coarse = SubspaceRestrictionModule(channels, config.subspace_width)
        if config.decoder == "specific":
            self.reconstruction = ImageReconstructionNetwork(
                2 * channels,
                config.decoder_width,
                config.decoder_bottleneck,
                config.decoder_hidden,
                config.decoder_residual,
            )
        self.detection = AnomalyDetectionModule(config.detection_width)
        if config.upsampling_epochs > 0:
            self.upsampling = UpsamplingModule(config.upsampling_width)

    def render(self, latents: DiscreteLatentModel, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        """The object-specific image of restored codes."""
        if self.decoder == "specific":
            return cast(torch.Tensor, self.reconstruction(latents.upsample_top(coarse), fine))
        with torch.no_grad():
            return render(latents, coarse, fine)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """PyTorch's default weights, from the seed; filters of decoder and detection normal with deviation 0.02."""
        default_weights(self, seed, normal=lambda name: name.startswith(("reconstruction.", "detection.")))
        if self.mean_fine is not None:
            for module in (self.restriction_fine, self.restriction_coarse):
                for parameter in module.unet.decoder.fin_out.parameters():
                    parameter.zero_()


class Views(NamedTuple):
    """What the anomaly is seen in: both decoders' images ``[B, 3, H, W]``, and the mask's probabilities
    ``[B, 2, H, W]``."""

    specific: torch.Tensor
    general: torch.Tensor
    mask: torch.Tensor


def restore(
    latents: DiscreteLatentModel, networks: DsrNetworks, coarse: torch.Tensor, fine: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The object-specific path: codes of both levels to restored features (coarse, fine) and the image of them."""
    coarse_features, coarse_codes = networks.restriction_coarse(coarse, latents.top, networks.mean_coarse)
    fine_features, fine_codes = networks.restriction_fine(fine, latents.bottom, networks.mean_fine)
    return coarse_features, fine_features, networks.render(latents, coarse_codes, fine_codes)


def render(latents: DiscreteLatentModel, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
    """The general path: the image of codes as they are."""
    return latents.decode(latents.upsample_top(coarse), fine)


@torch.no_grad()
def compare(latents: DiscreteLatentModel, networks: DsrNetworks, images: torch.Tensor) -> Views:
    """Both decoders' views of images ``[B, 3, H, W]``, and where they differ (section 3.2)."""
    encoding = encode(latents, images)
    coarse, fine = latents.top.look_up(encoding.coarse_codes), latents.bottom.look_up(encoding.fine_codes)
    general = render(latents, coarse, fine)
    *_, specific = restore(latents, networks, coarse, fine)
    return Views(specific, general, networks.detection(specific, general).softmax(1))
