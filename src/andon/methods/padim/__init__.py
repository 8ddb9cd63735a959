"""PaDiM: a patch distribution modelling framework for anomaly detection and localization.

Defard, Setkov, Loesch & Audigier, ICPR 2020 workshops (2021); arXiv 2011.08785.
"""

from andon.methods.padim.config import PadimConfig
from andon.methods.padim.method import Padim, PadimDetector

__all__ = ["Padim", "PadimConfig", "PadimDetector"]
