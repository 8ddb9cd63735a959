import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from andon.benchmark import evaluate
from andon.benchmark.maps import evaluate_maps, official_metrics
from andon.core import (
    AndonError,
    Category,
    Channel,
    ConfigError,
    DataError,
    DetectorError,
    FullFrame,
    GroundTruth,
    Prediction,
    Region,
    Sample,
)
from andon.data import load_dataset
from andon.data.images import as_images
from andon.data.maps import read_map
from andon.evaluation import place_map
from tests.benchmark import parity
from tests.evaluation import oracle

SHARED = Path(__file__).parents[2].parent / "shared" / "parity"
LIMITS = (0.05, 0.01, 0.1, 0.3, 1.0)

CASES = {
    "same_size": {"seed": 1},
    "small_maps": {"seed": 2, "map_size": (16, 24)},
    "ties": {"seed": 3, "levels": 6},
    "sixteen_bit": {"seed": 4, "dtype": "uint16", "levels": 65536},
    "floats": {"seed": 5, "dtype": "float32", "levels": 10_000, "map_size": (20, 32)},
}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    root = tmp_path_factory.mktemp("parity")
    for name, options in CASES.items():
        parity.make_category(root, name, **options)
    return SimpleNamespace(dataset=parity.read_dataset(root / "data"), maps=root / "maps", root=root)


def placed_maps(category, folder, interpolation="bicubic"):
    """Maps at image size and truths of a category's test images, by the same resizing, all in memory."""
    maps, truths = [], []
    for sample in category.test:
        path = next(folder.glob(f"{sample.defect_type}/{sample.path.stem}.*"))
        maps.append(place_map(read_map(path), FullFrame, sample.size(), interpolation))
        truths.append(sample.ground_truth())
    return maps, truths


def plain_auspro(maps, truths, limit):
    """All scores in memory, sorted at once, trapezoids by numpy."""
    levels = np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]
    negatives = np.sort(np.concatenate([m[~t.union()] for m, t in zip(maps, truths, strict=True)]))
    fpr = (len(negatives) - np.searchsorted(negatives, levels)) / len(negatives)
    channels = [(np.sort(m[c.mask]), c.saturation) for m, t in zip(maps, truths, strict=True) for c in t.channels]
    spro = np.mean([np.minimum((len(v) - np.searchsorted(v, levels)) / s, 1) for v, s in channels], axis=0)
    fpr, spro = np.append(0, fpr), np.append(0, spro)
    k = int(np.searchsorted(fpr, limit, side="left"))
    end = spro[k - 1] + (spro[k] - spro[k - 1]) * (limit - fpr[k - 1]) / (fpr[k] - fpr[k - 1])
    return np.trapezoid(np.append(spro[:k], end), np.append(fpr[:k], limit)) / limit


@pytest.mark.parametrize("name", CASES)
def test_maps_on_disk_give_the_definitions_figures(case, name):
    category, folder = case.dataset[name], case.maps / name
    evaluation = evaluate_maps(case.maps, case.dataset, categories=[name]).results[name].evaluation
    maps, truths = placed_maps(category, folder)
    assert evaluation.localisation.auspro == pytest.approx(
        {limit: plain_auspro(maps, truths, limit) for limit in LIMITS}, abs=1e-12
    )
    if name == "ties":  # few enough distinct scores for the literal walk through all thresholds
        points = oracle.curve(maps, truths)
        assert evaluation.localisation.auspro[0.05] == pytest.approx(oracle.area(points, 0.05), abs=1e-12)
    assert evaluation.localisation.n_channels == sum(len(t.channels) for t in truths)
    pixels = np.concatenate([t.union().ravel() for t in truths]), np.concatenate([m.ravel() for m in maps])
    assert evaluation.localisation.pixel_auroc == pytest.approx(roc_auc_score(*pixels), abs=1e-12)
    assert evaluation.localisation.pixel_ap == pytest.approx(average_precision_score(*pixels), abs=1e-12)

    labels = np.array([s.is_defective for s in category.test])
    stored = [read_map(next(folder.glob(f"{s.defect_type}/{s.path.stem}.*"))) for s in category.test]
    scores = np.array([m.max() for m in stored], dtype=np.float64)
    assert evaluation.image.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert any("maxima" in note for note in evaluation.notes)

    for kind, of_type in evaluation.defect_types.items():
        some = [i for i, s in enumerate(category.test) if s.defect_type in ("good", kind)]
        assert of_type.n == 3
        assert of_type.auroc == pytest.approx(roc_auc_score(labels[some], scores[some]), abs=1e-12)
        expected = plain_auspro([maps[i] for i in some], [truths[i] for i in some], 0.3)
        assert of_type.auspro[0.3] == pytest.approx(expected, abs=1e-12)


