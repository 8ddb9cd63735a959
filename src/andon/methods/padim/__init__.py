"""PaDiM: a patch distribution modelling framework for anomaly detection and localization."""

from andon.methods.padim.method import Padim, PadimConfig

__all__ = ["Padim", "PadimConfig"]
