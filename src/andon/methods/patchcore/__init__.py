"""Patchcore: nearest neighbours of patch features in a coreset of those of good images."""

from andon.methods.patchcore.method import Patchcore, PatchcoreConfig

__all__ = ["Patchcore", "PatchcoreConfig"]