def test_all_categories_and_refusals_side_by_side(case):
    dataset = parity.read_dataset(case.root / "data")
    bad = case.maps / "ties" / "good" / "000.png"
    kept = bad.read_bytes()
    try:
        bad.unlink()
        report = evaluate_maps(case.maps, dataset)
    finally:
        bad.write_bytes(kept)
    assert set(report.results) == set(CASES) - {"ties"}
    assert "1 of 13 test images of ties have no anomaly map" in report.refused["ties"]
    with pytest.raises(AndonError, match="no such folder"):
        evaluate_maps(case.root / "nowhere", dataset)
    with pytest.raises(AndonError, match="has no category 'x'"):
        evaluate_maps(case.maps, dataset, categories=["x"])
    with pytest.raises(AndonError, match="no maps of category ties"):
        evaluate_maps(case.root / "data" / "ties" / "ground_truth" / "missing", dataset, categories=["ties"])
    with pytest.raises(ConfigError, match="FPR limit"):
        evaluate_maps(case.maps, dataset, fpr_limits=[2])


def test_the_librarys_reader_gives_the_same(case):
    ours = evaluate_maps(case.maps, load_dataset(case.root / "data")).results
    for name, result in evaluate_maps(case.maps, case.dataset).results.items():
        assert ours[name].evaluation == result.evaluation


def test_official_format(case):
    evaluation = evaluate_maps(case.maps / "ties", case.dataset, categories=["ties"]).results["ties"].evaluation
    metrics = json.loads(json.dumps(official_metrics(evaluation)))
    assert list(metrics["localization"]["auc_spro"]) == ["0.01", "0.05", "0.1", "0.3", "1.0"]
    assert metrics["localization"]["auc_spro"]["1.0"] == evaluation.localisation.auspro[1.0]


def test_maps_of_two_types_are_refused(case, tmp_path):
    _, maps = parity.make_category(tmp_path, "part", seed=9)
    target = maps / "missing" / "001.png"
    np.save(target.with_suffix(".npy"), read_map(target).astype(np.float32))
    target.unlink()
    with pytest.raises(AndonError, match=r"001\.npy: a map of type float32, but 000\.png is uint8"):
        evaluate_maps(tmp_path / "maps", parity.read_dataset(tmp_path / "data"))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("own_size", ["missing/001", "good/000"])
def test_one_map_of_its_images_own_size_among_resized_ones(interpolation, own_size, tmp_path):
    """Resizing gives float32, whatever the maps are; all are counted as one type."""
    _, maps = parity.make_category(tmp_path, "part", seed=9, dtype="float32", levels=50, map_size=(20, 32))
    for path in maps.rglob("*.npy"):
        scores = np.load(path).astype(np.float64) / 3
        if path.with_suffix("") == maps / own_size:
            scores = np.repeat(np.repeat(scores, 3, 0), 2, 1)[:48]
        np.save(path, scores)
    dataset = parity.read_dataset(tmp_path / "data")
    evaluation = evaluate_maps(tmp_path / "maps", dataset, interpolation=interpolation).results["part"].evaluation
    placed, truths = placed_maps(dataset["part"], maps, interpolation)
    if interpolation == "bicubic":
        assert {m.dtype.name for m in placed} == {"float32", "float64"}
    for limit in LIMITS:
        expected = plain_auspro(placed, truths, limit)
        assert evaluation.localisation.auspro[limit] == pytest.approx(expected, abs=1e-12)


