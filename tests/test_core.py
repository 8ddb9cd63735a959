"""Samples, saturation, regions, predictions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core import AndonError, Channel, DefectConfig, GroundTruth, Prediction, Region, canonical_json, listed


@given(st.integers(1, 10**6), st.floats(0.001, 1.0))
def test_relative_saturation_is_the_floor_and_at_least_one_pixel(area: int, fraction: float) -> None:
    saturation = DefectConfig("d", 255, fraction, True).saturation(area)
    assert 1 <= saturation <= area
    assert saturation == max(1, int(fraction * area))


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_absolute_saturation_never_exceeds_the_area(area: int, pixels: int) -> None:
    assert DefectConfig("d", 255, pixels, False).saturation(area) == min(area, pixels)


def test_an_empty_region_has_saturation_zero() -> None:
    assert DefectConfig("d", 255, 0.5, True).saturation(0) == 0


def test_union_of_overlapping_channels() -> None:
    a = np.zeros((4, 5), bool)
    b = np.zeros((4, 5), bool)
    a[:2] = True
    b[1:3, 1:] = True
    truth = GroundTruth((4, 5), (Channel(a, "x", 3), Channel(b, "y", 2)))
    assert np.array_equal(truth.union(), a | b)
    assert not GroundTruth((4, 5)).union().any()


@pytest.mark.parametrize("bad", [(0.5, 0, 0.5, 1), (-0.1, 0, 1, 1), (0, 0, 1.2, 1), (0, 0.9, 1, 0.2)])
def test_a_region_must_lie_in_the_image(bad: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="region"):
        Region(*bad)


def test_predictions_check_their_shapes_and_concatenate_in_order() -> None:
    one = Prediction(np.array([1.0], np.float32), np.zeros((1, 2, 3), np.float32))
    two = Prediction(np.array([2.0, 3.0], np.float32), np.ones((2, 2, 3), np.float32))
    both = Prediction.concatenate([one, two])
    assert both.image_scores.tolist() == [1, 2, 3]
    assert both.anomaly_maps is not None
    assert both.anomaly_maps[:, 0, 0].tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="anomaly_maps"):
        Prediction(np.zeros(2, np.float32), np.zeros((1, 2, 3), np.float32))
    with pytest.raises(ValueError, match="image_scores"):
        Prediction(np.zeros((2, 1), np.float32), None)


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False)))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, float]) -> None:
    assert canonical_json(value) == canonical_json(dict(reversed(value.items())))


def test_listed_shortens() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(i) for i in range(10)], limit=3) == "0, 1, 2 and 7 more"


@given(st.text())
def test_an_errors_message_is_one_plain_line(name: str) -> None:
    message = str(AndonError(f"{name}: cannot be read"))
    assert message.isprintable()
    assert message.endswith(": cannot be read")
    assert str(AndonError("größer als 2 × 3: „so“")) == "größer als 2 × 3: „so“"
