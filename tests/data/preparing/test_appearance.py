from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from andon.data import DuplicatePair, Fingerprints, appearance_of, blur_limit, duplicate_groups
from andon.data.preparing.duplicates import perceptual_hash, small_copy
from tests.data.preparing.scenes import Bytes, scene

RNG = np.random.default_rng(5)


def shot(seed: int) -> Bytes:
    """A part that stops a few pixels off, on a ground of its own."""
    rng = np.random.default_rng(4000 + seed)
    x, y = rng.normal((120, 90), 3)
    return scene(seed, x, y, angle=float(rng.normal(0, 1.5)))


SHOTS = [shot(seed) for seed in range(40)]


def jpeg(image: Bytes, quality: int) -> Bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=quality)
    return np.asarray(Image.open(out))


def test_exposure_is_the_mean_and_sharpness_does_not_follow_the_gain() -> None:
    image = (SHOTS[0].astype(float) * 0.7).astype(np.uint8)
    brighter = np.clip(image.astype(float) * 1.3 + 5, 0, 255).astype(np.uint8)
    a, b = appearance_of(image), appearance_of(brighter)
    assert a.exposure == pytest.approx(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean(), abs=1e-6)
    assert b.exposure == pytest.approx(1.3 * a.exposure + 5, abs=1)
    assert b.sharpness == pytest.approx(a.sharpness, rel=0.05)
    assert appearance_of(np.full((30, 40, 3), 90, np.uint8)).sharpness == 0


def test_blurred_images_are_below_the_limit_and_no_other() -> None:
    blurred = [cv2.GaussianBlur(SHOTS[k], (0, 0), sigma) for k, sigma in ((3, 1.2), (11, 1.5), (20, 2.5))]
    images = [image for k, image in enumerate(SHOTS) if k not in (3, 11, 20)] + blurred
    sharpness = [appearance_of(image).sharpness for image in images]
    limit = blur_limit(sharpness)
    assert [k for k, value in enumerate(sharpness) if value < limit.least] == [37, 38, 39]
    assert blur_limit(sharpness, 0).least == 0
    assert blur_limit(sharpness[:7]).least == 0
    assert blur_limit([]).least == 0


def test_images_that_are_all_alike_are_not_called_blurred() -> None:
    limit = blur_limit([1.0] * 30 + [0.97, 0.8])
    assert limit.median == pytest.approx(1)
    assert limit.least == pytest.approx(0.6)


def test_planted_near_duplicates_are_found_and_no_other() -> None:
    shots = [small_copy(image) for image in SHOTS]
    assert Fingerprints(shots).pairs() == ()
    copies = {
        4: jpeg(SHOTS[4], 85),
        9: np.clip(SHOTS[9] * 1.06 + 4, 0, 255).astype(np.uint8),
        17: np.clip(SHOTS[17] + RNG.normal(0, 2, SHOTS[17].shape), 0, 255).astype(np.uint8),
        23: np.asarray(Image.fromarray(SHOTS[23]).resize((216, 162)).resize((240, 180))),
        31: SHOTS[31],
    }
    pairs = Fingerprints(shots + [small_copy(image) for image in copies.values()]).pairs()
    assert [(pair.first, pair.second - 40) for pair in pairs] == list(zip(copies, range(5), strict=True))
    assert pairs[-1].correlation == pytest.approx(1, abs=1e-5)


def test_few_or_flat_images_give_no_nonsense() -> None:
    for images in ([], SHOTS[:1], SHOTS[:2], [np.zeros((40, 50, 3), np.uint8), SHOTS[0], SHOTS[1]]):
        assert Fingerprints([small_copy(image) for image in images]).pairs() == ()
    images = [*(np.full((40, 50, 3), value, np.uint8) for value in (10, 200)), SHOTS[0]]
    assert [(p.first, p.second) for p in Fingerprints([small_copy(image) for image in images]).pairs()] == [(0, 1)]


def test_the_hash_is_that_of_the_low_frequencies() -> None:
    one = perceptual_hash(small_copy(SHOTS[0]))
    same = perceptual_hash(small_copy(jpeg(SHOTS[0], 60)))
    other = perceptual_hash(small_copy(np.ascontiguousarray(SHOTS[0][::-1, ::-1])))
    assert (one ^ same).bit_count() <= 6
    assert (one ^ other).bit_count() >= 16


def test_groups_join_what_is_alike_by_way_of_others() -> None:
    pairs = [DuplicatePair(*pair, 1.0) for pair in ((0, 5), (2, 3), (5, 7), (3, 9))]
    assert duplicate_groups(pairs) == ((0, 5, 7), (2, 3, 9))