def test_a_limit_that_has_no_short_decimal(case, tmp_path):
    report = evaluate_maps(case.maps, case.dataset, categories=["ties"], fpr_limits=(1 / 3, 0.05))
    evaluation = report.results["ties"].evaluation
    maps, truths = placed_maps(case.dataset["ties"], case.maps / "ties")
    assert evaluation.localisation.auspro[1 / 3] == pytest.approx(plain_auspro(maps, truths, 1 / 3), abs=1e-12)
    assert list(official_metrics(evaluation)["localization"]["auc_spro"]) == ["0.05", "0.3333333333333333"]


def test_unseen_pixels_count_as_lowest_and_are_not_resized(tmp_path):
    _, maps = parity.make_category(tmp_path, "part", seed=9, dtype="float32", levels=1000)
    for path in maps.rglob("*.npy"):
        scores = np.load(path)
        scores[:, :9] = -np.inf
        np.save(path, scores)
    dataset = parity.read_dataset(tmp_path / "data")
    evaluation = evaluate_maps(tmp_path / "maps", dataset).results["part"].evaluation
    lowered, truths = placed_maps(dataset["part"], maps)
    expected = plain_auspro([np.where(np.isneginf(m), -1, m) for m in lowered], truths, 1.0)
    assert evaluation.localisation.auspro[1.0] == pytest.approx(expected, abs=1e-12)
    victim = maps / "good" / "002.npy"
    np.save(victim, np.load(victim)[:20])
    with pytest.raises(AndonError, match=r"002\.npy: −inf pixels cannot be resized"):
        evaluate_maps(tmp_path / "maps", dataset)


def test_scores_from_a_table(case, tmp_path):
    category = case.dataset["ties"]
    table = tmp_path / "scores.csv"

    def run(text):
        table.write_text(text)
        return evaluate_maps(case.maps, case.dataset, categories=["ties"], scores=table)

    rows = [f"test/{s.defect_type}/{s.path.name},{k}" for k, s in enumerate(category.test)]
    evaluation = run("sample,score\n" + "\n".join(rows)).results["ties"].evaluation
    labels = [s.is_defective for s in category.test]
    assert evaluation.image.auroc == pytest.approx(roc_auc_score(labels, np.arange(len(labels))))
    assert not any("maxima" in note for note in evaluation.notes)
    for text, message in (
        ("a,b\n1,2", "first line must name the columns"),
        ("sample,score\ngood/000,x", "line 2: 'x' is not a number"),
        ("sample,score\ngood/000,nan", "line 2: the score is nan"),
        ("sample,score\ngood/000,1\ngood/000.png,2", "line 3: a second score"),
        ("sample,score\ngood/000,1", "no score for 12 test images of ties: good/001"),
    ):
        with pytest.raises(AndonError, match=message):
            run(text)


class Canned:
    """A detector that gives prepared predictions, by the value of the image's first pixel."""

    name, title = "canned", "Canned"

    def __init__(self, scores, maps, region=FullFrame, batch=3):
        self.scores, self.maps, self.region, self.batch = scores, maps, region, batch

    def iterate_predictions(self, images, *, progress=lambda *a: None):
        images = as_images(images)
        for start in range(0, len(images), self.batch):
            keys = [int(images.image(i)[0, 0, 0]) for i in range(start, min(start + self.batch, len(images)))]
            progress("predict", start + len(keys), len(images))
            maps = None if self.maps is None else np.stack([self.maps[k] for k in keys])
            yield Prediction(np.array([self.scores[k] for k in keys], dtype=np.float32), maps, self.region)


class MemoryReader:
    """Images and truths in memory."""

    def __init__(self, truths, sizes):
        self.truths, self.sizes = truths, sizes

    def image(self, sample):
        key = int(sample.path.stem)
        return np.full((*self.sizes[key], 3), key, dtype=np.uint8)

    def size(self, sample):
        return self.sizes[int(sample.path.stem)]

    def ground_truth(self, sample):
        return self.truths[int(sample.path.stem)]


