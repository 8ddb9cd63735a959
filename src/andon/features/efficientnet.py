"""EfficientNet-Lite 0, 1 and 2 as frozen feature extractors.

EfficientNet: rethinking model scaling for convolutional neural networks (Tan & Le, ICML 2019; arXiv 1905.11946, Table 1
and section 4) in the "Lite" form of its authors: no squeeze-and-excitation, ReLU6 for swish, and neither the stem, the
first and last row's depth, nor the head is scaled. Tensor names are those of the PyTorch conversions of Google's
checkpoints, so that these load as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from andon._tools.convolution import FrozenConv2d, convolved

__all__ = ["LITE_ARCHITECTURES", "EfficientNetLite", "LiteArchitecture", "LiteStage"]

_BATCH_NORM_EPS = 1e-3
_STEM = 32
_HEAD = 1280


class _Row(NamedTuple):
    """A row of Table 1: blocks of one kind, the first of which may halve the map."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    inputs: int
    outputs: int


_ROWS = (
    _Row(1, 3, 1, 1, 32, 16),
    _Row(2, 3, 2, 6, 16, 24),
    _Row(2, 5, 2, 6, 24, 40),
    _Row(3, 3, 2, 6, 40, 80),
    _Row(3, 5, 1, 6, 80, 112),
    _Row(4, 5, 2, 6, 112, 192),
    _Row(1, 3, 1, 6, 192, 320),
)


class LiteStage(NamedTuple):
    """Where features are taken.

    Attributes:
        row: 1..7.
        expanded: not the row's map itself but what the block behind it makes of it first: a linear map to six times as
            many channels, and ReLU6. Rows 1..6.
    """

    row: int
    expanded: bool = False


class LiteArchitecture(NamedTuple):
    """What tells one EfficientNet-Lite from another: the scaling of section 4.

    Attributes:
        width: factor of the channels, which are then rounded to multiples of 8.
        depth: factor of a row's blocks, rounded up.
        size: side of the images that it was trained on.
    """

    width: float
    depth: float
    size: int

    @property
    def rows(self) -> tuple[_Row, ...]:
        """The seven rows, scaled."""
        last = len(_ROWS) - 1
        return tuple(
            row._replace(
                repeats=row.repeats if i in (0, last) else math.ceil(row.repeats * self.depth),
                inputs=row.inputs if i == 0 else self._channels(row.inputs),
                outputs=self._channels(row.outputs),
            )
            for i, row in enumerate(_ROWS)
        )

    @property
    def stages(self) -> tuple[LiteStage, ...]:
        """The maps of the seven rows, and then the expanded ones of the first six."""
        numbers = range(1, len(_ROWS) + 1)
        return (*(LiteStage(n) for n in numbers), *(LiteStage(n, expanded=True) for n in numbers[:-1]))

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each of the ``stages``."""
        rows = self.rows
        return (*(row.outputs for row in rows), *(a.outputs * b.expansion for a, b in pairwise(rows)))

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each of the ``stages`` in input pixels."""
        strides, stride = [], 2
        for row in _ROWS:
            stride *= row.stride
            strides.append(stride)
        return (*strides, *strides[:-1])

    def _channels(self, channels: int) -> int:
        """Scaled and rounded to a multiple of 8, but never down by more than a tenth."""
        scaled = channels * self.width
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * scaled else rounded


LITE_ARCHITECTURES = {
    "efficientnet_lite0": LiteArchitecture(1.0, 1.0, 224),
    "efficientnet_lite1": LiteArchitecture(1.0, 1.1, 240),
    "efficientnet_lite2": LiteArchitecture(1.1, 1.2, 260),
}


