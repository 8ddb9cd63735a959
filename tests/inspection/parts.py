"""Parts to inspect: a plate with two holes on a grey ground, noisy; and defects on it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIZE = (72, 96)
"""(height, width)."""
TEST_METHODS = ("thumbnail-nn", "patchcore", "padim")
SMALL: dict[str, dict[str, object]] = {
    "thumbnail-nn": {},
    "patchcore": {
        "backbone": "resnet18",
        "weights": "random:0",
        "layers": ["layer1"],
        "transform": {"size": [64, 64]},
        "coreset_ratio": 0.1,
    },
    "padim": {
        "backbone": "resnet18",
        "weights": "random:0",
        "layers": ["layer1"],
        "transform": {"size": [64, 64]},
        "n_channels": 12,
    },
}
"""Small, and without weights from anywhere."""


def part(seed: int, *, defect: bool = False, angle: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """RGB uint8 ``[72, 96, 3]``; turned counter-clockwise about the middle, degrees, then shifted by (x, y) pixels."""
    rng = np.random.default_rng(seed)
    height, width = SIZE
    big = np.full((height * 4, width * 4, 3), 90, np.uint8)
    cv2.rectangle(big, (100, 80), (284, 208), (170, 160, 150), -1)
    cv2.circle(big, (150, 120), 20, (30, 30, 30), -1)
    cv2.circle(big, (240, 170), 28, (20, 40, 60), -1)
    cv2.line(big, (110, 195), (200, 195), (220, 220, 220), 8)
    if defect:
        cv2.circle(big, (190, 110), 18, (240, 40, 40), -1)
    turn = cv2.getRotationMatrix2D(((width * 4 - 1) / 2, (height * 4 - 1) / 2), angle, 1.0)
    turn[:, 2] += np.asarray(shift) * 4
    big = cv2.warpAffine(big, turn, (width * 4, height * 4), borderMode=cv2.BORDER_REPLICATE)
    small = cv2.resize(big, (width, height), interpolation=cv2.INTER_AREA)
    return (small + rng.normal(0, 4, small.shape)).clip(0, 255).astype(np.uint8)


def save_parts(folder: Path, seeds: range, *, defect: bool = False) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in seeds:
        path = folder / f"{seed:04d}.png"
        Image.fromarray(part(seed, defect=defect)).save(path)
        paths.append(path)
    return paths
