"""Frozen feature extractors, their adaptation to good images, and their cache."""

from andon.features.base import AdaptableExtractor, FeatureExtractor, FittedExtractor, iterate_features
from andon.features.extractor import create_extractor

__all__ = ["AdaptableExtractor", "FeatureExtractor", "FittedExtractor", "create_extractor", "iterate_features"]
