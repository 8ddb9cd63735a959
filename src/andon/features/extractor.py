"""Frozen extractors by name: ``create_extractor("efficientnet_lite0", ("row3", "row5"), "imagenet")``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from andon._tools.networks import unfilled
from andon.core import ConfigError
from andon.features.adaptation import AdaptedExtractor, Projection
from andon.features.andon_features import ANDON_FEATURES, create_andon_features
from andon.features.base import Extractor, extractor_fingerprint
from andon.features.efficientnet import LITE_ARCHITECTURES, EfficientNetLite, LiteArchitecture, LiteStage
from andon.features.resnet import ARCHITECTURES, ResNet, ResNetArchitecture, fold_batch_norm
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


class _StagedExtractor(Extractor):
    """A frozen network up to the last stage asked for, batch norms folded; a subclass is a family of networks."""

    architectures: ClassVar[Mapping[str, ResNetArchitecture | LiteArchitecture]]
    word: ClassVar[str]
    """What stages are called that have a number alone, too."""
    spare: ClassVar[str]
    """Tensors that a published state dict may have left over: later stages and the classifier, which are not built."""

    def __init__(self, backbone: str, stages: Sequence[str], network: nn.Module, weights: WeightsRecord) -> None:
        super().__init__()
        architecture = self.architectures[backbone]
        known = self.known_stages(backbone)
        self.backbone = backbone
        self.stages = tuple(stages)
        self.weights = weights
        places = [list(known).index(stage) for stage in stages]
        self.channels = tuple(architecture.channels[place] for place in places)
        self.strides = tuple(architecture.strides[place] for place in places)
        self._wanted = [known[stage] for stage in stages]
        fold_batch_norm(network).requires_grad_(False)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def known_stages(cls, backbone: str) -> Mapping[str, Any]:
        """By name, in the order of the architecture's channels and strides, what the network calls them."""
        raise NotImplementedError

    @classmethod
    def unfilled_network(cls, backbone: str, stages: Sequence[str]) -> nn.Module:
        """A network up to the last of the stages, whose tensors must be filled before use."""
        raise NotImplementedError

    @classmethod
    def names(cls, backbone: str, stages: Sequence[str | int]) -> tuple[str, ...]:
        """The stages' names.

        Raises:
            ConfigError: there is no such stage, none, or one twice.
        """
        known = cls.known_stages(backbone)
        names = []
        for stage in stages:
            name = str(stage) if str(stage) in known else f"{cls.word}{stage}"
            if name not in known:
                raise ConfigError(f"backbone {backbone} has no stage {stage!r}; it has {', '.join(known)}")
            names.append(name)
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"backbone {backbone}: stages must be one or more different ones, not {list(stages)}")
        return tuple(names)

    @property
    def fingerprint(self) -> str:
        stages = [stage.removeprefix(self.word) for stage in self.stages]
        return extractor_fingerprint(self.backbone, stages, self.weights)

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(f.contiguous() for f in self.maps(batch))

    def maps(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found: tuple[torch.Tensor, ...] = self.network.stages(
            batch.contiguous(memory_format=torch.channels_last), self._wanted
        )
        return found


class ResNetExtractor(_StagedExtractor):
    """A ResNet's stages "layer1" … "layer4"."""

    architectures = ARCHITECTURES
    word = "layer"
    spare = r"(fc|layer[1-4])\..*"

    @classmethod
    def known_stages(cls, backbone: str) -> Mapping[str, int]:
        return {f"layer{number}": number for number in range(1, 5)}

    @classmethod
    def unfilled_network(cls, backbone: str, stages: Sequence[str]) -> ResNet:
        known = cls.known_stages(backbone)
        return unfilled(lambda: ResNet(ARCHITECTURES[backbone], last_stage=max(known[stage] for stage in stages)))


class EfficientNetLiteExtractor(_StagedExtractor):
    """An EfficientNet-Lite's rows "row1" … "row7", and "expanded1" … "expanded6": those that the next block expands."""

    architectures = LITE_ARCHITECTURES
    word = "row"
    spare = r"(_blocks|_conv_head|_bn1|_fc)\..*"

    @classmethod
    def known_stages(cls, backbone: str) -> Mapping[str, LiteStage]:
        stages = LITE_ARCHITECTURES[backbone].stages
        return {f"{'expanded' if stage.expanded else 'row'}{stage.row}": stage for stage in stages}

    @classmethod
    def unfilled_network(cls, backbone: str, stages: Sequence[str]) -> EfficientNetLite:
        known = cls.known_stages(backbone)
        last = max(known[stage] for stage in stages)
        return unfilled(lambda: EfficientNetLite(LITE_ARCHITECTURES[backbone], last))


_FAMILIES: tuple[type[_StagedExtractor], ...] = (EfficientNetLiteExtractor, ResNetExtractor)


def _family(backbone: str) -> type[_StagedExtractor]:
    for family in _FAMILIES:
        if backbone in family.architectures:
            return family
    known = ", ".join([*(name for family in _FAMILIES for name in family.architectures), ANDON_FEATURES])
    raise ConfigError(f"unknown backbone {backbone!r}; known: {known} and, with andon[timm], timm:NAME")


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
    family = _family(backbone)
    names = family.names(backbone, stages)
    return family(backbone, names, family.unfilled_network(backbone, names), record)


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
        stages: "layer1" … "layer4" (or 1 … 4) of a ResNet; "row1" … "row7" (or 1 … 7) of an EfficientNet-Lite, and
            "expanded1" … "expanded6", which are those maps as the next block expands them (ReLU6 of six times as many
            channels); in the order in which they are wanted; "cells" of andon-features.
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
    family = _family(backbone)
    names = family.names(backbone, stages)
    network = family.unfilled_network(backbone, names)
    seed = random_seed(weights)
    if seed is not None:
        record = random_weights(network, backbone, seed)
    else:
        name = split_hash(weights)[0]
        path, record = find_weights(backbone, weights, published_weights(backbone, name))
        load_into(network, read_state_dict(path), path, spare=family.spare)
    return family(backbone, names, network, record)
