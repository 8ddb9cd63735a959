"""DSR's discrete latent model: a VQ-VAE-2-like autoencoder with two codebooks (Zavrtanik, Kristan & Skočaj, ECCV 2022;
arXiv 2208.01521, section 3.1; after Razavi, van den Oord & Vinyals 2019, arXiv 1906.00446).

Names and shapes of tensors are those of the published model, "t" (top) being the coarse level, "b" (bottom) the fine
one. Codebooks follow running means of what they are assigned (van den Oord et al. 2017, arXiv 1711.00937, app. A.1).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional as F

from andon._tools.networks import blank
from andon.weights import WeightsRecord, find_part, load_into, random_seed, random_weights

__all__ = [
    "CODES",
    "PART",
    "DiscreteLatentModel",
    "DiscreteLatents",
    "Quantised",
    "ResidualStack",
    "VectorQuantizer",
    "load_discrete_latent_model",
]

PART = "dsr_discrete_latent_model"
CODES = 4096
_HIDDEN = 128
_RESIDUAL = 64
_ROWS = 8192
"""Vectors that are compared with a codebook at a time: 128 MB of distances."""


class Quantised(NamedTuple):
    """What a quantiser gives.

    Attributes:
        values: ``[B, C, h, w]``, each vector replaced by its code; gradients pass straight through.
        commitment: scalar, the commitment loss (already weighted).
        indices: int64 ``[B, h, w]``.
    """

    values: torch.Tensor
    commitment: torch.Tensor
    indices: torch.Tensor


class VectorQuantizer(nn.Module):
    """A codebook that follows the running mean of the vectors assigned to each code.

    The nearest code is found block by block with one matrix product, ‖e‖² − 2·x·e, and looked up by its index: no
    one-hot matrix of positions × codes is made, in training neither (sums a code are scattered).

    Args:
        codes: number of codes.
        channels: of a vector.
        commitment: weight β of the commitment loss.
        decay: γ of the running means.
        revive: a code whose running count falls below this is moved to a vector of the batch at hand; 0 never does
            (the published model). A code that nothing was near at the start is otherwise lost for good.
    """

    def __init__(
        self, codes: int, channels: int, *, commitment: float = 0.25, decay: float = 0.99, revive: float = 0.0
    ) -> None:
        super().__init__()
        self.commitment, self.decay, self.revive, self.epsilon = commitment, decay, revive, 1e-5
        self._embedding = nn.Embedding(codes, channels)
        self._embedding.weight.requires_grad_(False)
        self._ema_w = nn.Parameter(torch.empty(codes, channels), requires_grad=False)
        self._ema_cluster_size: torch.Tensor
        self.register_buffer("_ema_cluster_size", torch.zeros(codes))
        nn.init.normal_(self._ema_w)

    @property
    def codebook(self) -> torch.Tensor:
        """``[codes, channels]``."""
        return self._embedding.weight

    def nearest(self, vectors: torch.Tensor) -> torch.Tensor:
        """Index int64 ``[N]`` of the code nearest to each row of ``[N, channels]`` (Euclidean; the first of equals)."""
        with torch.no_grad():
            half = 0.5 * self.codebook.square().sum(1)
            blocks = [
                torch.addmm(half, block, self.codebook.T, alpha=-1).argmin(1)
                for block in torch.split(vectors.detach(), _ROWS)
            ]
        return torch.cat(blocks)

    def look_up(self, indices: torch.Tensor) -> torch.Tensor:
        """int64 ``[B, h, w]`` to codes ``[B, channels, h, w]``."""
        return F.embedding(indices, self.codebook).permute(0, 3, 1, 2)

    def indices(self, inputs: torch.Tensor) -> torch.Tensor:
        """Indices int64 ``[B, h, w]`` of the nearest codes of ``[B, C, h, w]``."""
        batch, channels, height, width = inputs.shape
        return self.nearest(inputs.permute(0, 2, 3, 1).reshape(-1, channels)).view(batch, height, width)

    def restrict(self, inputs: torch.Tensor) -> torch.Tensor:
        """``[B, C, h, w]``, each vector replaced by the nearest code; gradients pass straight through to ``inputs``.

        For a codebook that is fixed: nothing moves, in training mode neither.
        """
        codes = self.look_up(self.indices(inputs))
        return inputs + (codes - inputs).detach() if inputs.requires_grad else codes

    def forward(self, inputs: torch.Tensor, generator: torch.Generator | None = None) -> Quantised:
        """Quantises ``[B, C, h, w]``; in training mode it also moves the codebook.

        Args:
            generator: chooses the vectors to which unused codes are moved; needed where ``revive`` > 0.
        """
        batch, channels, height, width = inputs.shape
        flat = inputs.permute(0, 2, 3, 1).reshape(-1, channels)
        indices = self.nearest(flat)
        if self.training:
            # The codes of this step are the ones before the update, as their choice was.
            chosen = self.codebook[indices]
            self._follow(flat.detach(), indices, generator)
        else:
            chosen = F.embedding(indices, self.codebook)
        commitment = self.commitment * F.mse_loss(flat, chosen)
        values = chosen.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return Quantised(inputs + (values - inputs).detach(), commitment, indices.view(batch, height, width))

    @torch.no_grad()
    def _follow(self, flat: torch.Tensor, indices: torch.Tensor, generator: torch.Generator | None) -> None:
        codes = len(self.codebook)
        counts = torch.bincount(indices, minlength=codes).to(flat.dtype)
        sums = torch.zeros_like(self._ema_w).index_add_(0, indices, flat)
        size = self._ema_cluster_size.mul_(self.decay).add_(counts, alpha=1 - self.decay)
        self._ema_w.mul_(self.decay).add_(sums, alpha=1 - self.decay)
        # Laplace smoothing keeps the count of an unused code away from zero.
        total = size.sum()
        size.add_(self.epsilon).div_(total + codes * self.epsilon).mul_(total)
        if self.revive > 0:
            self._revive(flat, generator)
        self._embedding.weight.copy_(self._ema_w / self._ema_cluster_size[:, None])

    def _revive(self, flat: torch.Tensor, generator: torch.Generator | None) -> None:
        if generator is None:
            raise ValueError("reviving codes draws vectors: it needs a generator")
        unused = (self._ema_cluster_size < self.revive).nonzero().squeeze(1)
        # Drawn whether needed or not: the generator's state then depends on the step alone.
        order = torch.randperm(len(flat), generator=generator, device=generator.device).to(flat.device)
        unused = unused[: len(order)]
        self._ema_cluster_size[unused] = 2 * self.revive
        self._ema_w[unused] = flat[order[: len(unused)]] * (2 * self.revive)


class _Residual(nn.Module):
    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        # Positions 1 and 3, because the published names count the activations.
        self._block = nn.Sequential(
            nn.Identity(),
            nn.Conv2d(channels, inner, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, channels, 1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The published code's first activation works in place, so its shortcut carries the rectified input; published
        # weights were trained so.
        x = F.relu(x)
        return x + cast(torch.Tensor, self._block(x))


class ResidualStack(nn.Module):
    """Residual blocks with rectified shortcuts, and a ReLU after the last (names of tensors as published)."""

    def __init__(self, channels: int, inner: int, count: int = 2) -> None:
        super().__init__()
        self._layers = nn.ModuleList([_Residual(channels, inner) for _ in range(count)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self._layers:
            x = layer(x)
        return F.relu(x)


class _EncoderBottom(nn.Module):
    def __init__(self, hidden: int, residual: int) -> None:
        super().__init__()
        self._conv_1 = nn.Conv2d(3, hidden // 2, 4, stride=2, padding=1)
        self._conv_2 = nn.Conv2d(hidden // 2, hidden, 4, stride=2, padding=1)
        self._conv_3 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self._residual_stack = ResidualStack(hidden, residual)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self._conv_1(x))
        x = F.relu(self._conv_2(x))
        return cast(torch.Tensor, self._residual_stack(self._conv_3(x)))


class _EncoderTop(nn.Module):
    def __init__(self, hidden: int, residual: int) -> None:
        super().__init__()
        self._conv_1 = nn.Conv2d(hidden, hidden, 4, stride=2, padding=1)
        self._conv_2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self._residual_stack = ResidualStack(hidden, residual)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self._conv_1(x))
        x = F.relu(self._conv_2(x))
        return cast(torch.Tensor, self._residual_stack(x))


class _Decoder(nn.Module):
    def __init__(self, channels: int, hidden: int, residual: int) -> None:
        super().__init__()
        self._conv_1 = nn.Conv2d(channels, hidden, 3, padding=1)
        self._residual_stack = ResidualStack(hidden, residual)
        self._conv_trans_1 = nn.ConvTranspose2d(hidden, hidden // 2, 4, stride=2, padding=1)
        self._conv_trans_2 = nn.ConvTranspose2d(hidden // 2, 3, 4, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self._residual_stack(self._conv_1(x))
        return cast(torch.Tensor, self._conv_trans_2(F.relu(self._conv_trans_1(x))))


class DiscreteLatents(NamedTuple):
    """The model's view of a batch.

    Attributes:
        reconstruction: ``[B, 3, H, W]``, 0..1 where the input was (not clipped).
        top: quantised coarse level, stride 8.
        bottom: quantised fine level, stride 4.
    """

    reconstruction: torch.Tensor
    top: Quantised
    bottom: Quantised


class DiscreteLatentModel(nn.Module):
    """Images float32 ``[B, 3, H, W]`` in 0..1, sides multiples of 8, to two grids of codes and back.

    Args:
        codes: number of codes of each codebook.
        hidden: channels of all levels and of the codes.
        residual: channels inside the residual blocks.
        commitment, decay, revive: see ``VectorQuantizer``.
    """

    def __init__(
        self,
        codes: int = CODES,
        *,
        hidden: int = _HIDDEN,
        residual: int = _RESIDUAL,
        commitment: float = 0.25,
        decay: float = 0.99,
        revive: float = 0.0,
    ) -> None:
        super().__init__()
        self.channels = hidden
        self._encoder_t = _EncoderTop(hidden, residual)
        self._encoder_b = _EncoderBottom(hidden, residual)
        self._pre_vq_conv_bot = nn.Conv2d(2 * hidden, hidden, 1)
        self._pre_vq_conv_top = nn.Conv2d(hidden, hidden, 1)
        self._vq_vae_top = VectorQuantizer(codes, hidden, commitment=commitment, decay=decay, revive=revive)
        self._vq_vae_bot = VectorQuantizer(codes, hidden, commitment=commitment, decay=decay, revive=revive)
        self._decoder_b = _Decoder(2 * hidden, hidden, residual)
        self.upsample_t = nn.ConvTranspose2d(hidden, hidden, 4, stride=2, padding=1)

    @property
    def top(self) -> VectorQuantizer:
        """The coarse codebook (K_lo in the paper)."""
        return self._vq_vae_top

    @property
    def bottom(self) -> VectorQuantizer:
        """The fine codebook (K_hi)."""
        return self._vq_vae_bot

    def encode_bottom(self, batch: torch.Tensor) -> torch.Tensor:
        """Features of the fine level before it knows the coarse one, ``[B, hidden, H/4, W/4]``."""
        return cast(torch.Tensor, self._encoder_b(batch))

    def encode_top(self, features: torch.Tensor) -> torch.Tensor:
        """Coarse features before quantisation (F_lo), ``[B, hidden, H/8, W/8]``, from ``encode_bottom``'s."""
        return cast(torch.Tensor, self._pre_vq_conv_top(self._encoder_t(features)))

    def upsample_top(self, quantised_top: torch.Tensor) -> torch.Tensor:
        """Quantised coarse features at the fine level's resolution."""
        return cast(torch.Tensor, self.upsample_t(quantised_top))

    def join_bottom(self, features: torch.Tensor, upsampled_top: torch.Tensor) -> torch.Tensor:
        """Fine features before quantisation (F_hi), ``[B, hidden, H/4, W/4]``."""
        return cast(torch.Tensor, self._pre_vq_conv_bot(torch.cat((features, upsampled_top), 1)))

    def decode(self, upsampled_top: torch.Tensor, quantised_bottom: torch.Tensor) -> torch.Tensor:
        """The general appearance decoder: images from both levels' codes."""
        return cast(torch.Tensor, self._decoder_b(torch.cat((upsampled_top, quantised_bottom), 1)))

    def forward(self, batch: torch.Tensor, generator: torch.Generator | None = None) -> DiscreteLatents:
        features = self.encode_bottom(batch)
        top = self.top(self.encode_top(features), generator)
        upsampled = self.upsample_top(top.values)
        bottom = self.bottom(self.join_bottom(features, upsampled), generator)
        return DiscreteLatents(self.decode(upsampled, bottom.values), top, bottom)


def load_discrete_latent_model(weights: str | Path) -> tuple[DiscreteLatentModel, WeightsRecord]:
    """The general discrete latent model, frozen and in evaluation mode, and where its weights are from.

    Args:
        weights: "embedded" (comes with the package), "imagenet" (published; of Anomalib's release), "random" or
            "random:SEED" (the record says so), or a file: .safetensors, .pth, .pckl, or the release's .zip.

    Raises:
        AndonError: weights not found, damaged, or of another network.
    """
    model = blank(lambda: DiscreteLatentModel())
    seed = random_seed(weights)
    if seed is not None:
        record = random_weights(model, PART, seed)
    else:
        state, path, record = find_part(PART, weights)
        load_into(model, state, path)
    return model.requires_grad_(False).eval(), record
