"""DSR: a dual subspace re-projection network for surface anomaly detection.

Zavrtanik, Kristan & Skočaj, ECCV 2022; arXiv 2208.01521. An image is put into codes of a codebook that knows images
in general, at two resolutions. One decoder renders any codes (general appearance); another first brings the codes back
to what good parts look like (object-specific appearance); a U-Net learns where the two renderings differ as they do at
anomalies. Anomalies to learn from are made of other codes, so they need no assumption about what defects look like.
What the paper leaves open is as in the authors' repository (VitjanZ/DSR_anomaly_detection).
"""

from andon.methods.dsr.config import DsrConfig
from andon.methods.dsr.method import Dsr, DsrDetector

__all__ = ["Dsr", "DsrConfig", "DsrDetector"]
