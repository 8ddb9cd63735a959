"""Contact sheets of the synthetic line: good | defective | mask, a defect a row.

python -m andon.synthetic.sheet FOLDER        writes one JPEG a task
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from andon.core import ImageArray
from andon.synthetic.filters import resized
from andon.synthetic.knobs import Knobs
from andon.synthetic.rendering import TASKS, defect_types, render

__all__ = ["contact_sheet", "write_sheets"]

GAP = 4


def contact_sheet(
    task: str, *, rows: int = 3, width: int = 340, seed: int = 0, knobs: Knobs | None = None
) -> ImageArray:
    """A sheet of a task, RGB uint8: in every row two good images, a defective one, and its mask (a grey a region).

    Args:
        rows: rows; defect types take turns, each is shown at least once.
        width: of one image in pixels.
    """
    types = defect_types(task)
    lines = []
    for row in range(max(rows, len(types))):
        defect = types[row % len(types)]
        good = [render(task, 2 * row + k, "train", seed=seed, knobs=knobs).image for k in range(2)]
        bad = render(task, row, "test", defect, seed=seed, knobs=knobs)
        mask = np.zeros(bad.image.shape, np.uint8)
        for k, channel in enumerate(bad.channels):
            mask[channel.mask] = 255 - 70 * (k % 3)
        lines.append(_row([*good, bad.image, mask], width))
    return np.concatenate(
        [line for pair in lines for line in (pair, np.full((GAP, *pair.shape[1:]), 255, np.uint8))][:-1]
    )


def _row(images: list[ImageArray], width: int) -> ImageArray:
    height = round(width * images[0].shape[0] / images[0].shape[1])
    cells: list[Any] = []
    for image in images:
        small = resized(image.astype(np.float32), (height, width), cv2.INTER_AREA)
        cells += [np.rint(small).astype(np.uint8), np.full((height, GAP, 3), 255, np.uint8)]
    return cast(ImageArray, np.concatenate(cells[:-1], axis=1))


def write_sheets(folder: Path, tasks: tuple[str, ...] = TASKS) -> None:
    """Writes ``<task>.jpg`` for each task."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        sheet = contact_sheet(task)
        cv2.imwrite(str(folder / f"{task}.jpg"), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    write_sheets(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
