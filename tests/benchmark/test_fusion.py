from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from andon.benchmark.fusion import FUSION, fuse, fused_map, standardised
from andon.benchmark.gallery import GalleryMaps
from andon.benchmark.record import Protocol
from andon.benchmark.store import Store
from andon.core import Category, ConfigError, Dataset, FullFrame, Region
from andon.data import load_dataset
from andon.evaluation import EvaluationArrays, LocalisationAccumulator
from tests.benchmark.factory import make_record, make_spec
from tests.benchmark.tiny import write_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(write_tiny(tmp_path_factory.mktemp("data") / "tiny", categories=("bolt",)))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


SCALES = {"A": (100.0, 7.0), "B": (-3.0, 0.02), "C": (0.5, 2.0)}
"""Each member's own scale: location and deviation of what it scores."""


def put(
    store: Store,
    category: Category,
    label: str,
    seed: int = 0,
    *,
    calibration: bool = True,
    maps: str = "all",
    moments: bool = True,
    seeded: bool = True,
    region: Region = FullFrame,
    **record: Any,
) -> EvaluationArrays:
    """A made-up result of a method on the category's test images."""
    shift, scale = SCALES[label]
    rng = np.random.default_rng([ord(label), seed])
    test = category.test
    scores = (shift + scale * (rng.normal(size=len(test)) + [1.5 * s.is_defective for s in test])).astype(np.float32)
    found = EvaluationArrays(
        sample_ids=tuple(s.id for s in test),
        defect_types=tuple(s.defect_type for s in test),
        image_scores=scores,
        calibration_scores=(shift + scale * rng.normal(size=5)).astype(np.float32) if calibration else None,
        calibration_map_moments=np.array([shift, scale]) if moments else None,
    )
    values = [(shift + scale * rng.normal(size=(12, 10))).astype(np.float32) for _ in test]
    kept = None if maps == "none" else GalleryMaps(found.sample_ids, tuple(values), (region,) * len(test))
    if kept is not None and maps == "some":
        kept = GalleryMaps(kept.sample_ids[:2], kept.maps[:2], kept.regions[:2])
    spec = make_spec(label=label, seed=seed, method=f"method-{label}")
    store.write_experiment(make_record(spec, seeded=seeded, **record), found, maps=kept)
    return found


def z(arrays: EvaluationArrays) -> np.ndarray[Any, np.dtype[np.float64]]:
    own = arrays.calibration_scores
    assert own is not None
    return (arrays.image_scores.astype(float) - own.astype(float).mean()) / own.astype(float).std()


def test_image_figures_are_those_of_the_mean_z_score(store: Store, tiny: Dataset) -> None:
    members = [put(store, tiny["bolt"], label) for label in "ABC"]
    (experiment,) = fuse(store, ["A", "B", "C"]).experiments
    expected = np.mean([z(m) for m in members], axis=0)
    np.testing.assert_allclose(experiment.arrays.image_scores, expected, rtol=1e-5)
    labels = members[0].labels()
    image = experiment.record.evaluation.image
    assert image.auroc == pytest.approx(roc_auc_score(labels, expected), abs=1e-12)
    assert image.ap == pytest.approx(average_precision_score(labels, expected), abs=1e-12)
    train = np.mean(
        [(c - c.mean()) / c.std() for m in members if (c := m.calibration_scores.astype(float)) is not None],  # type: ignore[union-attr]
        axis=0,
    )
    np.testing.assert_allclose(experiment.arrays.calibration_scores, train, rtol=1e-4, atol=1e-5)
    sources = {p.source for p in experiment.record.evaluation.operating_points}
    assert sources == {"test good", "train good", "best F1"}


