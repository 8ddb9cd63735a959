"""ResNet-18/34/50 and Wide-ResNet-50-2 as frozen feature extractors.

Deep residual learning for image recognition (He et al., CVPR 2016; arXiv 1512.03385, Table 1 and Figure 5) and Wide
residual networks (Zagoruyko & Komodakis, BMVC 2016; arXiv 1605.07146), with the stride in the bottleneck's 3×3
convolution. Tensor names and shapes are those of torchvision's and timm's ResNets, so state dicts are interchangeable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from andon._tools.convolution import FrozenConv2d

__all__ = ["ARCHITECTURES", "ResNet", "ResNetArchitecture", "fold_batch_norm"]


@dataclass(frozen=True)
class ResNetArchitecture:
    """What tells one ResNet from another.

    Attributes:
        blocks: residual blocks of each of the four stages.
        bottleneck: three convolutions a block (1×1, 3×3, 1×1 with four times the channels) rather than two.
        width: how much wider the bottleneck's inner convolutions are.
    """

    blocks: tuple[int, int, int, int]
    bottleneck: bool = False
    width: int = 1

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels that each of the four stages gives."""
        return tuple(64 * 2**i * (4 if self.bottleneck else 1) for i in range(4))

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each stage's map in input pixels."""
        return (4, 8, 16, 32)


ARCHITECTURES = {
    "resnet18": ResNetArchitecture((2, 2, 2, 2)),
    "resnet34": ResNetArchitecture((3, 4, 6, 3)),
    "resnet50": ResNetArchitecture((3, 4, 6, 3), bottleneck=True),
    "wide_resnet50_2": ResNetArchitecture((3, 4, 6, 3), bottleneck=True, width=2),
}


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return FrozenConv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class _Block(nn.Module):
    """A residual block: the convolutions' chain conv1, bn1, conv2, … is found by ``convolutions``."""

    def __init__(self, shapes: Sequence[tuple[int, int, int, int]]) -> None:
        super().__init__()
        for i, (inputs, outputs, kernel, stride) in enumerate(shapes, start=1):
            self.add_module(f"conv{i}", _convolution(inputs, outputs, kernel, stride))
            self.add_module(f"bn{i}", nn.BatchNorm2d(outputs))
        self.depth = len(shapes)
        first, last = shapes[0][0], shapes[-1][1]
        stride = max(shape[3] for shape in shapes)
        self.downsample = (
            nn.Sequential(_convolution(first, last, 1, stride), nn.BatchNorm2d(last))
            if stride != 1 or first != last
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x
        for i in range(1, self.depth + 1):
            out = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(out))
            if i < self.depth:
                out = F.relu_(out)
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu_(out.add_(shortcut))


class ResNet(nn.Module):
    """A ResNet's stages; the classifier is there only where ``num_classes`` asks for it.

    Args:
        architecture: a value of ``ARCHITECTURES``.
        last_stage: the last stage that is built, 1..4: later ones cost neither memory nor time.
        num_classes: outputs of the classifier ``fc``; 0 for none (needs the fourth stage).
    """

    def __init__(self, architecture: ResNetArchitecture, last_stage: int = 4, num_classes: int = 0) -> None:
        super().__init__()
        if not 1 <= last_stage <= 4 or (num_classes and last_stage != 4):
            raise ValueError(f"last_stage must be 1..4, and 4 with a classifier, not {last_stage}")
        self.conv1 = _convolution(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.last_stage = last_stage
        channels = 64
        for stage in range(1, last_stage + 1):
            inner = 64 * 2 ** (stage - 1)
            outputs = architecture.channels[stage - 1]
            blocks = []
            for block in range(architecture.blocks[stage - 1]):
                stride = 2 if stage > 1 and block == 0 else 1
                if architecture.bottleneck:
                    wide = inner * architecture.width
                    shapes = [(channels, wide, 1, 1), (wide, wide, 3, stride), (wide, outputs, 1, 1)]
                else:
                    shapes = [(channels, inner, 3, stride), (inner, inner, 3, 1)]
                blocks.append(_Block(shapes))
                channels = outputs
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, num_classes) if num_classes else None

    def stages(self, x: torch.Tensor, wanted: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """Feature maps of the stages ``wanted`` (1..4), in that order; later stages are not computed.

        Args:
            x: float32 ``[B, 3, H, W]``; stage i gives ``[B, channels[i-1], ⌈H/2^(i+1)⌉, ⌈W/2^(i+1)⌉]``.
        """
        x = self.maxpool(F.relu_(self.bn1(self.conv1(x))))
        found = {}
        for stage in range(1, max(wanted) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
            found[stage] = x
        return tuple(found[stage] for stage in wanted)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class logits ``[B, num_classes]``, or without a classifier the last stage's map."""
        (x,) = self.stages(x, [self.last_stage])
        return x if self.fc is None else self.fc(x.mean((2, 3)))


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Folds every batch norm that follows a convolution into it, in place; for evaluation only.

    In evaluation mode a batch norm is an affine map a channel, which the convolution before it can do for nothing: the
    same function, up to rounding, with a pass over memory less. Works on modules whose batch norm comes right after its
    convolution in the order of definition, as everywhere in a ResNet.
    """
    module.eval()
    for parent in list(module.modules()):
        for (name, first), (next_name, second) in pairwise(list(parent.named_children())):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(first, second))
                setattr(parent, next_name, nn.Identity())
    return module
