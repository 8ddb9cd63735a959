"""CFLOW-AD: real-time unsupervised anomaly detection with localization via conditional normalizing flows."""

from andon.methods.cflow.method import Cflow, CflowConfig

__all__ = ["Cflow", "CflowConfig"]
