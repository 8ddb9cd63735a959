from __future__ import annotations

import cv2
import numpy as np
import pytest

from andon.data.matching import Template, grey_of, turned_about, turned_point
from tests.data.preparing.scenes import SCENE, SIDE, scene


def template(x: int = 120, y: int = 90) -> Template:
    grey = grey_of(scene(0, x + 31.5, y + 31.5))
    return Template(grey[y : y + SIDE, x : x + SIDE].copy(), (y, x))


@pytest.mark.parametrize("angle", [0.0, 4.0, -9.0])
@pytest.mark.parametrize(("x", "y"), [(120.0, 80.0), (70.4, 101.7), (170.75, 60.25)])
def test_a_turned_part_is_found_to_a_fraction_of_a_pixel(x: float, y: float, angle: float) -> None:
    image = grey_of(scene(3, x, y, angle=angle))
    found = template(80, 50).locate(image, None, 12.0)
    assert found.x == pytest.approx(x, abs=0.5)
    assert found.y == pytest.approx(y, abs=0.5)
    assert found.angle == pytest.approx(angle, abs=0.5)
    assert found.score > 0.9
    assert found.agreed > 0.5


def test_what_has_moved_within_the_part_does_not_pull_its_place() -> None:
    image = scene(4, 120, 90)
    plain = template(80, 50).locate(grey_of(image), None, 0.0)
    # A quarter of the part shows what lies four pixels further left.
    image[64:88, 92:120] = scene(4, 120, 90)[64:88, 96:124]
    moved = template(80, 50).locate(grey_of(image), None, 0.0)
    assert abs(moved.x - plain.x) < 0.4
    assert abs(moved.y - plain.y) < 0.4


def test_without_the_part_the_score_is_low_and_no_tiles_agree() -> None:
    found = template(80, 50).locate(grey_of(scene(5, 0, 0, missing=True)), None, 6.0)
    assert found.score < 0.6
    assert found.agreed == 0


def test_a_point_turns_as_the_image_does() -> None:
    image = np.zeros((*SCENE, 3), np.uint8)
    cv2.circle(image, (60, 130), 2, (255, 255, 255), -1)
    turned = turned_about(image, 11.0)
    ys, xs = np.nonzero(turned[..., 0] > 100)
    assert turned_point(60, 130, SCENE, 11.0) == pytest.approx((xs.mean(), ys.mean()), abs=0.3)


def test_a_rotation_is_not_looked_for_beyond_its_range() -> None:
    found = template(80, 50).locate(grey_of(scene(3, 120, 80, angle=9.0)), None, 3.0)
    assert abs(found.angle) <= 6.0
