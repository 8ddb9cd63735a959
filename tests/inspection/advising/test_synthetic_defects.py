"""Synthetic defects: local, visible, of the wanted size, and the same from the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.inspection.advising.synthetic_defects import CHANGED, KINDS, LARGEST, SMALLEST, _blob, add_defect
from tests.inspection.parts import part


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_is_local_visible_and_leaves_its_image_alone(kind: str) -> None:
    image, other = part(0), part(1)
    before = image.copy()
    for seed in range(20):
        defect = add_defect(image, other, np.random.default_rng(seed), kind)  # type: ignore[arg-type]
        changed = np.abs(defect.image.astype(int) - image).max(axis=2)
        np.testing.assert_array_equal(defect.mask, changed > CHANGED)
        assert 4 <= np.count_nonzero(defect.mask) <= 3 * LARGEST * defect.mask.size + 60
        assert defect.image.dtype == np.uint8
        assert defect.image.shape == image.shape
        again = add_defect(image, other, np.random.default_rng(seed), kind)  # type: ignore[arg-type]
        np.testing.assert_array_equal(defect.image, again.image)
        assert defect.share == pytest.approx(np.count_nonzero(defect.mask) / defect.mask.size)
    np.testing.assert_array_equal(image, before)


@given(
    st.integers(16, 90),
    st.integers(16, 90),
    st.sampled_from(KINDS),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["noise", "black", "white", "grey"]),
)
@settings(max_examples=60, deadline=None)
def test_any_image_gets_a_defect_that_is_seen(height: int, width: int, kind: str, seed: int, what: str) -> None:
    rng = np.random.default_rng(seed)
    level = {"noise": 128, "black": 0, "white": 255, "grey": 90}[what]
    image = np.full((height, width, 3), level, np.uint8)
    if what == "noise":
        image = rng.integers(0, 256, image.shape, dtype=np.uint8)
    defect = add_defect(image, image[::-1], rng, kind)  # type: ignore[arg-type]
    assert defect.mask.any()
    if what != "noise":
        assert bool((defect.image == defect.image[..., :1]).all() or kind == "stain"), "a grey image stays grey"
        assert defect.kind in (kind, "colour")


def test_where_nothing_can_be_missing_the_colour_shifts_and_says_so() -> None:
    bare = np.full((64, 64, 3), 100, np.uint8)
    assert add_defect(bare, bare, np.random.default_rng(0), "missing").kind == "colour"
    assert add_defect(part(0), part(1), np.random.default_rng(0), "missing").kind == "missing"


@pytest.mark.parametrize("share", [SMALLEST, 0.005, LARGEST])
def test_a_region_covers_the_share_that_was_drawn(share: float) -> None:
    for seed in range(5):
        region = _blob(np.random.default_rng(seed), (200, 300), (100.0, 150.0), share)
        assert np.count_nonzero(region) == pytest.approx(share * 200 * 300, abs=3)


def test_defects_lie_where_the_image_has_edges() -> None:
    image = np.full((128, 128, 3), 120, np.uint8)
    image[:, 64:] = np.random.default_rng(0).integers(0, 256, (128, 64, 3))
    right = 0
    for seed in range(60):
        mask = add_defect(image, image, np.random.default_rng(seed), "colour").mask
        right += np.flatnonzero(mask.any(axis=0)).mean() >= 60
    assert right >= 48, "nine tenths of the weight lie on the busy half, and half of the rest"


def test_an_image_too_small_for_a_defect() -> None:
    with pytest.raises(ValueError, match="at least 16 pixels"):
        add_defect(np.zeros((8, 40, 3), np.uint8), np.zeros((8, 40, 3), np.uint8), np.random.default_rng(0), "blur")
