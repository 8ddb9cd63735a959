"""Andon learns what good parts look like from good images alone, finds the bad ones and shows where they are bad.

>>> import numpy as np
>>> from andon import create_method
>>> images = list(np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8))  # or paths, or samples
>>> detector = create_method("thumbnail-nn").fit(images[:5])
>>> prediction = detector.predict(images)
>>> prediction.image_scores.shape, prediction.anomaly_maps.shape
((6,), (6, 48, 48))
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from andon._tools.faces import lazy_face

if TYPE_CHECKING:
    from andon.benchmark import evaluate
    from andon.core import AndonError
    from andon.data import load_dataset
    from andon.methods import create_method, load

__version__ = "0.1.0"
__all__ = ["AndonError", "create_method", "evaluate", "load", "load_dataset"]

# OpenMP's threads wait for each other by spinning. Beside another busy process that costs many times the work itself: a
# waiting thread takes the processor from the one that is waited for. Read when torch is loaded; who has set it wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# `import andon` (and `andon --help`) does not pay for torch.
__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "andon.benchmark.judge": "evaluate",
        "andon.core": "AndonError",
        "andon.data": "load_dataset",
        "andon.methods": "create_method load",
    },
)
