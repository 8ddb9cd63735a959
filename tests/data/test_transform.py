from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from andon.core import Region
from andon.data.cache import ArrayCache
from andon.data.images import Images
from andon.data.transform import IMAGENET_MEAN, IMAGENET_STD, Transform

from .images import gradient, save


def test_resize_is_antialiased_bilinear_then_a_centre_crop() -> None:
    image = gradient(90, 130)
    whole = np.asarray(Image.fromarray(image).resize((32, 24), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(Transform(size=(24, 32)).resize(image), whole)
    np.testing.assert_array_equal(Transform(size=(24, 32), crop=(10, 13)).resize(image), whole[7:17, 9:22])


def test_antialiasing_keeps_the_mean() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    small = Transform(size=(8, 8)).resize(stripes).astype(int)
    assert np.abs(small[:, 1:-1] - 100).max() <= 1
    assert np.abs(small - 100).max() <= 5  # the filter is cut at the border


def test_plain_bilinear_is_opencvs_and_aliases() -> None:
    image = gradient(90, 130)
    plain = Transform(size=(24, 32), antialias=False)
    expected = cv2.resize(image, (32, 24), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(plain.resize(image), expected)
    np.testing.assert_array_equal(
        Transform(size=(24, 32), crop=(10, 13), antialias=False).resize(image), expected[7:17, 9:22]
    )
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)

    def energy(resized: np.ndarray) -> float:
        return float((np.diff(resized.astype(float), axis=1) ** 2).mean())

    assert energy(plain.resize(noise)) > 5 * energy(Transform(size=(24, 32)).resize(noise))


def test_plain_bilinear_of_the_middle_of_four_pixels_is_their_mean() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[1::4, 1::4] = 100  # one of the four pixels around each sample point
    assert (Transform(size=(8, 8), antialias=False).resize(image) == 25).all()


def test_a_file_is_resized_either_way_and_the_cache_keeps_them_apart(tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    path = save(tmp_path / "a.png", image)
    for _ in range(2):  # the second time from the cache
        images = Images([path], cache=ArrayCache(tmp_path / "cache"))
        for antialias in (True, False):
            transform = Transform(size=(16, 16), antialias=antialias)
            np.testing.assert_array_equal(images.resized(0, transform), transform.resize(image))
    assert (Transform(size=(16, 16)).resize(image) != transform.resize(image)).any()


def test_an_option_at_its_default_changes_no_hash() -> None:
    """Experiments and caches of before there was the option."""
    assert (Transform().key, Transform().geometry_key) == ("e8edbbdb5899c80a", "dd89658511dd0f78")
    study = Transform(size=(256, 256), crop=(224, 224))
    assert (study.key, study.geometry_key) == ("1b3dcad7b3085b5a", "be014bd877ad6a05")
    assert Transform().model_dump(mode="json") == {"size": [256, 256], "crop": None, "normalisation": "imagenet"}
    plain = Transform(antialias=False)
    assert plain.key != Transform().key
    assert plain.geometry_key != Transform().geometry_key
    assert Transform.model_validate(plain.model_dump(mode="json")) == plain
    assert Transform.model_validate_json(plain.model_dump_json()) == plain


def test_an_image_of_the_right_size_is_not_copied() -> None:
    image = gradient(24, 32)
    assert np.shares_memory(Transform(size=(24, 32)).resize(image), image)
    crop = Transform(size=(24, 32), crop=(10, 10)).resize(image)
    assert not np.shares_memory(crop, image)
    assert crop.base is None


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 0, 3), np.uint8)])
def test_only_rgb_uint8(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be RGB uint8"):
        Transform().resize(image)


def test_normalise() -> None:
    batch = np.stack([gradient(9, 8, seed=i) for i in range(2)])
    before = batch.copy()
    unit = Transform(size=(9, 8), normalisation="unit").normalise(batch)
    assert unit.dtype == torch.float32
    assert unit.is_contiguous()
    np.testing.assert_allclose(unit.numpy(), batch.transpose(0, 3, 1, 2) / 255, rtol=1e-6)
    transform = Transform(size=(9, 8))
    expected = (batch / 255 - IMAGENET_MEAN) / IMAGENET_STD
    for given_batch in (batch, torch.from_numpy(batch)):
        found = transform.normalise(given_batch)
        assert found.is_contiguous()
        np.testing.assert_allclose(found.numpy(), expected.transpose(0, 3, 1, 2), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(transform.denormalise(found).numpy(), unit.numpy(), atol=1e-6)
    np.testing.assert_array_equal(batch, before)


def test_normalise_takes_read_only_arrays(recwarn: pytest.WarningsRecorder) -> None:
    batch = gradient(8, 8)[None]
    batch.flags.writeable = False
    Transform(size=(8, 8)).normalise(batch)
    assert not recwarn.list


sides = st.integers(8, 60)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, st.integers(1, 40), st.integers(1, 40))
def test_the_region_is_where_the_crop_lies(h: int, w: int, ch: int, cw: int, ih: int, iw: int) -> None:
    transform = Transform(size=(max(h, ch), max(w, cw)), crop=(ch, cw))
    image = np.random.default_rng(0).integers(0, 256, (ih, iw, 3), dtype=np.uint8)
    cropped = transform.resize(image)
    assert cropped.shape == (*transform.output_size, 3)
    region, whole = transform.region, Transform(size=transform.size).resize(image)
    height, width = transform.size
    rows = slice(round(region.top * height), round(region.bottom * height))
    columns = slice(round(region.left * width), round(region.right * width))
    np.testing.assert_array_equal(whole[rows, columns], cropped)


def test_the_study_s_crop() -> None:
    assert Transform(crop=(224, 224)).region == Region(0.0625, 0.0625, 0.9375, 0.9375)
    assert Transform().region == Region()


def test_keys() -> None:
    base = Transform()
    unit = Transform(normalisation="unit")
    crop = Transform(crop=(224, 224))
    assert base.geometry_key == unit.geometry_key != crop.geometry_key
    assert len({base.key, unit.key, crop.key}) == 3
    assert base.key == Transform.model_validate_json(base.model_dump_json()).key


@pytest.mark.parametrize(
    "options", [{"size": (7, 256)}, {"size": (256, 9000)}, {"crop": (300, 300)}, {"crop": (4, 4)}, {"colour": 1}]
)
def test_bad_transforms(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Transform(**options)  # type: ignore[arg-type]