class _SameConv2d(FrozenConv2d):
    """A convolution padded as TensorFlow's SAME: ⌈n/stride⌉ outputs, an odd pixel of padding on the right and bottom.

    At stride 1 that is the usual symmetric padding; at stride 2 on maps of even size it is not, and weights that were
    trained with it give other features where it is left out.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride[0] == 1:
            return super().forward(x)
        # At stride 2 an odd kernel needs k − 1 pixels of padding where the side is odd, as many before as behind, and
        # k − 2 where it is even, one fewer before. A leading row of zeros in the kernel makes up for that one: the same
        # sums without a padded copy of the map, which took a sixth of the network's time.
        height, width = x.shape[-2:]
        weight = F.pad(self.weight, (1 - width % 2, 0, 1 - height % 2, 0))
        padding = self.kernel_size[0] // 2
        return convolved(x, weight, self.bias, (2, 2), (padding, padding), self.groups)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_BATCH_NORM_EPS)


def _relu6(x: torch.Tensor) -> torch.Tensor:
    return F.hardtanh_(x, 0.0, 6.0)


class _Expansion(nn.Module):
    """The first part of a block: each position mapped to more channels, and ReLU6; nothing for as many channels."""

    def __init__(self, inputs: int, inner: int) -> None:
        super().__init__()
        self.expands = inner != inputs
        if self.expands:
            self._expand_conv = _SameConv2d(inputs, inner, 1)
            self._bn0 = _batch_norm(inner)

    def expand(self, x: torch.Tensor) -> torch.Tensor:
        return _relu6(self._bn0(self._expand_conv(x))) if self.expands else x


class _Block(_Expansion):
    """Mobile inverted bottleneck (MBConv): expand, filter each channel by itself, project; no activation at the end."""

    def __init__(self, row: _Row, inputs: int, stride: int) -> None:
        inner = inputs * row.expansion
        super().__init__(inputs, inner)
        self._depthwise_conv = _SameConv2d(inner, inner, row.kernel, stride, groups=inner)
        self._bn1 = _batch_norm(inner)
        self._project_conv = _SameConv2d(inner, row.outputs, 1)
        self._bn2 = _batch_norm(row.outputs)
        self.adds = stride == 1 and inputs == row.outputs

    def finish(self, x: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
        """The block's output, of its input and of that expanded."""
        inner = _relu6(self._bn1(self._depthwise_conv(inner)))
        out: torch.Tensor = self._bn2(self._project_conv(inner))
        if self.adds:
            out = out.add_(x)
        return out


class EfficientNetLite(nn.Module):
    """An EfficientNet-Lite's rows; head and classifier are there only where ``num_classes`` asks for them.

    Args:
        architecture: a value of ``LITE_ARCHITECTURES``.
        last: the last stage that is built: later ones cost neither memory nor time. None for the seventh row.
        num_classes: outputs of the classifier ``_fc``; 0 for none (needs the seventh row).
    """

    def __init__(self, architecture: LiteArchitecture, last: LiteStage | None = None, num_classes: int = 0) -> None:
        super().__init__()
        last = LiteStage(len(_ROWS)) if last is None else last
        if last not in architecture.stages or (num_classes and last.row != len(_ROWS)):
            raise ValueError(f"the last stage must be one of the network's, the seventh row with a classifier: {last}")
        self._conv_stem = _SameConv2d(3, _STEM, 3, 2)
        self._bn0 = _batch_norm(_STEM)
        blocks: list[nn.Module] = []
        self.ends = []
        for row in architecture.rows[: last.row]:
            for i in range(row.repeats):
                first = i == 0
                blocks.append(_Block(row, row.inputs if first else row.outputs, row.stride if first else 1))
            self.ends.append(len(blocks))
        if last.expanded:
            row = architecture.rows[last.row]
            blocks.append(_Expansion(row.inputs, row.inputs * row.expansion))
        self._blocks = nn.ModuleList(blocks)
        self.has_head = num_classes > 0
        if self.has_head:
            self._conv_head = _SameConv2d(architecture.channels[len(_ROWS) - 1], _HEAD, 1)
            self._bn1 = _batch_norm(_HEAD)
            self._fc = nn.Linear(_HEAD, num_classes)

    def stages(self, x: torch.Tensor, wanted: Sequence[LiteStage]) -> tuple[torch.Tensor, ...]:
        """Feature maps of the stages ``wanted``, in that order; later ones are not computed.

        Args:
            x: float32 ``[B, 3, H, W]``; the j-th of the architecture's stages gives
                ``[B, channels[j], ⌈H/strides[j]⌉, ⌈W/strides[j]⌉]``.
        """
        x = _relu6(self._bn0(self._conv_stem(x)))
        found: dict[LiteStage, torch.Tensor] = {}
        row, count = 0, len(set(wanted))
        for number, block in enumerate(self._blocks):
            inner: torch.Tensor = block.expand(x)  # type: ignore[operator]
            if number in self.ends and LiteStage(row, expanded=True) in wanted:
                found[LiteStage(row, expanded=True)] = inner
            if len(found) == count:
                break
            x = block.finish(x, inner)  # type: ignore[operator]
            if number + 1 in self.ends:
                row += 1
                if LiteStage(row) in wanted:
                    found[LiteStage(row)] = x
            if len(found) == count:
                break
        return tuple(found[stage] for stage in wanted)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class logits ``[B, num_classes]``, or without a classifier the last row's map."""
        (x,) = self.stages(x, [LiteStage(len(self.ends))])
        if not self.has_head:
            return x
        out: torch.Tensor = self._fc(_relu6(self._bn1(self._conv_head(x))).mean((2, 3)))
        return out
