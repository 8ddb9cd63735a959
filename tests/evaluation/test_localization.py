import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from andon.core import AndonError, Channel, GroundTruth
from andon.evaluation import (
    LocalisationAccumulator,
    auspro,
    auspro_by_definition,
    evaluate_localisation,
    spro_curve,
)
from andon.evaluation.spro import SproCounts
from tests.evaluation import oracle

LIMITS = (0.01, 0.05, 0.1, 0.25, 0.3, 0.5, 0.77, 1.0)


def random_case(seed, kind="float", *, levels=None, n_good=None, lowest=False, whole=False):
    """Maps and truths of a few small images: overlapping channels, saturations from 1 to the area, many ties."""
    rng = np.random.default_rng(seed)
    levels = levels or int(rng.choice([2, 3, 7, 40, 10_000]))
    maps, truths = [], []
    n_good = int(rng.integers(0, 3)) if n_good is None else n_good
    for k in range(int(rng.integers(1, 4)) + n_good):
        size = tuple(int(x) for x in rng.integers(2, 9, 2))
        scores = rng.integers(0, levels, size)
        if kind in ("uint8", "uint16"):
            scores = (scores * (np.iinfo(kind).max // levels)).astype(kind)
        else:
            scores = (scores / 7 - rng.choice([0, 3])).astype(kind if kind != "float" else np.float32)
            if lowest:
                scores[:, : size[1] // 2] = -np.inf
        channels = []
        if k >= n_good:
            for _ in range(int(rng.integers(1, 4))):
                mask = rng.random(size) < rng.choice([0.2, 0.6])
                if whole and k == n_good:
                    mask[:] = True
                if not mask.any():
                    mask[0, 0] = True
                n = int(mask.sum())
                channels.append(Channel(mask, "d", int(rng.choice([1, n, max(1, n // 2), rng.integers(1, n + 1)]))))
        truths.append(GroundTruth(size, tuple(channels)))
        maps.append(scores)
    if all(t.union().all() for t in truths):
        truths.append(GroundTruth((2, 2)))
        maps.append(np.resize(maps[0], (2, 2)))
    return maps, truths


def as_images(maps, truths):
    return [(m, t, "defect" if t.channels else "good") for m, t in zip(maps, truths, strict=True)]


@pytest.mark.parametrize("kind", ["float32", "float64", "uint8", "uint16"])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), lowest=st.booleans(), whole=st.booleans())
def test_equals_the_definition(kind, seed, lowest, whole):
    maps, truths = random_case(seed, kind, lowest=lowest, whole=whole)
    fast = auspro(maps, truths, LIMITS)
    points = oracle.curve(maps, truths)
    for limit in LIMITS:
        assert fast[limit] == pytest.approx(oracle.area(points, limit), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), limit=st.floats(0.01, 1.0))
def test_the_readable_definition_is_the_literal_one(seed, limit):
    maps, truths = random_case(seed)
    assert auspro_by_definition(maps, truths, limit) == pytest.approx(oracle.auspro(maps, truths, limit), abs=1e-12)


@pytest.mark.parametrize("kind", ["float32", "uint8"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_pro_and_pixel_metrics_are_special_cases(kind, seed):
    maps, truths = random_case(seed, kind)
    result = evaluate_localisation(as_images(maps, truths), LIMITS).compute()
    for limit in LIMITS:
        assert result.aupro[limit] == pytest.approx(oracle.aupro(maps, truths, limit), abs=1e-12)
    labels = np.concatenate([t.union().ravel() for t in truths])
    scores = np.concatenate([m.ravel() for m in maps]).astype(float)
    assert result.pixel_auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert result.pixel_ap == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), lowest=st.booleans())
def test_a_type_is_its_images_and_all_good_ones(seed, lowest):
    """Whatever the order in which images of several types come."""
    rng = np.random.default_rng(seed)
    maps, truths = random_case(seed, n_good=2, lowest=lowest)
    groups = [str(rng.choice(["scratch", "dent"])) if t.channels else "good" for t in truths]
    order = rng.permutation(len(maps))
    accumulator = evaluate_localisation([(maps[i], truths[i], groups[i]) for i in order], LIMITS)
    points = oracle.curve(maps, truths)
    assert accumulator.compute().auspro[0.3] == pytest.approx(oracle.area(points, 0.3), abs=1e-12)
    for group in set(groups) - {"good"}:
        of_type = [i for i, g in enumerate(groups) if g in (group, "good")]
        result = accumulator.compute(group)
        assert result.n_images == len(of_type)
        some_maps, some_truths = [maps[i] for i in of_type], [truths[i] for i in of_type]
        for limit in (0.05, 0.3, 1.0):
            assert result.auspro[limit] == pytest.approx(oracle.auspro(some_maps, some_truths, limit), abs=1e-12)


@pytest.mark.parametrize("scores", ["normal", "heavy tails", "few values", "constant", "huge", "crop"])
def test_float_maps_of_some_size_agree_with_sorting_everything(scores, monkeypatch):
    """In several chunks, none of which is a whole image."""
    from andon.evaluation.counting import FloatCounter

    monkeypatch.setattr(FloatCounter, "CHUNK", 5000)
    rng = np.random.default_rng(5)
    shape = (6, 90, 70)
    values = {
        "normal": lambda: rng.normal(size=shape),
        "heavy tails": lambda: rng.standard_cauchy(shape) ** 3,
        "few values": lambda: rng.integers(0, 5, shape),
        "constant": lambda: np.full(shape, 0.3),
        "huge": lambda: rng.choice([-3.3e38, 0.0, 1e-40, 3.3e38], shape),
        "crop": lambda: np.where(np.arange(70) < 20, -np.inf, rng.normal(size=shape)),
    }[scores]()
    maps = list(values.astype(np.float32))
    truths = [GroundTruth((90, 70))] * 3
    for k in range(3):
        mask = np.zeros((90, 70), dtype=bool)
        mask[10 * k : 10 * k + 20, 5:45] = True
        truths.append(GroundTruth((90, 70), (Channel(mask, "a", 300), Channel(np.roll(mask, 9, 1), "b", 800))))

    # Plain form: all scores sorted at once, cumulated, trapezoids by numpy.
    masks = [t.union() for t in truths]
    levels = np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]
    ascending = np.sort(np.concatenate([m[~u] for m, u in zip(maps, masks, strict=True)]))
    fpr = (len(ascending) - np.searchsorted(ascending, levels)) / len(ascending)
    spro = np.zeros(len(levels))
    for m, t in zip(maps, truths, strict=True):
        for c in t.channels:
            own = np.sort(m[c.mask])
            spro += np.minimum((len(own) - np.searchsorted(own, levels)) / c.saturation, 1) / 6
    fpr, spro = np.append(0, fpr), np.append(0, spro)
    fast = auspro(maps, truths, (0.05, 0.3, 1.0))
    for limit in (0.05, 0.3, 1.0):
        k = int(np.searchsorted(fpr, limit, side="left"))  # the first vertex that is not below the limit
        at_limit = spro[k - 1] + (spro[k] - spro[k - 1]) * (limit - fpr[k - 1]) / (fpr[k] - fpr[k - 1])
        area = np.trapezoid(np.append(spro[:k], at_limit), np.append(fpr[:k], limit))
        assert fast[limit] == pytest.approx(area / limit, abs=1e-12)


def test_monotone_transformations_change_nothing():
    maps, truths = random_case(11, levels=10_000)
    before = auspro(maps, truths, LIMITS)
    after = auspro([np.arcsinh(m.astype(np.float64)) * 50 - 3 for m in maps], truths, LIMITS)
    assert before == pytest.approx(after, abs=1e-12)


def test_perfect_and_useless_maps():
    mask = np.zeros((20, 20), dtype=bool)
    mask[:5, :5] = True
    truth = GroundTruth((20, 20), (Channel(mask, "d", 25),))
    perfect = auspro([mask.astype(np.float32)], [truth], LIMITS)
    assert perfect == pytest.approx(dict.fromkeys(LIMITS, 1.0), abs=1e-15)
    assert max(perfect.values()) <= 1.0
    assert auspro([(~mask).astype(np.uint8)], [truth], LIMITS) == dict.fromkeys(LIMITS, 0.0)
    # A constant map is the diagonal: area L/2.
    assert auspro([np.zeros((20, 20), dtype=np.float32)], [truth], [0.3])[0.3] == pytest.approx(0.15, abs=1e-15)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), limit=st.sampled_from([0.05, 0.3, 1.0]))
def test_curve_is_the_polyline(seed, limit):
    maps, truths = random_case(seed)
    fpr, spro = spro_curve(maps, truths, limit, points=5000)
    assert fpr[0] == 0
    assert spro[0] == 0
    assert fpr[-1] == pytest.approx(limit)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(spro) >= 0).all()
    # With more points than vertices nothing is thinned away: its area is the metric.
    assert np.trapezoid(spro, fpr) / limit == pytest.approx(auspro(maps, truths, [limit])[limit], abs=1e-9)


def test_thinned_curve_stays_close():
    rng = np.random.default_rng(3)
    mask = rng.random((200, 200)) < 0.2
    maps = [(rng.normal(size=(200, 200)) + mask).astype(np.float32)]
    truths = [GroundTruth((200, 200), (Channel(mask, "d", 4000),))]
    fpr, spro = spro_curve(maps, truths, 0.3, points=128)
    assert len(fpr) <= 258
    full_fpr, full_spro = spro_curve(maps, truths, 0.3, points=200_000)
    assert np.abs(np.interp(full_fpr, fpr, spro) - full_spro).max() < 2.2 / 128


def test_empty_channels_do_not_count():
    maps, truths = random_case(2)
    more = [
        GroundTruth(t.size, (*t.channels, Channel(np.zeros(t.size, dtype=bool), "e", 0))) if t.channels else t
        for t in truths
    ]
    assert auspro(maps, truths, LIMITS) == auspro(maps, more, LIMITS)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_undefined_without_channels_or_negatives(dtype):
    scores = np.arange(6, dtype=dtype).reshape(2, 3)
    good = evaluate_localisation([(scores, GroundTruth((2, 3)), "good")]).compute()
    assert good.auspro == {}
    assert good.pixel_auroc is None
    full = GroundTruth((2, 3), (Channel(np.ones((2, 3), dtype=bool), "d", 2),))
    result = evaluate_localisation([(scores, full, "d")]).compute()
    assert result.auspro == {}
    assert result.pixel_ap is None
    assert result.n_channels == 1
    assert evaluate_localisation([]).compute().n_images == 0
    assert evaluate_localisation([(scores, full, "d")]).compute("other").auspro == {}


def test_refusals():
    truth = GroundTruth((2, 2))
    with pytest.raises(AndonError, match="NaN"):
        LocalisationAccumulator().update(np.array([[0, np.nan], [0, 0]]), truth)
    with pytest.raises(AndonError, match="infinity"):
        LocalisationAccumulator().update(np.array([[0, np.inf], [0, 0]]), truth)
    accumulator = LocalisationAccumulator(interpolation=None)
    accumulator.update(np.zeros((2, 2), dtype=np.uint8), truth)
    with pytest.raises(AndonError, match="one type"):
        accumulator.update(np.zeros((2, 2), dtype=np.uint16), truth)
    with pytest.raises(ValueError, match="image's size"):
        accumulator.update(np.zeros((2, 3), dtype=np.uint8), truth)
    with pytest.raises(ValueError, match="uint8, uint16 or float"):
        LocalisationAccumulator().update(np.zeros((2, 2), dtype=np.int64), truth)
    for limit in (0.0, 1.01, -1):
        with pytest.raises(AndonError, match="FPR limit"):
            LocalisationAccumulator([limit])


def test_late_positives_of_float_maps_are_refused():
    accumulator = SproCounts()
    accumulator.add_negatives(np.zeros((1, 2), dtype=np.float32), GroundTruth((1, 2)))
    truth = GroundTruth((1, 2), (Channel(np.array([[True, False]]), "d", 1),))
    with pytest.raises(ValueError, match="before the first negatives"):
        accumulator.add_positives(np.zeros((1, 2), dtype=np.float32), truth, "d")


def test_many_images_of_a_type():
    """Integer maps' positives are merged on the way; nothing may get lost or count twice."""
    rng = np.random.default_rng(8)
    maps, truths = [], []
    for _ in range(150):
        mask = rng.random((3, 4)) < 0.4
        mask[0, 0] = True
        maps.append(rng.integers(0, 9, (3, 4), dtype=np.uint8))
        truths.append(GroundTruth((3, 4), (Channel(mask, "d", int(rng.integers(1, mask.sum() + 1))),)))
    points = oracle.curve(maps, truths)
    for limit, value in auspro(maps, truths, LIMITS).items():
        assert value == pytest.approx(oracle.area(points, limit), abs=1e-12)


def test_the_documented_examples_hold():
    import doctest

    import andon.evaluation
    from andon.evaluation import accumulator, localization

    for module in (andon.evaluation, accumulator, localization):
        result = doctest.testmod(module)
        assert result.failed == 0
        assert result.attempted > 0
