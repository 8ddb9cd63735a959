"""EfficientAD: accurate visual anomaly detection at millisecond-level latencies."""

from andon.methods.efficientad.method import EfficientAd, EfficientAdConfig

__all__ = ["EfficientAd", "EfficientAdConfig"]
