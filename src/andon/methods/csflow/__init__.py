"""CS-Flow: fully convolutional cross-scale flows for image-based defect detection.

Rudolph, Wehrbein, Rosenhahn & Wandt, WACV 2022; arXiv 2110.02855. A frozen network sees the image at several sizes; one
normalising flow transforms all the feature maps together, its coupling blocks exchanging what they know between the
scales, and keeps them as maps. What the paper leaves open is as in the authors' repository (marco-rudolph/cs-flow).
"""

from andon.methods.csflow.config import CsflowConfig
from andon.methods.csflow.method import Csflow, CsflowDetector

__all__ = ["Csflow", "CsflowConfig", "CsflowDetector"]
