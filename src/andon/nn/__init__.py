"""Shared torch parts: backbones, weights, features."""

from andon.nn.extractor import create_extractor
from andon.nn.features import FeatureExtractor, WeightsRecord, iterate_features

__all__ = ["FeatureExtractor", "WeightsRecord", "create_extractor", "iterate_features"]
