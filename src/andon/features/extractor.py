"""Frozen extractors by name: ``create_extractor("efficientnet_lite0", ("row3", "row5"), "imagenet")``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from andon.core import ConfigError
from andon.features.adaptation import AdaptedExtractor, Projection
from andon.features.andon_features import ANDON_FEATURES, create_andon_features
from andon.features.base import Extractor, extractor_fingerprint
from andon.features.efficientnet import LITE_ARCHITECTURES, EfficientNetLite, blank_efficientnet
from andon.features.resnet import ARCHITECTURES, ResNet, blank_resnet, fold_batch_norm
from andon.weights import (
    WeightsRecord,
    check_weights,
    find_weights,
    load_into,
    published_weights,
    random_seed,
    random_weights,
    read_state_dict,
    split_hash,
)

__all__ = [
    "EfficientNetLiteExtractor",
    "ResNetExtractor",
    "blank_extractor",
    "check_extractor_weights",
    "create_extractor",
]


_SPARE = r"(fc|layer[1-4]|_blocks|_conv_head|_bn1|_fc)\..*"
"""Tensors of a state dict that may be left over: later stages and classifiers, which are not built."""


class ResNetExtractor(Extractor):
    """A frozen ResNet up to the last stage asked for, batch norms folded."""

    def __init__(self, backbone: str, stages: Sequence[int], network: ResNet, weights: WeightsRecord) -> None:
        super().__init__()
        architecture = ARCHITECTURES[backbone]
        self.backbone = backbone
        self.stages = tuple(stages)
        self.weights = weights
        self.channels = tuple(architecture.channels[s - 1] for s in self.stages)
        self.strides = tuple(2 ** (s + 1) for s in self.stages)
        fold_batch_norm(network).requires_grad_(False)
        self.network: ResNet = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def fingerprint(self) -> str:
        return extractor_fingerprint(self.backbone, self.stages, self.weights)

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.network.stages(batch.contiguous(memory_format=torch.channels_last), self.stages)
        return tuple(f.contiguous() for f in features)


class EfficientNetLiteExtractor(Extractor):
    """A frozen EfficientNet-Lite up to the last row asked for, batch norms folded."""

    def __init__(self, backbone: str, rows: Sequence[int], network: EfficientNetLite, weights: WeightsRecord) -> None:
        super().__init__()
        architecture = LITE_ARCHITECTURES[backbone]
        self.backbone = backbone
        self.rows = tuple(rows)
        self.weights = weights
        self.channels = tuple(architecture.channels[row - 1] for row in self.rows)
        self.strides = tuple(architecture.strides[row - 1] for row in self.rows)
        fold_batch_norm(network).requires_grad_(False)
        self.network: EfficientNetLite = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def fingerprint(self) -> str:
        return extractor_fingerprint(self.backbone, self.rows, self.weights)

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.network.stages(batch.contiguous(memory_format=torch.channels_last), self.rows)
        return tuple(f.contiguous() for f in features)


def _stage_numbers(backbone: str, stages: Sequence[str | int]) -> tuple[int, ...]:
    word, count = ("row", 7) if backbone in LITE_ARCHITECTURES else ("layer", 4)
    names = [f"{word}{n}" for n in range(1, count + 1)]
    numbers = []
    for stage in stages:
        name = f"{word}{str(stage).removeprefix(word)}"
        if name not in names:
            raise ConfigError(f"backbone {backbone} has no stage {stage!r}; it has {', '.join(names)}")
        numbers.append(names.index(name) + 1)
    if not numbers or len(set(numbers)) != len(numbers):
        raise ConfigError(f"backbone {backbone}: stages must be one or more different ones, not {list(stages)}")
    return tuple(numbers)


def _blank_network(backbone: str, stages: Sequence[str | int]) -> tuple[ResNet | EfficientNetLite, tuple[int, ...]]:
    """The network up to the last of the stages, its parameters empty, and the stages' numbers."""
    if backbone not in ARCHITECTURES and backbone not in LITE_ARCHITECTURES:
        known = ", ".join([*LITE_ARCHITECTURES, *ARCHITECTURES, ANDON_FEATURES])
        raise ConfigError(f"unknown backbone {backbone!r}; known: {known} and, with andon[timm], timm:NAME")
    numbers = _stage_numbers(backbone, stages)
    if backbone in LITE_ARCHITECTURES:
        return blank_efficientnet(LITE_ARCHITECTURES[backbone], last_row=max(numbers)), numbers
    return blank_resnet(ARCHITECTURES[backbone], last_stage=max(numbers)), numbers


