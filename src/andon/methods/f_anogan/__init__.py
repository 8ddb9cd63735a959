"""f-AnoGAN: fast unsupervised anomaly detection with generative adversarial networks.

Schlegl, Seeböck, Waldstein, Langs & Schmidt-Erfurth, Medical Image Analysis 54, 2019; doi
10.1016/j.media.2019.01.010. A Wasserstein GAN learns good patches; then an encoder learns what to ask its generator for
(izi_f training). What the generator cannot give back is anomalous. What the paper leaves open is as in the authors'
repository (tSchlegl/f-AnoGAN).
"""

from andon.methods.f_anogan.config import FAnoganConfig
from andon.methods.f_anogan.method import FAnogan, FAnoganDetector

__all__ = ["FAnogan", "FAnoganConfig", "FAnoganDetector"]
