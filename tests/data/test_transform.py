from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from andon.core import Region
from andon.data.transform import IMAGENET_MEAN, IMAGENET_STD, Transform

from .images import gradient


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