def _extractor(
    backbone: str, numbers: Sequence[int], network: ResNet | EfficientNetLite, record: WeightsRecord
) -> Extractor:
    if isinstance(network, EfficientNetLite):
        return EfficientNetLiteExtractor(backbone, numbers, network, record)
    return ResNetExtractor(backbone, numbers, network, record)


def blank_extractor(
    backbone: str, stages: Sequence[str | int], record: WeightsRecord, shapes: Mapping[str, Sequence[int]]
) -> Extractor:
    """An extractor to load a saved state dict into: no weights are looked for.

    Args:
        backbone, stages: as for ``create_extractor``.
        record: where the saved weights were from.
        shapes: of the saved tensors by name; they tell how many dimensions an adapted extractor has.
    """
    if backbone == ANDON_FEATURES:
        base = create_andon_features(stages)
        shape = shapes.get("projection")
        if shape is None or len(shape) != 2:
            return base
        return AdaptedExtractor(base, Projection(torch.zeros(shape[0]), torch.zeros(shape[0], shape[1])))
    if backbone.startswith("timm:"):
        from andon.features.timm import blank_timm_extractor

        return blank_timm_extractor(backbone, stages, record)
    network, numbers = _blank_network(backbone, stages)
    return _extractor(backbone, numbers, network, record)


def check_extractor_weights(backbone: str, weights: str | Path) -> None:
    """Makes sure that an extractor's weights are on this machine, without loading them.

    Raises:
        WeightsError: as for ``create_extractor``, but for what the file holds.
    """
    if backbone == ANDON_FEATURES:
        return
    if backbone.startswith("timm:"):
        from andon.features.timm import refuse_published

        refuse_published(backbone, weights)
    check_weights(backbone, weights)


def create_extractor(backbone: str, stages: Sequence[str | int], weights: str | Path | None = None) -> Extractor:
    """Makes a frozen extractor.

    Args:
        backbone: "efficientnet_lite0" (the default of the package: its weights are installed with it),
            "efficientnet_lite1" and "…2" (weights with ``andon[features]``), "andon-features" (designed, no weights),
            "resnet18", "resnet34", "resnet50", "wide_resnet50_2", or "timm:NAME" (needs ``andon[timm]``).
        stages: "layer1" … "layer4" (or 1 … 4) of a ResNet, "row1" … "row7" of an EfficientNet-Lite, in the order in
            which their maps are wanted; "cells" of andon-features.
        weights: "imagenet" (the default: of ResNets torchvision's first ImageNet-1k weights, as PaDiM's and Patchcore's
            authors used; of EfficientNet-Lite Google's), another published name (``weights.PUBLISHED``), "random" or
            "random:SEED" (orthogonal; the record says ``pretrained=False``), or the path of a .safetensors or .pth
            file. "#sha256=HEX" may follow a name or a path and is then checked. andon-features has only "embedded",
            its default.

    Raises:
        ConfigError: unknown backbone or stage.
        WeightsError: weights not found, damaged, or of another network.
    """
    if backbone == ANDON_FEATURES:
        return create_andon_features(stages, weights)
    weights = "imagenet" if weights is None else weights
    if backbone.startswith("timm:"):
        from andon.features.timm import create_timm_extractor

        return create_timm_extractor(backbone, stages, weights)
    network, numbers = _blank_network(backbone, stages)
    seed = random_seed(weights)
    if seed is not None:
        record = random_weights(network, backbone, seed)
    else:
        name = split_hash(weights)[0]
        path, record = find_weights(backbone, weights, published_weights(backbone, name))
        load_into(network, read_state_dict(path), path, spare=_SPARE)
    return _extractor(backbone, numbers, network, record)
