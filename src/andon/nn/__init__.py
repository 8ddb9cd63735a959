"""Shared torch parts: backbones, weights, features."""
