"""Safe decoding of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from andon.core import ImageArray


def read_image(path: Path) -> ImageArray:
    """RGB uint8 ``[H, W, 3]``."""
    return np.asarray(Image.open(path).convert("RGB"))
