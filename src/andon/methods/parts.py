"""Every learned part that Andon knows by name: what it is for, where it comes from, whether it is on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from andon.core import ConfigError, WeightsError, listed
from andon.features import (
    ANDON_FEATURES,
    ARCHITECTURES,
    LITE_ARCHITECTURES,
    AndonFeatures,
    EfficientNetLite,
    ResNet,
    check_extractor_weights,
)
from andon.methods._patch_teachers import PatchTeacherConfig, check_patch_teacher
from andon.methods.base import FeatureConfig, Method
from andon.methods.dsr.codebook import PART as DSR
from andon.methods.dsr.codebook import DiscreteLatentModel
from andon.methods.dsr.config import DsrConfig
from andon.methods.efficientad.config import EfficientAdConfig
from andon.methods.efficientad.pdn import PDN, pdn_state_dict
from andon.weights import (
    PublishedFile,
    all_published,
    check_state_dict,
    check_weights,
    fetch_weights,
    located,
    published_weights,
    read_state_dict,
)

__all__ = [
    "LearnedPart",
    "PartStatus",
    "check_method_weights",
    "fetch_part",
    "known_parts",
    "part_status",
    "parts_named",
    "verify_part",
]

_OWN = "comes with Andon"
_PURPOSES = {
    "efficientnet_lite0": "Patchcore, PaDiM, CFlow, CS-Flow, Uninformed Students, GCAD: the default features",
    ANDON_FEATURES: "Patchcore, PaDiM, CFlow, EfficientAD's recipe; needs no file",
    "efficientad_teacher_small": "EfficientAD-S",
    "efficientad_teacher_medium": "EfficientAD-M",
    DSR: "DSR",
}


@dataclass(frozen=True)
class LearnedPart:
    """One set of weights that has a name.

    Attributes:
        part: what it is ("wide_resnet50_2").
        name: which weights of it ("tv_in1k"); the option ``weights`` of a method takes it.
        purpose: methods that use it.
        licence: as its publisher states it, "" where it does not.
        origin: address, or "comes with the package".
        sha256: of its preferred file, or of the designed filters.
    """

    part: str
    name: str
    purpose: str
    licence: str
    origin: str
    sha256: str


@dataclass(frozen=True)
class PartStatus:
    """Whether a part is there: ``source`` (cache, package, embedded), ``path``, ``size`` in bytes; None where not.

    A designed part is there without a file.
    """

    part: LearnedPart
    source: str | None
    path: Path | None
    size: int | None


def known_parts() -> list[LearnedPart]:
    """All of them, those of the package first."""
    designed = AndonFeatures().weights
    parts = [
        LearnedPart(ANDON_FEATURES, designed.source, _PURPOSES[ANDON_FEATURES], designed.licence, _OWN, designed.sha256)
    ]
    for (part, name), published in sorted(all_published().items(), key=lambda item: item[0][1] != "embedded"):
        file = published.files[0]
        purpose = _PURPOSES.get(part, "Patchcore, PaDiM, CFlow")
        parts.append(LearnedPart(part, name, purpose, published.licence, _origin(file), file.sha256))
    return parts


def _origin(file: PublishedFile) -> str:
    if file.package is not None:
        return f"package {file.package[0]}"
    return file.url or _OWN


def parts_named(part: str | None = None, name: str | None = None) -> list[LearnedPart]:
    """The known parts of a name (all weights of it, or one); ConfigError where there are none."""
    known = known_parts()
    if part is None:
        return known
    chosen = [p for p in known if p.part == part]
    if not chosen:
        raise ConfigError(f"unknown part {part!r}; known: {listed(dict.fromkeys(p.part for p in known), 20)}")
    if name is not None:
        published = published_weights(part, name)
        wanted = published.name if published else name
        named = [p for p in chosen if p.name == wanted]
        if not named:
            raise ConfigError(f"part {part} has no weights {name!r}; known: {listed(p.name for p in chosen)}")
        return named
    return chosen


def part_status(part: LearnedPart) -> PartStatus:
    """Whether a part is on this machine; nothing is read."""
    if part.part == ANDON_FEATURES:
        return PartStatus(part, "embedded", None, None)
    found = located(part.part, part.name)
    if found is None:
        return PartStatus(part, None, None, None)
    source, path = found
    return PartStatus(part, source, path, path.stat().st_size)


def fetch_part(part: LearnedPart) -> PartStatus:
    """Downloads a part unless it is there, and checks its hash; WeightsError where that cannot be."""
    if part.part != ANDON_FEATURES:
        fetch_weights(part.part, part.name)
    return part_status(part)


def check_method_weights(method: Method[Any]) -> None:
    """Makes sure that the learned parts that a method's ``fit`` needs are on this machine; nothing is loaded.

    Knows the parts of Andon's own methods, and of everybody's on a ``FeatureConfig``.

    Raises:
        WeightsError: a part is not there and cannot be downloaded, or its hash is another.
    """
    match method.config:
        case FeatureConfig(backbone=backbone, weights=weights):
            check_extractor_weights(backbone, weights)
        case EfficientAdConfig(teacher="pdn", size=size, weights=weights):
            check_weights(f"efficientad_teacher_{size}", weights)
        case EfficientAdConfig(teacher=backbone, weights=weights):
            check_extractor_weights(backbone, weights)
        case PatchTeacherConfig(teacher="patch", receptive_fields=fields, weights=weights):
            for field in fields:
                check_patch_teacher(field, weights)
        case PatchTeacherConfig(teacher=backbone, weights=weights):
            check_extractor_weights(backbone, weights)
        case DsrConfig(weights=weights):
            check_weights(DSR, weights)


def verify_part(part: LearnedPart) -> PartStatus:
    """Checks a part that is there: its hash, that it can be read, every tensor's name, shape and values.

    Raises:
        WeightsError: whatever is wrong with it, or that it is not there.
    """
    status = part_status(part)
    if status.source is None:
        raise WeightsError(f"weights {part.name} of {part.part} are not on this machine; get them from {part.origin}")
    if status.path is None:
        return status
    fetch_weights(part.part, part.name)  # it is there: this checks the hash and downloads nothing
    published = published_weights(part.part, part.name)
    assert published is not None
    member = next((file.member for file in published.files if file.member), "")
    state = read_state_dict(status.path, member)
    check_state_dict(_blank(part.part), pdn_state_dict(state), status.path, spare=r"fc\..*")
    return status


def _blank(part: str) -> nn.Module:
    """A part's network without memory."""
    with torch.device("meta"):
        if part in ARCHITECTURES:
            return ResNet(ARCHITECTURES[part])
        if part in LITE_ARCHITECTURES:
            return EfficientNetLite(LITE_ARCHITECTURES[part], num_classes=1000)
        if part == DSR:
            return DiscreteLatentModel()
        return PDN("medium" if part.endswith("medium") else "small")
