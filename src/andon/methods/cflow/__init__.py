"""CFLOW-AD: real-time unsupervised anomaly detection with localization via conditional normalizing flows.

Gudovskiy, Ishizaka & Kozuka, WACV 2022; arXiv 2107.12571. A frozen network gives features at several scales; at each
scale a normalising flow learns how likely a feature vector is at its place in the image. What the paper leaves open
is as in the authors' repository (gudovskiy/cflow-ad).
"""

from andon.methods.cflow.config import CflowConfig
from andon.methods.cflow.method import Cflow, CflowDetector

__all__ = ["Cflow", "CflowConfig", "CflowDetector"]
