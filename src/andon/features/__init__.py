"""Frozen feature extractors, their adaptation to good images, and their cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from andon._tools.faces import lazy_face

if TYPE_CHECKING:
    from andon.features.andon_features import ANDON_FEATURES, AndonFeatures
    from andon.features.base import Extractor, iterate_features
    from andon.features.efficientnet import LITE_ARCHITECTURES, EfficientNetLite
    from andon.features.extractor import blank_extractor, check_extractor_weights, create_extractor
    from andon.features.fixed import FixedExtractor
    from andon.features.joined import JoinedExtractor
    from andon.features.reduction import ReducedExtractor
    from andon.features.resnet import ARCHITECTURES, ResNet

__all__ = [
    "ANDON_FEATURES",
    "ARCHITECTURES",
    "LITE_ARCHITECTURES",
    "AndonFeatures",
    "EfficientNetLite",
    "Extractor",
    "FixedExtractor",
    "JoinedExtractor",
    "ReducedExtractor",
    "ResNet",
    "blank_extractor",
    "check_extractor_weights",
    "create_extractor",
    "iterate_features",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "andon.features.andon_features": "ANDON_FEATURES AndonFeatures",
        "andon.features.base": "Extractor iterate_features",
        "andon.features.efficientnet": "LITE_ARCHITECTURES EfficientNetLite",
        "andon.features.extractor": "blank_extractor check_extractor_weights create_extractor",
        "andon.features.fixed": "FixedExtractor",
        "andon.features.joined": "JoinedExtractor",
        "andon.features.reduction": "ReducedExtractor",
        "andon.features.resnet": "ARCHITECTURES ResNet",
    },
)
