"""Raw scenes: clutter, and a part in it at a known place."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

SCENE = (180, 240)
"""(height, width)."""
SIDE = 64
"""Of the part."""
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def part(model: int = 0) -> Bytes:
    """RGB uint8 ``[64, 64, 3]``: blobs and lines, of two models."""
    rng = np.random.default_rng(100 + model)
    small = rng.integers(20, 236, (16, 16), dtype=np.uint8)
    grey = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return np.repeat(np.asarray(grey, np.uint8)[..., None], 3, axis=2)


def scene(
    seed: int, x: float, y: float, *, model: int = 0, angle: float = 0.0, missing: bool = False, spot: bool = False
) -> Bytes:
    """RGB uint8 ``[180, 240, 3]`` with the part's middle at (x, y), turned counter-clockwise by degrees."""
    rng = np.random.default_rng(seed)
    height, width = SCENE
    ground = cv2.resize(rng.integers(90, 140, (5, 6), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    image = np.repeat(np.asarray(ground, np.float32)[..., None], 3, axis=2)
    if not missing:
        shown = part(model).astype(np.float32)
        if spot:
            cv2.circle(shown, (20, 44), 6, (250.0, 40.0, 30.0), -1)
        turn = cv2.getRotationMatrix2D(((SIDE - 1) / 2, (SIDE - 1) / 2), angle, 1.0)
        turn[:, 2] += np.asarray([x, y]) - (SIDE - 1) / 2
        inside = cv2.warpAffine(np.ones((SIDE, SIDE), np.float32), turn, (width, height))[..., None]
        image = image * (1 - inside) + cv2.warpAffine(shown, turn, (width, height), borderMode=cv2.BORDER_REPLICATE) * (
            inside
        )
    image = image * rng.uniform(0.9, 1.1) + rng.normal(0, 2.0, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def save(path: Path, image: Bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, compress_level=1)
    return path


def digest(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder, and its time of change."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() + str(path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
