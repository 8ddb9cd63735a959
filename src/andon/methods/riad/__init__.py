"""RIAD: reconstruction by inpainting for visual anomaly detection.

Zavrtanik, Kristan & Skočaj, Pattern Recognition 112, 2021; doi 10.1016/j.patcog.2020.107706. A network fills in parts
of an image that were removed; all parts are removed once, and what comes back is what a good part would look like
there. An anomaly is where edges differ. No repository of the authors' is known; what the paper leaves open is as in
public implementations of it (plutoyuxie, taikiinoue45, blaz-r), and the network's blocks are those of the authors'
next method, DRAEM.
"""

from andon.methods.riad.config import RiadConfig
from andon.methods.riad.method import Riad, RiadDetector

__all__ = ["Riad", "RiadConfig", "RiadDetector"]
