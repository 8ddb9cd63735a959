"""EfficientAD: accurate visual anomaly detection at millisecond-level latencies.

Batzner, Heckler & König, WACV 2024; arXiv 2303.14535, algorithms 1 and 2 of appendix A. A student learns what a frozen
teacher says of patches of good images, and fails on patches that it has never seen. A second half of the student's
channels learns what an autoencoder, which sees the whole image through a bottleneck, makes of the teacher's output:
where both disagree, parts are in the wrong place or number. Both maps are brought to one scale by quantiles of good
images that were not trained on.
"""

from andon.methods.efficientad.config import EfficientAdConfig
from andon.methods.efficientad.method import EfficientAd, EfficientAdDetector

__all__ = ["EfficientAd", "EfficientAdConfig", "EfficientAdDetector"]
