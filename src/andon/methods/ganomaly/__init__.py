"""GANomaly: semi-supervised anomaly detection via adversarial training.

Akcay, Atapour-Abarghouei & Breckon, ACCV 2018 (proceedings 2019); arXiv 1805.06725. An autoencoder learns to give good
patches back so that a discriminator cannot tell; a second encoder learns what the first said of the original, and where
the two disagree the patch is anomalous. What the paper leaves open is as in the authors' repository
(samet-akcay/ganomaly).
"""

from andon.methods.ganomaly.config import GanomalyConfig
from andon.methods.ganomaly.method import Ganomaly, GanomalyDetector

__all__ = ["Ganomaly", "GanomalyConfig", "GanomalyDetector"]
