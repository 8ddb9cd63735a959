"""The patch description network, EfficientAD's teacher and student (Batzner, Heckler & König, WACV 2024; arXiv
2303.14535, section 3.1 and the tables of its appendix A.1).

A few convolutions and average poolings: each of its output vectors describes a patch of 33×33 pixels, and none sees
anything else of the image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from andon._tools.networks import blank
from andon.methods._teachers import Sampling
from andon.methods.efficientad import winograd
from andon.weights import WeightsRecord, find_part, load_into, random_seed, random_weights

__all__ = [
    "PDN",
    "RECEPTIVE_FIELD",
    "SAMPLING",
    "STRIDE",
    "TEACHER_CHANNELS",
    "PDNSize",
    "load_teacher",
    "output_size",
    "pdn_state_dict",
]

PDNSize = Literal["small", "medium"]
TEACHER_CHANNELS = 384
RECEPTIVE_FIELD = 33
"""Side of the patch that one output vector describes, in pixels, for both sizes."""
STRIDE = 4
"""Pixels from one output vector to the next."""
SAMPLING = Sampling((RECEPTIVE_FIELD - 1) / 2, STRIDE)
"""Centres of the patches that outputs without padding describe."""


@dataclass(frozen=True)
class _Layer:
    channels: int
    """0 stands for the network's number of output channels."""
    kernel: int
    padding: int
    """With padding; without, all convolutions and poolings are "valid"."""
    pool: bool = False


_LAYERS: Mapping[str, tuple[_Layer, ...]] = {
    "small": (_Layer(128, 4, 3, True), _Layer(256, 4, 3, True), _Layer(256, 3, 1), _Layer(0, 4, 0)),
    "medium": (
        _Layer(256, 4, 3, True),
        _Layer(512, 4, 3, True),
        _Layer(512, 1, 0),
        _Layer(512, 3, 1),
        _Layer(TEACHER_CHANNELS, 4, 0),
        _Layer(0, 1, 0),
    ),
}


class PDN(nn.Module):
    """Images float32 ``[B, 3, H, W]`` (ImageNet-normalised) to ``[B, channels, h, w]``.

    Tensor names are ``conv1.weight`` … as in the published teachers. 256×256 pixels give 56×56 without padding and
    64×64 with it.

    Args:
        size: "small" or "medium".
        channels: 384 for a teacher, 768 for a student. In the medium network the last but one layer has as many
            channels as the last, in the student too.
        padding: as in the teacher's own training; EfficientAD uses the network without.
        width: factor on the channels of the layers before; 1 in the paper.
    """

    def __init__(
        self, size: PDNSize = "small", channels: int = TEACHER_CHANNELS, *, padding: bool = False, width: float = 1.0
    ) -> None:
        super().__init__()
        self.size, self.channels, self.padding = size, channels, padding
        layers = _LAYERS[size]
        widths = [3, *(max(1, round(width * layer.channels)) if layer.channels else channels for layer in layers)]
        if size == "medium":
            widths[-2] = channels
        for number, (layer, (before, after)) in enumerate(zip(layers, pairwise(widths), strict=True), 1):
            padded = layer.padding if padding else 0
            self.add_module(f"conv{number}", nn.Conv2d(before, after, layer.kernel, padding=padded))

    @property
    def last_layer(self) -> nn.Conv2d:
        """The last convolution, after which nothing follows."""
        layer = self.get_submodule(f"conv{len(_LAYERS[self.size])}")
        assert isinstance(layer, nn.Conv2d)
        return layer

    def before_last_layer(self, batch: torch.Tensor) -> torch.Tensor:
        """What the last convolution sees."""
        for number, layer in enumerate(_LAYERS[self.size][:-1], 1):
            convolution = self.get_submodule(f"conv{number}")
            assert isinstance(convolution, nn.Conv2d)
            batch = F.relu(_convolve(batch, convolution), inplace=True)
            if layer.pool:
                batch = F.avg_pool2d(batch, 2, 2, padding=1 if self.padding else 0)
        return batch

    def last_layer_part(self, hidden: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """Output channels first … last-1 of what ``before_last_layer`` gave: only these are computed."""
        layer = self.last_layer
        bias = None if layer.bias is None else layer.bias[first:last]
        return _convolve(hidden, layer, layer.weight[first:last], bias)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return _convolve(self.before_last_layer(batch), self.last_layer)

    @torch.no_grad()
    def merge_normalisation(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Makes the output ``(output − mean) / std``, both float ``[channels]``, by changing the last convolution."""
        layer = self.last_layer
        assert layer.bias is not None
        wide = std.to(layer.weight.device, torch.float64)
        layer.weight.copy_(layer.weight.double() / wide[:, None, None, None])
        layer.bias.copy_((layer.bias.double() - mean.to(wide)) / wide)


def _convolve(
    batch: torch.Tensor, layer: nn.Conv2d, weight: torch.Tensor | None = None, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """``layer``, or with a part of its filters: by minimal filtering where that is faster.

    What is exported or compiled gets the plain convolution: whoever runs it has fast ones of their own.
    """
    if weight is None:
        weight, bias = layer.weight, layer.bias
    if not torch.compiler.is_compiling() and layer.padding == (0, 0) and winograd.worthwhile(batch, weight):
        filters = _frozen_filters(layer) if weight is layer.weight and not weight.requires_grad else None
        return winograd.convolution(batch, weight, bias, filters)
    return F.conv2d(batch, weight, bias, padding=layer.padding)


def _frozen_filters(layer: nn.Conv2d) -> torch.Tensor:
    """Transformed filters of a frozen layer, made once for as long as its weights are not changed."""
    version = (layer.weight.data_ptr(), layer.weight._version)
    known: tuple[tuple[int, int], torch.Tensor] | None = layer.__dict__.get("_transformed")
    if known is None or known[0] != version:
        with torch.inference_mode(False), torch.no_grad():
            known = version, winograd.transformed_filters(layer.weight)
        layer.__dict__["_transformed"] = known
    return known[1]


def output_size(height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of a PDN's output without padding for an image; below 1 where the image is too small."""
    rows, columns = (((side - 3) // 2 - 3) // 2 - 5 for side in (height, width))
    return rows, columns


def load_teacher(size: PDNSize, weights: str | Path) -> tuple[PDN, WeightsRecord]:
    """A frozen teacher, without padding, and where its weights are from.

    Args:
        weights: "imagenet" (published; of Anomalib's release), "random" or "random:SEED" (the record says so), or a
            file: .safetensors (``andon pretrain efficientad-teacher`` writes one), .pth, or the release's .zip. No
            teacher comes with the package.

    Raises:
        WeightsError: not found, damaged, or of another network.
    """
    part = f"efficientad_teacher_{size}"
    network = blank(lambda: PDN(size))
    seed = random_seed(weights)
    if seed is not None:
        record = random_weights(network, part, seed)
    else:
        state, path, record = find_part(part, weights, pdn_state_dict)
        load_into(network, state, path)
    return network.requires_grad_(False).eval(), record


def pdn_state_dict(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A PDN's state dict under this module's names.

    Teachers are also passed around as a plain sequence of layers ("0.weight", "3.weight", …): its weighted layers are
    convolutions in order, which is all that has to be known.
    """
    if not all(re.fullmatch(r"\d+\.(weight|bias)", name) for name in state):
        return dict(state)
    numbers = sorted({int(name.partition(".")[0]) for name in state})
    names = {str(number): f"conv{place}" for place, number in enumerate(numbers, 1)}
    return {f"{names[n.partition('.')[0]]}.{n.partition('.')[2]}": tensor for n, tensor in state.items()}
