"""The synthetic line's uncropped scenes, whose parts are at known places."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from andon.data import PrepareOptions, TemplateBox, plan_preparation
from andon.synthetic import mode_of, render, seen_at
from andon.synthetic.knobs import Knobs
from tests.data.preparing.scenes import save

CONNECTOR = (206.0, 196.0)
"""Of the pipe tasks, scene coordinates."""


def test_a_point_is_seen_where_the_rendered_image_shows_it() -> None:
    # The same mark's region in the ground truth: the operator's hand has no fixed place, an unclipped clip has one.
    for index in range(3):
        found = render("pipe_clip", index, "test", "unclipped", seed=3)
        (channel,) = found.channels
        ys, xs = np.nonzero(channel.mask)
        x, y = seen_at("pipe_clip", CONNECTOR, index, "test", seed=3)
        assert xs.min() - 40 < x < xs.max() + 40
        assert ys.min() - 40 < y < ys.max() + 40
    still = {"pose": 0, "drift": 0}
    assert seen_at("pipe_clip", CONNECTOR, 0, knobs=still) == pytest.approx(CONNECTOR, abs=0.1)


def test_two_images_of_one_model_agree_on_where_a_point_is() -> None:
    """By registration of what is around the point: independent of the formula."""
    knobs = Knobs(modes=1, light=0, clutter=0, noise=0)
    one, other = (cv2.cvtColor(render("pipe_staple", i, knobs=knobs).image, cv2.COLOR_RGB2GRAY) for i in (0, 1))
    (x0, y0), (x1, y1) = (seen_at("pipe_staple", CONNECTOR, i, knobs=knobs) for i in (0, 1))
    here = cv2.getRectSubPix(one, (81, 81), (x0, y0))
    there = cv2.getRectSubPix(other, (121, 121), (x1, y1))
    fit = cv2.matchTemplate(there, here, cv2.TM_CCOEFF_NORMED)
    row, column = np.unravel_index(int(fit.argmax()), fit.shape)
    assert abs(row - 20) <= 2
    assert abs(column - 20) <= 2


def test_parts_of_raw_scenes_are_found_within_two_pixels(tmp_path: Path) -> None:
    chosen = [0, 1, 2, 3, 7]
    for index in chosen:
        defect = {3: "unclipped", 7: "operator"}.get(index)
        split = "train" if defect is None else "test"
        image = render("pipe_clip", index, split, defect, raw=True).image
        save(tmp_path / "raw" / ("good" if defect is None else defect) / f"{index}.png", image)
    places = {
        index: seen_at("pipe_clip", CONNECTOR, index, "test" if index in (3, 7) else "train", raw=True)
        for index in chosen
    }
    models = {
        index: mode_of("pipe_clip", index, "test" if index in (3, 7) else "train", 0, Knobs()) for index in chosen
    }
    first = {models[index]: index for index in reversed(chosen) if index not in (3, 7)}
    boxes = [
        TemplateBox(file=f"{i}.png", box=(round(places[i][0] - 119.5), round(places[i][1] - 119.5), 240, 240))
        for i in first.values()
    ]
    made = plan_preparation(
        tmp_path / "raw", PrepareOptions(templates=tuple(boxes), crop=(400, 400), blur=0, search=300)
    )
    checked = 0
    for image in made.images:
        index = int(image.raw.path.stem)
        if models[index] not in first:
            continue
        assert image.place is not None
        assert math.dist(image.place[:2], places[index]) < 2
        checked += 1
    assert checked >= 3
