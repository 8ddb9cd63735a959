"""Contact sheets show what ``render`` gives."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from andon.synthetic.rendering import defect_types, render
from andon.synthetic.sheet import GAP, contact_sheet, write_sheets

TASK = "underbody_screw"


def test_a_row_a_defect_with_two_good_images_before_it_and_its_mask_behind() -> None:
    first = render(TASK, 0, "train", seed=3).image
    height, width = first.shape[:2]
    sheet = contact_sheet(TASK, rows=1, width=width, seed=3)
    rows = len(defect_types(TASK))
    assert sheet.shape == (rows * height + (rows - 1) * GAP, 4 * width + 3 * GAP, 3)
    np.testing.assert_array_equal(sheet[:height, :width], first)
    defective = render(TASK, 0, "test", defect_types(TASK)[0], seed=3)
    np.testing.assert_array_equal(sheet[:height, 2 * (width + GAP) : 2 * (width + GAP) + width], defective.image)
    marked = np.any([channel.mask for channel in defective.channels], axis=0)
    np.testing.assert_array_equal(sheet[:height, 3 * (width + GAP) :].any(axis=2), marked)
    assert (sheet[:height, width : width + GAP] == 255).all()


def test_a_file_a_task(tmp_path: Path) -> None:
    write_sheets(tmp_path / "sheets", (TASK,))
    image = cv2.imread(str(tmp_path / "sheets" / f"{TASK}.jpg"))
    assert image is not None
    assert image.shape == contact_sheet(TASK).shape
