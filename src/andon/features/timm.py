"""Any backbone of timm that gives intermediate feature maps, where ``andon[timm]`` is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from andon._tools.networks import blank
from andon.core import ConfigError, WeightsError, listed
from andon.features.base import Extractor, extractor_fingerprint
from andon.weights import (
    WeightsRecord,
    find_weights,
    load_into,
    random_seed,
    random_weights,
    read_state_dict,
    split_hash,
)

__all__ = ["TimmBlocksExtractor", "TimmExtractor", "blank_timm_extractor", "create_timm_extractor"]

_PROBE = 64
"""Side of the image that tells a stage's channels and stride."""


class TimmExtractor(Extractor):
    """A frozen timm model."""

    def __init__(self, backbone: str, indices: Sequence[int], model: nn.Module, weights: WeightsRecord) -> None:
        super().__init__()
        information: Any = model.feature_info
        self.backbone = backbone
        self.weights = weights
        self.indices = list(indices)
        self.channels = tuple(int(information[i]["num_chs"]) for i in self.indices)
        self.strides = tuple(int(information[i]["reduction"]) for i in self.indices)
        self.model = model.eval().requires_grad_(False)

    @property
    def fingerprint(self) -> str:
        return extractor_fingerprint(self.backbone, self.indices, self.weights)

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        model: Any = self.model
        # timm gives the maps in the order of the network, whatever the order of the indices.
        order = sorted(self.indices)
        maps = model.forward_intermediates(batch, indices=order, intermediates_only=True, output_fmt="NCHW")
        by_index = dict(zip(order, maps, strict=True))
        return tuple(by_index[i].float().contiguous() for i in self.indices)


class TimmBlocksExtractor(Extractor):
    """A frozen timm EfficientNet at any stage "blocks.N": ``feature_info`` names only those that a halving follows."""

    def __init__(self, backbone: str, stages: Sequence[int], model: nn.Module, weights: WeightsRecord) -> None:
        super().__init__()
        self.backbone, self.stages, self.weights = backbone, list(stages), weights
        self.model = model.eval().requires_grad_(False)
        tensor = next(model.parameters())
        probe = self(torch.zeros((1, 3, _PROBE, _PROBE), dtype=tensor.dtype, device=tensor.device))
        self.channels = tuple(maps.shape[1] for maps in probe)
        self.strides = tuple(_PROBE // maps.shape[2] for maps in probe)

    @property
    def fingerprint(self) -> str:
        return extractor_fingerprint(self.backbone, [f"blocks.{stage}" for stage in self.stages], self.weights)

    @torch.no_grad()
    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        model: Any = self.model
        x, found = model.bn1(model.conv_stem(batch)), {}
        for number in range(max(self.stages) + 1):
            x = model.blocks[number](x)
            found[number] = x
        return tuple(found[stage].float().contiguous() for stage in self.stages)


def _between(model: nn.Module, stages: Sequence[str | int], names: Sequence[str]) -> list[int] | None:
    """Numbers of an EfficientNet's blocks, where the stages are such and one of them is not in ``feature_info``."""
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential) or not (hasattr(model, "conv_stem") and hasattr(model, "bn1")):
        return None
    known = [f"blocks.{number}" for number in range(len(blocks))]
    if not all(stage in known for stage in stages) or all(stage in names for stage in stages):
        return None
    return _indices("", stages, known)


def _indices(backbone: str, stages: Sequence[str | int], names: Sequence[str]) -> list[int]:
    found = []
    for stage in stages:
        if stage in names:
            found.append(names.index(str(stage)))
        elif str(stage).isdecimal() and int(stage) < len(names):
            found.append(int(stage))
        else:
            raise ConfigError(f"backbone {backbone} has no stage {stage!r}; it has {listed(names)}, or their numbers")
    if not found or len(set(found)) != len(found):
        raise ConfigError(f"backbone {backbone}: stages must be one or more different ones, not {list(stages)}")
    return found


def _blank_model(
    backbone: str, stages: Sequence[str | int]
) -> tuple[nn.Module, list[int], type[TimmExtractor | TimmBlocksExtractor]]:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit torch raises RuntimeError
        raise ConfigError(
            f"backbone {backbone} needs timm, which cannot be imported ({error}): install andon[timm] "
            "and a torchvision that fits the installed torch"
        ) from error
    name = backbone.removeprefix("timm:")
    try:
        model: nn.Module = blank(lambda: timm.create_model(name, pretrained=False, num_classes=0))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"backbone {backbone}: timm cannot make it ({error})") from error
    if not hasattr(model, "forward_intermediates") or not hasattr(model, "feature_info"):
        raise ConfigError(f"backbone {backbone}: this timm gives no intermediate features of it")
    information: Any = model.feature_info
    names = [str(entry["module"]) for entry in information]
    between = _between(model, stages, names)
    if between is not None:
        return model, between, TimmBlocksExtractor
    return model, _indices(backbone, stages, names), TimmExtractor


def blank_timm_extractor(backbone: str, stages: Sequence[str | int], record: WeightsRecord) -> Extractor:
    """A timm extractor to load a saved state dict into; arguments as for ``blank_extractor``."""
    model, indices, kind = _blank_model(backbone, stages)
    return kind(backbone, indices, model, record)


def refuse_published(backbone: str, weights: str | Path) -> None:
    """WeightsError where timm's own download is asked for."""
    if split_hash(weights)[0] == "imagenet":
        raise WeightsError(
            f"backbone {backbone}: no SHA-256 is known for its published weights, so they are not fetched: "
            "download the model's model.safetensors yourself and name the file as the weights"
        )


def create_timm_extractor(backbone: str, stages: Sequence[str | int], weights: str | Path) -> Extractor:
    """Makes a frozen extractor from a timm model.

    Args:
        backbone: "timm:NAME".
        stages: names of timm's ``feature_info`` ("layer2", "blocks.4") or their numbers from 0; of an EfficientNet any
            "blocks.N".
        weights: the path of a file in timm's format, "random" or "random:SEED". "imagenet" is refused: timm's own
            downloads are not checked against a hash that is known beforehand.

    Raises:
        AndonError: timm absent, unknown model or stage, weights not found, damaged, or of another network.
    """
    refuse_published(backbone, weights)
    model, indices, kind = _blank_model(backbone, stages)
    seed = random_seed(weights)
    if seed is not None:
        record = random_weights(model, backbone, seed)
    else:
        path, record = find_weights(backbone, weights, None)
        load_into(model, read_state_dict(path), path, spare=r"(fc|head|classifier)\..*")
    return kind(backbone, indices, model, record)
