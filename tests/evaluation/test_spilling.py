"""Positives and counts in scratch files: the figures are those of a computation with everything in memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core import GOOD, Channel, ConfigError, GroundTruth
from andon.evaluation import LocalisationAccumulator, auspro, auspro_by_definition, positives, spool, spro_curve
from andon.evaluation.counting import FloatCounter
from andon.evaluation.positives import Positives, Run, merged
from andon.evaluation.spool import Scratch

LIMITS = (0.05, 0.3, 1.0)


@contextmanager
def small_stretches():
    """Every stretch, block and buffer so small that all seams are met; all of it in a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(positives, "ROWS", 8)
        patch.setattr(positives, "_STRIDE", 4)
        patch.setattr(FloatCounter, "CHUNK", 16)
        patch.setattr(spool, "_SCRATCH_IN_MEMORY", 100)
        yield


@pytest.fixture
def tiny():
    with small_stretches():
        yield


def images_of(seed, dtype="float32", n=7, size=(9, 8)):
    rng = np.random.default_rng(seed)
    levels = int(rng.choice([3, 30, 100_000]))
    out = []
    for k in range(n):
        group = ("dent", "hole", GOOD)[k % 3]
        values = rng.integers(0, levels, size)
        scores = (values / 7 if np.dtype(dtype).kind == "f" else values % 65536).astype(dtype)
        if rng.random() < 0.3 and np.dtype(dtype).kind == "f":
            scores[:3] = -np.inf
        channels = ()
        if group != GOOD:
            mask = rng.random(size) < 0.5
            mask[0, 0] = True
            channels = (Channel(mask, group, int(rng.integers(1, mask.sum() + 1))),)
        out.append((scores, GroundTruth(size, channels), group))
    return out


def accumulated(images):
    accumulator = LocalisationAccumulator(LIMITS, interpolation=None)
    for scores, truth, group in images:
        accumulator.update(scores, truth, group=group)
    return accumulator


def everything_of(accumulator):
    results = [accumulator.compute(group) for group in (None, "dent", "hole")]
    return results, [tuple(axis.tobytes() for axis in r.curve(limit, 9)) for r in results for limit in (0.3, 1.0)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "uint16"])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_stretches_change_no_bit(dtype, seed):
    images = images_of(seed, dtype)
    whole = everything_of(accumulated(images))
    with small_stretches():
        assert everything_of(accumulated(images)) == whole


def test_they_are_the_definitions(tiny):
    for seed in range(5):
        images = images_of(seed)
        maps, truths, _ = zip(*images, strict=True)
        for limit, value in auspro(maps, truths, LIMITS).items():
            assert value == pytest.approx(auspro_by_definition(maps, truths, limit), abs=1e-12)
        fpr, spro = spro_curve(maps, truths, 1.0, points=10_000)
        assert (fpr[0], spro[0], fpr[-1]) == (0, 0, 1)
        assert spro[-1] == pytest.approx(1)
        assert float(np.trapezoid(spro, fpr)) == pytest.approx(auspro(maps, truths, [1.0])[1.0], abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    parts=st.lists(st.lists(st.integers(-5, 40), min_size=1, max_size=60, unique=True), min_size=1, max_size=6),
    data=st.data(),
)
def test_runs_are_merged_in_order(parts, data):
    """Against a dictionary that adds from left to right, in float64, bit for bit."""
    with small_stretches():
        scratch, runs, expected = Scratch(), [], {}
        for scores in map(sorted, parts):
            shares = np.asarray(data.draw(st.lists(st.floats(0, 1), min_size=len(scores), max_size=len(scores))))
            one = Positives(np.asarray(scores, dtype=np.float32), shares, shares / 3, np.ones(len(scores), dtype=int))
            runs.append(Run.of(one, scratch))
            for score, share in zip(scores, shares, strict=True):
                before = expected.get(score, (0.0, 0))
                expected[score] = before[0] + share, before[1] + 1
        run = merged(runs, scratch)
        rows = run.read(0, len(run))
        assert rows.scores.tolist() == sorted(expected)
        assert rows.spro.tolist() == [expected[s][0] for s in sorted(expected)]
        assert rows.pixels.tolist() == [expected[s][1] for s in sorted(expected)]
        for score in range(-6, 42):
            assert run.up_to(score) == int(np.searchsorted(rows.scores, score, side="right"))


def test_integer_positives_do_not_grow_with_the_images():
    accumulator = LocalisationAccumulator(LIMITS, interpolation=None)
    for seed in range(20):
        for scores, truth, group in images_of(seed, "uint8"):
            accumulator.update(scores, truth, group=group)
    runs = accumulator._counts._positives
    assert all(len(own) < 16 for own in runs.values())
    assert all(scratch._end < 20 * 256 * 32 for scratch in accumulator._counts._scratch.values())


def test_a_curve_stays_as_it_was_when_images_are_added(tiny):
    images = images_of(3, n=9)
    accumulator = accumulated(images[:6])
    early = accumulator.compute()
    before = early.curve(1.0, 9)
    for scores, truth, group in images[6:]:
        accumulator.update(scores, truth, group=group)
    assert accumulator.compute() != early
    accumulator.close()
    for one, other in zip(before, early.curve(1.0, 9), strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_room_is_said(monkeypatch):
    class Full:
        def rollover(self):
            raise OSError(28, "No space left on device")

        def close(self): ...

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda **_: Full())
    monkeypatch.setattr(spool, "_SCRATCH_IN_MEMORY", 1)
    ((scores, truth, group), *_) = images_of(0)
    with pytest.raises(ConfigError, match=r"no room for the scores of the defects' pixels .*No space left.*TMPDIR"):
        LocalisationAccumulator(interpolation=None).update(scores, truth, group=group)


_MEASURE = """
import resource, sys
import numpy as np
from andon.core import Channel, GroundTruth
from andon.evaluation import LocalisationAccumulator
n, size = int(sys.argv[1]), (1000, 1000)
with LocalisationAccumulator(interpolation=None, defective_first=True) as accumulator:
    for k in range(2 * n):
        scores = np.exp2(32 * np.random.default_rng(k).random(size) - 16).astype(np.float32)
        mask = np.zeros(size, dtype=bool)
        mask[300:800] = True
        channels = (Channel(mask, "d", 10_000),) if k < n else ()
        accumulator.update(scores, GroundTruth(size, channels), group="d" if k < n else "good")
    result = accumulator.compute()
    result.curve(1.0, 256)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_memory_grows_by_at_most_24_bytes_a_defect_pixel():
    small, large = (
        int(subprocess.run([sys.executable, "-c", _MEASURE, str(n)], capture_output=True, check=True).stdout)
        for n in (10, 26)
    )
    assert (large - small) / (16 * 500_000) < 24