def test_a_member_s_scale_does_not_matter(store: Store, tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    for label in "AB":
        put(store, tiny["bolt"], label)
    before = fuse(store, ["A", "B"]).experiments[0].arrays.image_scores
    monkeypatch.setitem(SCALES, "A", (-5.0, 1000.0))
    other = Store(store.root.parent / "other", create=True)
    for label in "AB":
        put(other, tiny["bolt"], label)
    np.testing.assert_allclose(fuse(other, ["A", "B"]).experiments[0].arrays.image_scores, before, rtol=1e-3, atol=1e-4)


def test_localisation_is_that_of_the_averaged_maps(store: Store, tiny: Dataset) -> None:
    category = tiny["bolt"]
    ids = [put(store, category, label) and make_spec(label=label, method=f"method-{label}").id for label in "AB"]
    (experiment,) = fuse(store, ["A", "B"], datasets={"tiny": tiny}).experiments
    size = (24, 20)
    with LocalisationAccumulator(Protocol().fpr_limits) as accumulator:
        for index, sample in enumerate(category.test):
            total = np.zeros(size)
            for label, experiment_id in zip("AB", ids, strict=True):
                kept = store.maps(str(experiment_id))
                assert kept is not None
                # Bilinear from 12 × 10 to 24 × 20, half-pixel centres, by scipy.
                total += (_upsampled(kept.maps[index]) - SCALES[label][0]) / SCALES[label][1]
            accumulator.update((total / 2).astype(np.float32), sample.ground_truth(), group=sample.defect_type)
        expected = accumulator.compute()
    local = experiment.record.evaluation.localisation
    assert local is not None
    assert local.n_channels == 4
    for limit, value in expected.auspro.items():
        assert local.auspro[limit] == pytest.approx(value, abs=2e-3)
    assert local.pixel_auroc == pytest.approx(expected.pixel_auroc, abs=1e-4)


def _upsampled(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    from scipy.ndimage import map_coordinates

    rows, columns = ((np.arange(n) + 0.5) / 2 - 0.5 for n in (24, 20))
    return np.asarray(
        map_coordinates(values.astype(float), np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest")
    )


def test_where_a_member_does_not_see_the_others_decide() -> None:
    one, other = np.array([[1.0, -np.inf, -np.inf]]), np.array([[3.0, 5.0, -np.inf]])
    np.testing.assert_array_equal(fused_map([one, other]), np.array([[2, 5, -np.inf]], np.float32))


def test_seeds_are_matched_and_a_method_without_chance_stands_for_all(store: Store, tiny: Dataset) -> None:
    for seed in (0, 1, 2):
        put(store, tiny["bolt"], "A", seed)
    for seed in (1, 2, 3):
        put(store, tiny["bolt"], "B", seed)
    put(store, tiny["bolt"], "C", 0, seeded=False)
    assert [e.record.spec.seed for e in fuse(store, ["A", "B"]).experiments] == [1, 2]
    assert [e.record.spec.seed for e in fuse(store, ["A", "C"]).experiments] == [0, 1, 2]
    assert len({e.record.id for e in fuse(store, ["A", "C"]).experiments}) == 3
    ids = [e.record.id for e in fuse(store, ["A", "B"]).experiments]
    assert ids == [e.record.id for e in fuse(store, ["A", "B"]).experiments]


def test_a_row_says_what_it_is_made_of(store: Store, tiny: Dataset) -> None:
    put(store, tiny["bolt"], "A", images_per_second=20.0, peak_memory_mb=100.0)
    put(store, tiny["bolt"], "B", images_per_second=5.0, peak_memory_mb=900.0)
    record = fuse(store, ["A", "B"], name="Ensemble").records()[0]
    assert (record.spec.method, record.spec.label) == (FUSION, "Ensemble")
    assert record.images_per_second == pytest.approx(4.0)  # 1/(1/20 + 1/5)
    assert record.peak_memory_mb == 900
    assert record.fit_seconds == {"total": 1.5}
    assert record.predict_seconds == 0.5
    for label in "AB":
        assert make_spec(label=label, method=f"method-{label}").id in record.notes[0]
    assert [m["label"] for m in record.spec.config["members"]] == ["A", "B"]
    assert record.id == record.spec.id
    assert record.id in fuse(store, ["A", "B"], name="Ensemble").arrays()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"calibration": False}, "B has no scores of held-out training images"),
        ({"maps": "none"}, "no localisation: not all maps of B were kept"),
        ({"maps": "some"}, "no localisation: not all maps of B were kept"),
        ({"moments": False}, "no localisation: B has no figures of held-out training images' maps"),
    ],
)
def test_what_cannot_be_says_why(store: Store, tiny: Dataset, changes: dict[str, Any], reason: str) -> None:
    put(store, tiny["bolt"], "A")
    put(store, tiny["bolt"], "B", **changes)
    fused = fuse(store, ["A", "B"], datasets={"tiny": tiny})
    assert len(fused.missing) == 1
    assert reason in fused.missing[0]
    assert "bolt" in fused.missing[0]
    assert "seed 0" in fused.missing[0]
    if "calibration" in changes:
        assert fused.experiments == ()
    else:
        (experiment,) = fused.experiments
        assert experiment.record.evaluation.localisation is None
        assert any("no localisation: " in note for note in experiment.record.evaluation.notes)


def test_without_the_data_set_there_are_image_figures_alone(store: Store, tiny: Dataset) -> None:
    for label in "AB":
        put(store, tiny["bolt"], label)
    fused = fuse(store, ["A", "B"])
    assert fused.records()[0].evaluation.image.auroc is not None
    assert "masks are not at hand" in fused.missing[0]


def test_a_category_that_a_member_lacks_is_named(store: Store, tiny: Dataset) -> None:
    put(store, tiny["bolt"], "A")
    record = make_record(make_spec(label="B", category="nut", method="method-B"))
    store.write_experiment(record, EvaluationArrays(sample_ids=(), defect_types=(), image_scores=np.zeros(0, "f4")))
    fused = fuse(store, ["A", "B"])
    assert fused.experiments == ()
    assert sorted(fused.missing) == ["A + B on bolt (tiny): no result of B", "A + B on nut (tiny): no result of A"]


@pytest.mark.parametrize("labels", [[], ["A"], ["A", "A"], ["A", "X"]])
def test_an_ensemble_of_nothing_is_refused(store: Store, tiny: Dataset, labels: list[str]) -> None:
    put(store, tiny["bolt"], "A")
    with pytest.raises(ConfigError, match=r"two different methods|no result of a method 'X'; it has: A"):
        fuse(store, labels)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8))
def test_z_scores_undo_location_and_scale(mean: float, deviation: float, values: list[float]) -> None:
    found = standardised(np.asarray(values) * deviation + mean, mean, deviation)
    np.testing.assert_allclose(found, values, atol=1e-6 * (1 + abs(mean) / deviation))


def test_no_scale_is_made_up() -> None:
    with pytest.raises(ValueError, match="score the same"):
        standardised(np.zeros(3), 0.0, 0.0)
