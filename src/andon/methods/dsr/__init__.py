"""DSR: a dual subspace re-projection network for surface anomaly detection."""

from andon.methods.dsr.method import Dsr, DsrConfig

__all__ = ["Dsr", "DsrConfig"]
