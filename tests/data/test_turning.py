"""Turned in place is turned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.data import _turning
from andon.data._turning import UPRIGHT, turned

# EXIF 2.3, 4.6.4: where the row 0 and the column 0 of what is stored are seen.
EXPECTED = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.sampled_from([(), (3,)]), st.sampled_from([np.uint8, np.uint16]))
def test_every_orientation_of_every_size(height: int, width: int, deep: tuple[int, ...], dtype: type) -> None:
    values = np.random.default_rng(height).integers(0, 256, (height, width, *deep)).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_turning, "_SMALL", 0)
        patch.setattr(_turning, "_ROWS_BYTES", 1000)
        for orientation in UPRIGHT:
            found = turned(values.copy(), orientation)
            np.testing.assert_array_equal(found, EXPECTED[orientation](values))
            assert found.flags.c_contiguous


def test_the_memory_is_the_same() -> None:
    values = np.zeros((2000, 1500, 3), np.uint8)
    for orientation in UPRIGHT:
        assert np.shares_memory(turned(values, orientation), values)
    part = np.zeros((4000, 1500, 3), np.uint8)[::2]  # not to be turned in place
    assert not np.shares_memory(turned(part, 6), part)
