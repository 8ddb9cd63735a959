"""Frozen extractors by name: ``create_extractor("wide_resnet50_2", ("layer2", "layer3"), "imagenet")``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from andon.core import AndonError, canonical_json
from andon.features.andon_features import NAME as ANDON_FEATURES
from andon.features.andon_features import create_andon_features
from andon.features.base import FeatureExtractor
from andon.features.resnet import ARCHITECTURES, ResNet, blank_resnet, fold_batch_norm
from andon.weights import WeightsRecord
from andon.weights.initialisation import orthogonal_initialisation
from andon.weights.resolution import (
    ALIASES,
    PUBLISHED,
    find_weights,
    load_into,
    random_seed,
    read_state_dict,
    split_hash,
    state_dict_sha256,
)

__all__ = ["ResNetExtractor", "create_extractor", "extractor_fingerprint"]


def extractor_fingerprint(backbone: str, stages: Sequence[object], weights: WeightsRecord) -> str:
    """Hash of what decides an extractor's output, 16 hexadecimal digits; features are cached under it."""
    version = 1  # raise it when the computation changes by more than rounding
    what = canonical_json([version, backbone, [str(s) for s in stages], weights.sha256])
    return hashlib.blake2b(what.encode(), digest_size=8).hexdigest()


class ResNetExtractor:
    """A frozen ResNet up to the last stage asked for, batch norms folded (see ``FeatureExtractor``)."""

    def __init__(self, backbone: str, stages: Sequence[int], network: ResNet, weights: WeightsRecord) -> None:
        architecture = ARCHITECTURES[backbone]
        self.backbone = backbone
        self.stages = tuple(stages)
        self.weights = weights
        self.channels = tuple(architecture.channels[s - 1] for s in self.stages)
        self.strides = tuple(2 ** (s + 1) for s in self.stages)
        self.fingerprint = extractor_fingerprint(backbone, self.stages, weights)
        fold_batch_norm(network).requires_grad_(False)
        self.network: ResNet = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def to(self, device: torch.device | str) -> ResNetExtractor:
        self.network.to(device)
        return self

    @torch.no_grad()
    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # no_grad, not inference_mode: methods that train on these features need tensors that autograd accepts.
        features = self.network.stages(batch.contiguous(memory_format=torch.channels_last), self.stages)
        return tuple(f.contiguous() for f in features)


def _stage_numbers(backbone: str, stages: Sequence[str | int]) -> tuple[int, ...]:
    numbers = []
    for stage in stages:
        text = str(stage).removeprefix("layer")
        if text not in {"1", "2", "3", "4"}:
            raise AndonError(f"backbone {backbone} has no stage {stage!r}; it has layer1, layer2, layer3 and layer4")
        numbers.append(int(text))
    if not numbers or len(set(numbers)) != len(numbers):
        raise AndonError(f"backbone {backbone}: stages must be one or more different ones, not {list(stages)}")
    return tuple(numbers)


def create_extractor(backbone: str, stages: Sequence[str | int], weights: str | Path | None = None) -> FeatureExtractor:
    """Makes a frozen extractor.

    Args:
        backbone: "andon-features" (comes with the package), "resnet18", "resnet34", "resnet50", "wide_resnet50_2", or
            "timm:NAME" (needs ``andon[timm]``).
        stages: "layer1" … "layer4" (or 1 … 4), in the order in which their maps are wanted; "cells" of andon-features.
        weights: "imagenet" (the default: torchvision's first ImageNet-1k weights, as PaDiM's and Patchcore's authors
            used), another published name (``weights.PUBLISHED``), "random" or "random:SEED" (orthogonal; the record
            says ``pretrained=False``), or the path of a .safetensors or .pth file. "#sha256=HEX" may follow a name or
            a path and is then checked. andon-features has only "embedded", its default.

    Raises:
        AndonError: unknown backbone or stage; weights not found, damaged, or of another network.
    """
    if backbone == ANDON_FEATURES:
        return create_andon_features(stages, weights)
    weights = "imagenet" if weights is None else weights
    if backbone.startswith("timm:"):
        from andon.features.timm import create_timm_extractor

        return create_timm_extractor(backbone, stages, weights)
    if backbone not in ARCHITECTURES:
        raise AndonError(
            f"unknown backbone {backbone!r}; known: {', '.join([*ARCHITECTURES, ANDON_FEATURES])} "
            "and, with andon[timm], timm:NAME"
        )
    numbers = _stage_numbers(backbone, stages)
    network = blank_resnet(ARCHITECTURES[backbone], last_stage=max(numbers))
    seed = random_seed(weights)
    if seed is not None:
        orthogonal_initialisation(network, seed)
        digest = state_dict_sha256(network.state_dict())
        record = WeightsRecord(backbone, "random", f"orthogonal, seed {seed}", digest, pretrained=False)
    else:
        name = split_hash(weights)[0]
        path, record = find_weights(backbone, weights, PUBLISHED.get((backbone, ALIASES.get(name, name))))
        load_into(network, read_state_dict(path), path, spare=r"(fc|layer[1-4])\..*")
    return ResNetExtractor(backbone, numbers, network, record)