def memory_case(seed=0, n=14, region=FullFrame, small=(9, 12)):
    """Images of several sizes, good and defective ones mixed."""
    rng = np.random.default_rng(seed)
    truths, sizes, types = [], [], []
    for k in range(n):
        size = (int(rng.integers(20, 40)), int(rng.integers(20, 40)))
        kind = ["good", "dent", "good", "scratch"][k % 4]
        channels = []
        if kind != "good":
            for _ in range(1 + k % 2):
                mask = np.zeros(size, dtype=bool)
                y, x = rng.integers(0, 14, 2)
                mask[y : y + 5, x : x + 6] = True
                channels.append(Channel(mask, kind, int(rng.integers(1, 31))))
        truths.append(GroundTruth(size, tuple(channels)))
        sizes.append(size)
        types.append(kind)
    reader = MemoryReader(truths, sizes)
    samples = tuple(
        Sample(id=f"test/{t}/{k:03d}", path=Path(f"{k}.png"), split="test", defect_type=t, reader=reader)
        for k, t in enumerate(types)
    )
    category = Category(name="part", dataset="memory", root=Path("."), samples=samples)
    maps = list(rng.normal(size=(n, *small)).astype(np.float32))
    scores = rng.normal(size=n).astype(np.float32) + np.array([t != "good" for t in types])
    return category, truths, Canned(scores.astype(np.float32), maps, region), reader


@pytest.mark.parametrize("region", [FullFrame, Region(0.1, 0.2, 0.8, 0.9)])
@pytest.mark.parametrize("batch", [1, 3, 50])
def test_a_detector_is_judged_at_image_size(region, batch):
    category, truths, detector, _ = memory_case(region=region)
    detector.batch = batch
    result = evaluate(detector, category, fpr_limits=(0.1, 1.0), calibration_scores=[0.0, 1.0])
    placed = [place_map(m, region, t.size) for m, t in zip(detector.maps, truths, strict=True)]
    finite = [np.where(np.isneginf(m), -99, m) for m in placed]
    for limit in (0.1, 1.0):
        expected = plain_auspro(finite, truths, limit)
        assert result.evaluation.localisation.auspro[limit] == pytest.approx(expected, abs=1e-12)
    labels = np.array([s.is_defective for s in category.test])
    pixels = np.concatenate([t.union().ravel() for t in truths])
    assert result.evaluation.localisation.pixel_auroc == pytest.approx(
        roc_auc_score(pixels, np.concatenate([m.ravel() for m in finite])), abs=1e-12
    )
    assert result.evaluation.image.auroc == pytest.approx(roc_auc_score(labels, detector.scores), abs=1e-12)
    np.testing.assert_array_equal(result.arrays.image_scores, detector.scores)
    np.testing.assert_array_equal(result.arrays.labels(), labels)
    assert result.arrays.sample_ids == tuple(s.id for s in category.test)
    assert result.arrays.spro_fpr[-1] == 1.0
    for kind in ("dent", "scratch"):
        some = [i for i, s in enumerate(category.test) if s.defect_type in ("good", kind)]
        expected = plain_auspro([finite[i] for i in some], [truths[i] for i in some], 0.1)
        assert result.evaluation.defect_types[kind].auspro[0.1] == pytest.approx(expected, abs=1e-12)
    assert {p.source for p in result.evaluation.operating_points} == {"test good", "train good", "best F1"}
    assert result.evaluation.notes == ()


def test_sink_sees_every_image_once_with_its_place():
    category, _, detector, _ = memory_case()
    seen, stages = {}, []
    evaluate(
        detector,
        category,
        map_sink=lambda index, sample, prediction: seen.setdefault(index, (sample, prediction)),
        progress=lambda *a: stages.append(a),
    )
    assert sorted(seen) == list(range(14))
    for index, (sample, prediction) in seen.items():
        assert sample is category.test[index]
        assert prediction.image_scores.tolist() == [detector.scores[index]]
        np.testing.assert_array_equal(prediction.anomaly_maps[0], detector.maps[index])
    assert stages[-1] == ("predict", 14, 14)


