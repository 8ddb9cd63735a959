"""GCAD: beyond dents and scratches, logical constraints in unsupervised anomaly detection and localization.

Bergmann, Batzner, Fauser, Sattlegger & Steger, International Journal of Computer Vision 130, 2022,
doi:10.1007/s11263-022-01578-9. In the local branch a network regresses what a frozen encoder says of patches: it fails
on structures that no good image has. In the global branch another one regresses an encoder that must put the whole
image through a bottleneck: it disagrees with it where parts are missing, surplus or in the wrong place. The authors
have published no code.
"""

from andon.methods.gcad.config import GcadConfig
from andon.methods.gcad.method import Gcad, GcadDetector

__all__ = ["Gcad", "GcadConfig", "GcadDetector"]
