"""What does not count never alarms, in calibration and in inspection alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from andon.core import ConfigError, Prediction, Region
from andon.inspection import Regions, read_regions, train_inspector
from tests.inspection.parts import SMALL, part


def prediction(maps: np.ndarray, region: Region = Region()) -> Prediction:  # noqa: B008
    return Prediction(np.full(len(maps), 99, np.float32), maps.astype(np.float32), region)


def test_scores_come_from_what_counts() -> None:
    maps = np.arange(2 * 4 * 6, dtype=np.float32).reshape(2, 4, 6)
    mask = np.zeros((8, 12), bool)
    mask[:4, :6] = True  # the upper left quarter: rows 0..1, columns 0..2 of the maps
    read = Regions(mask).read(prediction(maps))
    assert read.scores.tolist() == [8.0, 32.0]
    assert read.map_maxima.tolist() == [8.0, 32.0]
    assert read.map_medians.tolist() == [np.median(maps[i, :2, :3]) for i in range(2)]
    everywhere = Regions().read(prediction(maps))
    assert everywhere.scores.tolist() == [99.0, 99.0]
    assert everywhere.map_maxima.tolist() == [23.0, 47.0]


def test_a_crop_sees_its_part_of_the_mask() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:8] = True
    counted = Regions(mask).on_map((2, 2), Region(0.25, 0.25, 0.75, 0.75))
    assert counted is not None
    assert counted.tolist() == [[True, True], [False, False]]
    with pytest.raises(ConfigError, match="no pixel that the method sees"):
        Regions(mask).on_map((2, 2), Region(0.5, 0.5, 1, 1))


def test_masks_and_boxes_are_read(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:10, 5:20] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    boxed = read_regions("5,5,15,5", [], (20, 30)).mask
    np.testing.assert_array_equal(boxed, mask > 0)
    np.testing.assert_array_equal(read_regions(tmp_path / "m.png", [], (20, 30)).mask, mask > 0)
    np.testing.assert_array_equal(read_regions(None, [tmp_path / "m.png"], (20, 30)).mask, mask == 0)
    assert read_regions(None, [], (20, 30)).mask is None
    with pytest.raises(ConfigError, match="no pixel is left"):
        read_regions("5,5,15,5", [tmp_path / "m.png"], (20, 30))
    for box, match in (("5,5,99,5", "does not lie"), ("a,b,c,d", "expected a mask"), ("5,5,0,5", "does not lie")):
        with pytest.raises(ConfigError, match=match):
            read_regions(box, [], (20, 30))
    with pytest.raises(ConfigError, match="the images are 31 × 20"):
        read_regions(tmp_path / "m.png", [], (20, 31))


def test_a_defect_outside_never_alarms() -> None:
    images = [part(seed) for seed in range(8)]
    bad = part(50)
    bad[2:8, 80:92] = 255  # on the ground, right above
    config = SMALL["thumbnail-nn"]
    plain = train_inspector(images, "thumbnail-nn", config=config)
    assert plain.inspect(bad).verdict == "stop"
    part_only = train_inspector(images, "thumbnail-nn", config=config, roi="10,12,66,46")
    verdict = part_only.inspect(bad)
    assert verdict.anomaly_map is not None
    assert verdict.score == verdict.anomaly_map.max()
    # It shows only in what it does to the standardised rest.
    assert verdict.score < plain.inspect(bad).anomaly_map.max() / 2  # type: ignore[union-attr]
    assert part_only.pixel_threshold == part_only.thresholds.stop
    assert all(box.x + box.width <= 78 for box in verdict.boxes)
    on_it = part(51, defect=True)
    assert part_only.inspect(on_it).verdict == "stop"


def test_a_method_without_maps_has_no_regions() -> None:
    with pytest.raises(ConfigError, match="image scores only"):
        Regions(np.ones((4, 4), bool)).read(Prediction(np.ones(1, np.float32), None))