def test_images_without_usable_masks_are_left_out_and_named():
    category, truths, detector, reader = memory_case()
    empty = Channel(np.zeros(truths[1].size, dtype=bool), "dent", 0)
    reader.truths[1] = GroundTruth(truths[1].size, (empty,))
    reader.truths[3] = None
    partly = Channel(np.zeros(truths[5].size, dtype=bool), "dent", 0)
    reader.truths[5] = GroundTruth(truths[5].size, (partly, *truths[5].channels))
    result = evaluate(detector, category).evaluation
    assert "1 defective image has an empty mask: left out of localisation (dent/001)" in result.notes
    assert "1 defective image has no mask: left out of localisation (scratch/003)" in result.notes
    assert "channels without a pixel were left out in: dent/005" in result.notes
    rest = [k for k in range(14) if k not in (1, 3)]
    placed = [place_map(detector.maps[k], FullFrame, truths[k].size) for k in rest]
    full = [truths[k] if k != 5 else GroundTruth(truths[5].size, truths[5].channels[1:]) for k in rest]
    assert result.localisation.auspro[0.3] == pytest.approx(plain_auspro(placed, full, 0.3), abs=1e-12)
    assert result.image.n_defective == 7  # image-level figures keep them


def test_without_maps_masks_or_defects():
    category, _, detector, reader = memory_case()
    detector.maps = None
    result = evaluate(detector, category).evaluation
    assert result.localisation is None
    assert result.image.auroc is not None
    assert any("no anomaly maps" in note for note in result.notes)

    category, _, detector, reader = memory_case()
    reader.truths[:] = [t if not t.channels else None for t in reader.truths]
    result = evaluate(detector, category)
    assert result.evaluation.localisation is None
    assert result.arrays.spro is None
    assert any("7 defective images have no mask" in note for note in result.evaluation.notes)

    category, _, detector, _ = memory_case()
    result = evaluate(detector, [s for s in category.test if not s.is_defective]).evaluation
    assert result.localisation is None
    assert result.image.auroc is None
    assert any("no defective test images" in note for note in result.notes)

    result = evaluate(detector, [s for s in category.test if s.is_defective]).evaluation
    assert result.localisation.auspro[1.0] > 0
    assert any("no good test images" in note for note in result.notes)
    with pytest.raises(DataError, match="no test images"):
        evaluate(detector, [])


@pytest.mark.parametrize(("wrong", "message"), [(-1, "canned gave 13 predictions for 14"), (1, "more predictions")])
def test_too_few_or_too_many_predictions_are_the_detectors_fault(wrong, message):
    category, _, detector, _ = memory_case()

    def iterate_predictions(images, *, progress=None):
        scores = np.zeros(len(images) + wrong, dtype=np.float32)
        yield Prediction(scores, np.zeros((len(scores), 2, 2), dtype=np.float32))

    detector.iterate_predictions = iterate_predictions
    with pytest.raises(RuntimeError, match=message):
        evaluate(detector, category)


@pytest.mark.parametrize(("where", "value"), [("score", np.nan), ("map", np.inf), ("map", np.nan)])
def test_scores_that_are_not_finite_name_the_image(where, value):
    category, _, detector, _ = memory_case()
    if where == "score":
        detector.scores[4] = value
    else:
        detector.maps[4][0, 0] = value
    with pytest.raises(DetectorError, match=r"4\.png"):
        evaluate(detector, category)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared parity case is not here")
def test_full_parity_case(tmp_path, monkeypatch):
    """The study's evaluator within what its sampling allows, the exact integration to rounding."""
    spec = importlib.util.spec_from_file_location("make_parity_case", SHARED / "make_parity_case.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    save = generator.save

    def save_blank_images(path, array, mode=None, **options):
        """Only the size of the images matters here; compressing their noise would take nearly all the time."""
        blank = Path(path).parts[-3] in ("train", "test")
        return save(path, np.zeros(array.shape[:2], dtype=np.uint8) if blank else array, mode, **options)

    monkeypatch.setattr(generator, "save", save_blank_images)
    monkeypatch.setattr(sys, "argv", ["make_parity_case.py", "--out", str(tmp_path)])
    generator.main()
    report = evaluate_maps(tmp_path / "maps", load_dataset(tmp_path / "dataset"))
    assert report.refused == {}
    exact = json.loads((SHARED / "expected" / "exact.json").read_text())
    assert set(report.results) == set(exact)
    for name, result in report.results.items():
        ours = official_metrics(result.evaluation)["localization"]["auc_spro"]
        assert ours == pytest.approx(exact[name], abs=1e-9)
        official = json.loads((SHARED / "expected" / name / "official.json").read_text())
        assert ours == pytest.approx(official["localization"]["auc_spro"], abs=1e-4)
