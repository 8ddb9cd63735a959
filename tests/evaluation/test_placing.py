import numpy as np
import pytest
import torch
from PIL import Image

from andon.core import FullFrame, Region
from andon.data.transform import Transform
from andon.evaluation.placing import place_map


@pytest.mark.parametrize(
    ("small", "size"), [((7, 5), (40, 33)), ((16, 16), (16, 31)), ((3, 1), (9, 9)), ((4, 9), (4, 9))]
)
def test_bilinear_is_half_pixel_centred(small, size):
    scores = np.random.default_rng(0).normal(size=small).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(scores)[None, None], size=size, mode="bilinear", align_corners=False
    )[0, 0].numpy()
    placed = place_map(scores, FullFrame, size)
    assert placed.dtype == np.float32
    np.testing.assert_allclose(placed, expected, atol=1e-5)


def test_a_crop_lands_where_it_belongs():
    """A bright spot of the image, seen through resize and crop, comes back to its place."""
    transform = Transform(size=(64, 64), crop=(48, 40))
    image = np.zeros((300, 500, 3), dtype=np.uint8)
    image[90:110, 380:400] = 255  # centre (100, 390)
    seen = transform.resize(image)[:, :, 0].astype(np.float32)
    placed = place_map(seen, transform.region, (300, 500))
    inside = np.isfinite(placed)
    weights = np.where(inside, placed, 0)
    rows, columns = np.mgrid[:300, :500] + 0.5
    assert (rows * weights).sum() / weights.sum() == pytest.approx(100, abs=0.6)
    assert (columns * weights).sum() / weights.sum() == pytest.approx(390, abs=0.6)
    # Stretched over the whole image it would be elsewhere.
    stretched = place_map(seen, FullFrame, (300, 500))
    assert abs((columns * stretched).sum() / stretched.sum() - 390) > 25


def test_outside_of_the_region_is_lowest():
    region = Region(0.25, 0.0, 0.75, 0.5)
    placed = place_map(np.full((4, 4), -2.5), region, (8, 10))
    seen = np.zeros((8, 10), dtype=bool)
    seen[2:6, :5] = True
    assert (placed[seen] == -2.5).all()
    assert np.isneginf(placed[~seen]).all()


def test_region_agrees_with_cropping_the_whole():
    """A map of a pixel-aligned part gives, away from its border, what the map of the whole gives there."""
    whole = np.random.default_rng(1).normal(size=(20, 30)).astype(np.float32)
    placed_whole = place_map(whole, FullFrame, (80, 90))
    placed_part = place_map(whole[5:15, 10:25], Region(0.25, 10 / 30, 0.75, 25 / 30), (80, 90))
    inner = np.s_[24:56, 34:71]
    np.testing.assert_allclose(placed_part[inner], placed_whole[inner], atol=1e-5)
    assert np.isneginf(placed_part[:20]).all()


def test_bicubic_is_pillows_on_the_maps_own_type():
    rng = np.random.default_rng(2)
    eight = rng.integers(0, 256, (11, 13), dtype=np.uint8)
    placed = place_map(eight, FullFrame, (40, 30), "bicubic")
    assert placed.dtype == np.uint8
    np.testing.assert_array_equal(placed, np.asarray(Image.fromarray(eight).resize((30, 40), Image.Resampling.BICUBIC)))
    sixteen = (eight.astype(np.uint16) * 257).copy()
    assert place_map(sixteen, FullFrame, (40, 30), "bicubic").dtype == np.uint16
    assert place_map(eight.astype(np.float64), FullFrame, (40, 30), "bicubic").dtype == np.float32
    np.testing.assert_array_equal(place_map(sixteen, FullFrame, (11, 13), "bicubic"), sixteen)
    with pytest.raises(ValueError, match="whole image"):
        place_map(eight, Region(0.1, 0, 1, 1), (40, 30), "bicubic")


def test_sizes_that_make_no_sense():
    with pytest.raises(ValueError, match="cannot place"):
        place_map(np.zeros((0, 3)), FullFrame, (4, 4))
    with pytest.raises(ValueError, match="cannot place"):
        place_map(np.zeros((3, 3)), FullFrame, (0, 4))
