"""The accumulator against the direct two passes, whatever the order in which images come."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core import GOOD, Channel, ConfigError, DataError, FullFrame, GroundTruth, Region
from andon.evaluation import LocalisationAccumulator, evaluate_localisation, place_map, spool
from andon.evaluation.spro import SproCounts

LIMITS = (0.05, 1 / 3, 1.0)
REGIONS = (FullFrame, Region(0.2, 0.1, 0.9, 0.7))


def random_images(seed, dtype, *, crop=False):
    """(map, truth, region, group) of good images and two defect types; maps of any size, values with ties."""
    rng = np.random.default_rng(seed)
    levels = int(rng.choice([3, 200]))
    images = []
    for k in range(int(rng.integers(2, 9))):
        group = [GOOD, "dent", "scratch"][int(rng.integers(0, 3))] if k else "dent"
        size = tuple(int(x) for x in rng.integers(4, 11, 2))
        small = size if rng.random() < 0.3 else tuple(int(x) for x in rng.integers(2, 8, 2))
        values = rng.integers(0, levels, small)
        scores = (values / 7 if np.dtype(dtype).kind == "f" else values).astype(dtype)
        channels = []
        for _ in range(0 if group == GOOD else int(rng.integers(1, 3))):
            mask = rng.random(size) < 0.3
            mask[0, 0] = True
            channels.append(Channel(mask, group, int(rng.integers(1, mask.sum() + 1))))
        region = REGIONS[int(rng.integers(0, 2))] if crop else FullFrame
        images.append((scores, GroundTruth(size, tuple(channels)), region, group))
    return images


def two_passes(images, interpolation):
    """Everything placed in memory, positives first."""
    counts = SproCounts(LIMITS)
    placed = [place_map(scores, region, truth.size, interpolation) for scores, truth, region, _ in images]
    widest = np.result_type(*placed)
    placed = [p.astype(widest) for p in placed]
    for scores, (_, truth, _, group) in zip(placed, images, strict=True):
        if truth.channels:
            counts.add_positives(scores, truth, group)
    for scores, (_, truth, _, group) in zip(placed, images, strict=True):
        counts.add_negatives(scores, truth, group)
    return counts


def accumulated(images, interpolation, **options):
    accumulator = LocalisationAccumulator(LIMITS, interpolation=interpolation, **options)
    for scores, truth, region, group in images:
        accumulator.update(scores, truth, region=region, group=group)
    return accumulator


def assert_same(accumulator, counts, groups, *, exactly):
    for group in (None, *sorted(groups)):
        ours, direct = accumulator.compute(group), counts.result(group)
        assert (ours.n_images, ours.n_channels, ours.n_negatives) == (
            direct.n_images,
            direct.n_channels,
            direct.n_negatives,
        )
        for name in ("auspro", "aupro", "pixel_auroc", "pixel_ap"):
            # In another order floats are added in another order.
            expected = getattr(direct, name)
            assert getattr(ours, name) == (expected if exactly or not expected else pytest.approx(expected, abs=1e-12))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_order_is_the_two_passes(dtype, interpolation, seed):
    images = random_images(seed, dtype, crop=interpolation == "bilinear")
    groups = {group for *_, group in images} - {GOOD}
    counts = two_passes(images, interpolation)
    assert_same(accumulated(images, interpolation), counts, groups, exactly=True)
    shuffled = [images[i] for i in np.random.default_rng(seed).permutation(len(images))]
    assert_same(accumulated(shuffled, interpolation), counts, groups, exactly=False)
    ordered = sorted(images, key=lambda image: image[3] == GOOD)
    assert_same(accumulated(ordered, interpolation, defective_first=True), counts, groups, exactly=True)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), data=st.data())
def test_figures_may_be_asked_for_on_the_way(seed, data):
    images = random_images(seed, "float32")
    accumulator = LocalisationAccumulator(LIMITS)
    for n, (scores, truth, region, group) in enumerate(images, 1):
        accumulator.update(scores, truth, region=region, group=group)
        if data.draw(st.booleans()) or n == len(images):
            assert_same(accumulator, two_passes(images[:n], "bilinear"), {"dent"}, exactly=True)


def test_an_iterator_gives_what_a_list_gives():
    images = [
        (place_map(scores, region, truth.size), truth, group)
        for scores, truth, region, group in random_images(4, "float32")
    ]
    images = [images[0], *images[::-1]]
    a, b = evaluate_localisation(images, LIMITS).compute(), evaluate_localisation(iter(images), LIMITS).compute()
    assert a.auspro
    assert a == b


def test_kept_maps_go_to_a_file_and_come_back(monkeypatch):
    monkeypatch.setattr(spool, "_IN_MEMORY", 200)
    images = random_images(7, "float64")
    with accumulated(images, "bicubic") as accumulator:
        assert accumulator._spool._file._rolled
        assert_same(accumulator, two_passes(images, "bicubic"), {"dent"}, exactly=True)


def test_good_float_maps_are_not_kept_where_defective_ones_come_first():
    images = sorted(random_images(0, "float32") * 3, key=lambda image: image[3] == GOOD)
    assert any(group == GOOD for *_, group in images)
    with accumulated(images, "bilinear", defective_first=True) as accumulator:
        assert len(accumulator._spool) == sum(group != GOOD for *_, group in images)
        scores, truth, region, group = images[0]
        with pytest.raises(ValueError, match="late: a defective image after a good one"):
            accumulator.update(scores, truth, region=region, group=group, name="late")
    with accumulated(random_images(0, "uint8"), "bicubic") as accumulator:
        assert accumulator._spool is None


@pytest.mark.parametrize("defective_first", [False, True])
def test_good_images_alone_are_counted_without_their_maps(defective_first, monkeypatch):
    from andon.evaluation import accumulator as module

    monkeypatch.setattr(module, "place_map", None)
    with LocalisationAccumulator(defective_first=defective_first) as accumulator:
        for _ in range(3):
            accumulator.update(np.zeros((2, 2), dtype=np.float32), GroundTruth((5, 6)))
        result = accumulator.compute()
    assert (result.n_images, result.n_negatives, result.auspro) == (3, 90, {})


def test_what_was_left_out_is_said():
    empty = Channel(np.zeros((4, 4), dtype=bool), "dent", 0)
    full = Channel(np.eye(4, dtype=bool), "dent", 2)
    scores = np.arange(16, dtype=np.float32).reshape(4, 4)
    accumulator = LocalisationAccumulator(LIMITS)
    accumulator.update(scores, None, group="dent", name="dent/0")
    accumulator.update(scores, GroundTruth((4, 4)), group="dent", name="dent/1")
    accumulator.update(scores, GroundTruth((4, 4), (empty,)), name="dent/2")
    accumulator.update(scores, GroundTruth((4, 4), (empty, full)), name="dent/3")
    assert accumulator.compute().n_images == 1
    assert accumulator.n_channels == 1
    assert accumulator.notes() == [
        "2 defective images have no mask: left out of localisation (dent/0, dent/1)",
        "1 defective image has an empty mask: left out of localisation (dent/2)",
        "channels without a pixel were left out in: dent/3",
    ]


def test_refusals_name_the_map(tmp_path, monkeypatch):
    truth, path = GroundTruth((4, 4)), tmp_path / "a.npy"
    scores = np.zeros((2, 2), dtype=np.float32)
    accumulator = LocalisationAccumulator()
    accumulator.update(scores, truth, source=path)
    with pytest.raises(DataError, match=r"b: a map of type uint8, but a\.npy is float32"):
        accumulator.update(scores.astype(np.uint8), truth, name="b")
    with pytest.raises(DataError, match=r"a\.npy: the anomaly map holds infinity"):
        LocalisationAccumulator().update(np.full((2, 2), 1e300), truth, source=path)  # beyond float32
    defect = GroundTruth((4, 4), (Channel(np.eye(4, dtype=bool), "d", 1),))
    with pytest.raises(DataError, match=r"a\.npy: the map's values are too large"):
        LocalisationAccumulator(interpolation="bicubic").update(np.full((2, 2), 1e300), defect, source=path)
    with pytest.raises(DataError, match="b: −inf pixels cannot be resized"):
        LocalisationAccumulator(defective_first=True).update(np.full((2, 2), -np.inf), defect, name="b")
    with pytest.raises(ValueError, match="without channels"):
        accumulator.update(scores, None, group=GOOD)
    with pytest.raises(ValueError, match=r"\[h, w\]"):
        accumulator.update(np.zeros((0, 3)), truth)

    class Full:
        def seek(self, offset): ...
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda **_: Full())
    with pytest.raises(ConfigError, match=r"no room .*No space left on device.*TMPDIR"):
        LocalisationAccumulator().update(scores, truth)
