"""DRÆM: a discriminatively trained reconstruction embedding for surface anomaly detection."""

from andon.methods.draem.method import Draem, DraemConfig

__all__ = ["Draem", "DraemConfig"]
