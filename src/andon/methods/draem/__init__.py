"""DRÆM: a discriminatively trained reconstruction embedding for surface anomaly detection.

Zavrtanik, Kristan & Skočaj, ICCV 2021; arXiv 2108.07610. One network learns to give an image back as good where an
artificial anomaly was put into it; a second one sees image and reconstruction, and learns to say where the anomaly
was. What the paper leaves open is as in the authors' repository (VitjanZ/DRAEM).
"""

from andon.methods.draem.config import DraemConfig
from andon.methods.draem.method import Draem, DraemDetector

__all__ = ["Draem", "DraemConfig", "DraemDetector"]
