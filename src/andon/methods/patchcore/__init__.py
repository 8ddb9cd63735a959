"""Patchcore: nearest neighbours of patch features in a coreset of those of good images.

Roth, Pemula, Zepeda, Schölkopf, Brox & Gehler: Towards Total Recall in Industrial Anomaly Detection, CVPR 2022
(arXiv 2106.08265).
"""

from andon.methods.patchcore.config import PatchcoreConfig
from andon.methods.patchcore.method import Patchcore, PatchcoreDetector

__all__ = ["Patchcore", "PatchcoreConfig", "PatchcoreDetector"]
