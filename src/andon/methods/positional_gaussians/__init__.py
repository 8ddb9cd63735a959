"""Positional Gaussians: at every position a shrunk Gaussian of what good images have there, with pose tolerance.

Andon's own method, after PaDiM; docs/methods.md says what it is made of and what each part gives.
"""

from andon.methods.positional_gaussians.config import PositionalGaussiansConfig
from andon.methods.positional_gaussians.method import PositionalGaussians, PositionalGaussiansDetector

__all__ = ["PositionalGaussians", "PositionalGaussiansConfig", "PositionalGaussiansDetector"]
