"""A tiny data set on disk in MVTec AD's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_tiny(root: Path, *, categories: tuple[str, ...] = ("bolt", "nut"), train: int = 5, good: int = 3) -> Path:
    """Grey noise with a bright square for a defect; types "scratch" (3 images) and "dent" (1)."""
    for number, category in enumerate(categories):
        rng = np.random.default_rng(number)

        def one_image() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
            return rng.integers(100, 130, (24, 20, 3), dtype=np.uint8)  # noqa: B023

        for split, count in (("train", train), ("test", good)):
            for index in range(count):
                save(root / category / split / "good" / f"{index:03d}.png", one_image())
        for defect, count in (("scratch", 3), ("dent", 1)):
            for index in range(count):
                image, mask = one_image(), np.zeros((24, 20), dtype=np.uint8)
                image[6:12, 5:10], mask[6:12, 5:10] = 250, 255
                save(root / category / "test" / defect / f"{index:03d}.png", image)
                save(root / category / "ground_truth" / defect / f"{index:03d}_mask.png", mask)
    return root


def save(path: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
