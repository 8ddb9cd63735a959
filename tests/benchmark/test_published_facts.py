"""Every published figure against the paper's own text, and arithmetic on them."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from andon.benchmark.published import (
    AUTOVI_CATEGORIES,
    CATEGORIES,
    CHARACTERISTICS,
    CLAIMS,
    CONFUSION_MATRIX,
    CONTRADICTIONS,
    LITERATURE,
    LITERATURE_DATASETS,
    METHODS,
    PUBLIC_DATASETS,
    WINDOWS,
    Metric,
    literature_figure,
    published,
    published_augmented,
    published_extra_normalisation,
    published_suitability,
    published_window,
    quantity_differences,
)

from .paper import PAPER, numbers, rows_after, text

with_paper = pytest.mark.skipif(not PAPER.is_file(), reason="the paper's text is not here")
SHORT = {short: category for category, short in CATEGORIES.items()}


@with_paper
@pytest.mark.parametrize(
    ("metric", "marker"),
    [
        ("auroc", "The mean AUROCs from the MVTec LOCO and VisA datasets are reproduced"),
        ("ap", "Classification results measured by AP (in %)"),
        ("auspro", "Segmentation results measured by mean AUsPRO"),
    ],
)
def test_tables_6_7_and_9(metric: Metric, marker: str) -> None:
    header, *rows = rows_after(marker, 8)
    assert header[1:] == list(METHODS.values())
    for label, *cells in rows:
        for method, cell in zip(METHODS, cells, strict=True):
            found = published(metric, method, SHORT.get(label))
            assert found is not None
            assert numbers(cell) == (found.mean, found.sd), (metric, label, method)
    assert [row[0] for row in rows] == [*CATEGORIES.values(), "Mean"]


@with_paper
def test_table_6_quotes_table_2() -> None:
    rows = rows_after("The mean AUROCs from the MVTec LOCO and VisA datasets are reproduced", 3, skip=8)
    assert [row[0] for row in rows] == list(LITERATURE_DATASETS)
    for dataset, *cells in rows:
        for method, cell in zip(METHODS, cells, strict=True):
            found = literature_figure(method, dataset)
            assert (numbers(cell) or None) == (None if found is None else (found.auroc,))


@with_paper
def test_table_2_with_its_asterisks() -> None:
    header, *rows = rows_after("com/sota/anomaly-detection-onmvtec-loco-ad", 13)
    assert tuple(header[1:]) == LITERATURE_DATASETS
    assert [row[0] for row in rows] == list(LITERATURE)
    for method, *cells in rows:
        for dataset, cell in zip(LITERATURE_DATASETS, cells, strict=True):
            found = LITERATURE[method].get(dataset)
            assert cell == ("-" if found is None else f"{found.auroc}{'*' if found.asterisk else ''}")
    quoted = LITERATURE["Patchcore"]
    assert "Papers with Code" in quoted["MVTec LOCO"].source
    assert "method's paper" in quoted["MVTec AD"].source


@with_paper
def test_table_8() -> None:
    header, *rows = rows_after("Classification results measured by True Positive Rates", 19)
    assert header[2:] == list(METHODS.values())
    seen = set()
    for block in range(0, 18, 3):
        category = SHORT[next(row[0] for row in rows[block : block + 3] if row[0])]
        for _, target, *cells in rows[block : block + 3]:
            for method, cell in zip(METHODS, cells, strict=True):
                found = published(f"tpr_at_tnr_{target}", method, category)  # type: ignore[arg-type]
                assert found is not None
                assert numbers(cell) == (found.mean, found.sd), (category, target, method)
                seen.add((category, target, method))
    assert len(seen) == 6 * 3 * 6


@with_paper
def test_table_10() -> None:
    header, (label, *cells) = rows_after("number of images processed per second at evaluation time", 2)
    assert header[1:] == list(METHODS.values())
    assert label == "Training time (in s)"
    for method, cell in zip(METHODS, cells, strict=True):
        found = published("training_seconds", method, None)
        assert found is not None
        assert numbers(cell) == (found.mean, found.sd)


@with_paper
def test_table_11() -> None:
    header, *rows = rows_after("Classification results measured by AUROCs (in %), training with data augmentation", 7)
    assert header[1:] == list(METHODS.values())
    for label, *cells in rows:
        for method, cell in zip(METHODS, cells, strict=True):
            found, plain = published_augmented(method, SHORT[label]), published("auroc", method, SHORT[label])
            assert found is not None
            assert plain is not None
            assert numbers(cell) == (found.auroc.mean, found.auroc.sd)
            assert found.gain == pytest.approx(found.auroc.mean - plain.mean)
            # The open text keeps two of the underlines.
            if "<u>" in cell or "underline" in cell:
                assert found.improved
    assert published_augmented("patchcore", "bottle") is None


@with_paper
def test_table_12() -> None:
    header, *rows = rows_after("measured by AUROCs (in %) for different window sizes", 10)
    assert header[1:] == list(METHODS.values())
    found_sizes: dict[str, list[tuple[int, int]]] = {}
    for label, *cells in rows:
        name, size = label.split(" ", 1)
        width, height = (int(x) for x in numbers(size))
        found_sizes.setdefault(SHORT[name], []).append((width, height))
        for method, cell in zip(METHODS, cells, strict=True):
            found = published_window(method, SHORT[name], (width, height))
            assert found is not None
            assert numbers(cell) == (found.mean, found.sd)
            if (width, height) == (400, 400):
                assert found == published("auroc", method, SHORT[name])
    assert {c: tuple(sizes) for c, sizes in found_sizes.items()} == WINDOWS
    assert published_window("padim", "tank_screw", (400, 400)) is None


@with_paper
def test_table_13() -> None:
    header, *rows = rows_after("for EfficientAD, normalized on the entire training set", 7)
    assert header[1:3] == ["Eff.AD, extra norm.", "Eff.AD, no extra norm."]
    for label, *cells in rows:
        for extra, cell in zip((True, False), cells[:2], strict=True):
            found = published_extra_normalisation(SHORT[label], extra=extra)
            assert found is not None
            assert numbers(cell) == (found.mean, found.sd)
        assert published_extra_normalisation(SHORT[label], extra=False) == published(
            "auroc", "efficientad", SHORT[label]
        )


@with_paper
def test_table_14() -> None:
    header, *rows = rows_after("Suggested usage of the reviewed algorithms", 6)
    assert header[1:] == list(METHODS.values())
    assert [row[0] for row in rows] == list(CHARACTERISTICS)
    for characteristic, *marks in rows:
        for method, mark in zip(METHODS, marks, strict=True):
            assert published_suitability(characteristic, method) is (mark == "1")
    assert published_suitability("Small defects", "thumbnail-nn") is None


@with_paper
def test_table_1() -> None:
    lines = PAPER.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Dataset\tN. images"))
    rows = [line.split("\t") for line in lines[start + 1 : start + 12] if "\t" in line]
    assert len(rows) == len(PUBLIC_DATASETS)
    for (name, images, defects, classes, conditions, logical), found in zip(rows, PUBLIC_DATASETS, strict=True):
        assert name == f"{found.name} ({found.source})"
        assert int(images) == found.images
        assert (None if defects == "Not given" else int(defects)) == found.defects
        assert (int(classes), conditions) == (found.classes, found.conditions)
        assert (logical[0] == "Y") == found.logical_defects
        assert ("a" in logical) == bool(found.note)


@with_paper
def test_table_3_and_its_totals() -> None:
    header, *rows = rows_after("Statistical overview of the AutoVI dataset", 8)
    assert header[0] == "Category"
    *rows, total = rows
    for (name, size, train, good, defective, all_images), found in zip(rows, AUTOVI_CATEGORIES, strict=True):
        assert name == found.category
        assert numbers(size) == (found.width, found.height)
        assert [int(x) for x in (train, good, defective, all_images)] == [
            found.train,
            found.good,
            found.defective,
            found.total,
        ]
    sums = [sum(getattr(c, part) for c in AUTOVI_CATEGORIES) for part in ("train", "good", "defective", "total")]
    assert [int(x) for x in total[2:]] == sums
    own = PUBLIC_DATASETS[-1]
    assert (own.images, own.defects, own.classes) == (sums[3], sums[2], len(AUTOVI_CATEGORIES))
    assert [c.category for c in AUTOVI_CATEGORIES] == list(CATEGORIES)


@with_paper
def test_table_5() -> None:
    lines = PAPER.read_text(encoding="utf-8").splitlines()
    row = next(line for line in lines if line.startswith("Prediction\t")).split("\t")
    predictions, *columns = (cell.lower().split() for cell in row[1:])
    for truth, column in zip(("positive", "negative"), columns, strict=True):
        for prediction, cell in zip(predictions, column, strict=True):
            assert CONFUSION_MATRIX[prediction, truth] == cell.upper()


@with_paper
@pytest.mark.parametrize(
    ("figure", "sentence"),
    [
        (87.8, "a maximum value of 87.8 and a minimum value of 33.1"),
        (33.1, "a maximum value of 87.8 and a minimum value of 33.1"),
        (82.7, "reaches a mean TPR of 82.7% at a TNR of 95% for the pipe_staple"),
        (63.9, "a mean of at most 63.9% for underbody_screw"),
        (10, "not beating 10% TPR at 99% TNR for any category"),
        (5, "a validation defined as 5% of the training data"),
        (79.2, "reaching a mean AUROC of 79.2%"),
        (50, "tank_screw category having an AUROC at 50%"),
        (98.3, "a TPR of 98.3% on underbody_pipes for a TNR of 99%"),
        (2, "a TPR of more than 99% for a TNR of 95%, and does so for two classes"),
        (36000, "stand under the ten-hour mark"),
        (60, "take under one minute to train"),
        (99, "AUROC above 99% with only one training image"),
        (98, "a True Positive Rate of over 98% at a True Negative Rate of 99%"),
        (88.4, "the best AUROC of AutoVI is 88.4%"),
    ],
)
def test_claims_quote_the_text(figure: float, sentence: str) -> None:
    assert sentence in text()
    assert figure in {claim.figure for claim in CLAIMS}


def test_claims_are_of_what_there_is() -> None:
    for claim in CLAIMS:
        assert claim.method in ("", *METHODS)
        assert claim.category in ("", *CATEGORIES)
        assert (claim.over == "category") == bool(claim.category), claim.text
        assert (claim.threshold is not None) == (claim.over == "how many categories" and claim.statistic == "mean")
    assert {c.section for c in CLAIMS} == {"5.1", "5.3", "5.4", "5.5", "5.6", "5.7", "6.3", "7"}
    assert [c.category for c in CLAIMS if c.doubt] == ["underbody_screw"]


@pytest.mark.parametrize("target", ["99", "95", "90"])
def test_cells_without_deviation_that_no_rounding_gives(target: str) -> None:
    """Eight equal runs have k/n exactly: of the ± 0.0 cells four are cut off, the others rounded."""
    for category in AUTOVI_CATEGORIES:
        n = category.defective
        rounded = {round(100 * k / n, 1) for k in range(n + 1)}
        cut = {math.floor(1000 * k / n) / 10 for k in range(n + 1)}
        for method in METHODS:
            metric: Metric = f"tpr_at_tnr_{target}"  # type: ignore[assignment]
            cell = published(metric, method, category.category)
            assert cell is not None
            notes = " ".join(quantity_differences(metric, method, category.category))
            if cell.sd == 0:
                assert cell.mean in cut | rounded
                assert (cell.mean not in rounded) == ("cut off" in notes), (metric, method, category.category)
            else:
                assert "cut off" not in notes


def test_nearest_and_at_least_are_different_points_in_13_of_18_pairs() -> None:
    different = 0
    for category in AUTOVI_CATEGORIES:
        for target in (Fraction(99, 100), Fraction(95, 100), Fraction(90, 100)):
            n = category.good
            at_least = math.ceil(target * n)
            nearest = min(range(n + 1), key=lambda k: (abs(Fraction(k, n) - target), k))
            different += at_least != nearest
    assert different == 13
    assert "13 of its 18" in " ".join(quantity_differences("tpr_at_tnr_95", "dsr"))


def test_the_contradictions_arithmetic() -> None:
    said = {c.where: f"{c.says} | {c.against}" for c in CONTRADICTIONS}
    column = [published("auspro", "cflow", c) for c in CATEGORIES]
    means = [c.mean for c in column if c is not None]
    assert round(float(np.mean(means)), 1) == 22.6
    assert round(4.3 * math.sqrt(7), 1) == 11.4
    assert "11.4" in said["Table 9, CFlow, T. screw"]
    ap = [c.mean for c in (published("ap", "efficientad", k) for k in CATEGORIES) if c is not None]
    assert (round(float(np.std(ap)), 2), round(float(np.std(ap, ddof=1)), 1)) == (24.57, 26.9)
    assert "24.57" in said["Table 7, EfficientAD, Mean"]
    screw, pipes = (published("tpr_at_tnr_99", "patchcore", c) for c in ("underbody_screw", "underbody_pipes"))
    assert screw is not None
    assert pipes is not None
    assert (screw.mean, pipes.mean) == (16.6, 98.3)
    assert "16.6" in said["Section 7"]
    assert "1,530 training, 1,533 good and 887" in said["Table 3 and the published archive"]


def test_differences_are_named_where_they_are() -> None:
    assert any("stretched" in n for n in quantity_differences("auspro", "patchcore"))
    assert not any("stretched" in n for n in quantity_differences("auspro", "padim"))
    for method in METHODS:
        rescaled = any("rescales" in n for n in quantity_differences("auspro", method))
        assert rescaled == (method in ("padim", "efficientad"))
        for metric in ("auroc", "ap", "tpr_at_tnr_99"):
            notes = quantity_differences(metric, method)  # type: ignore[arg-type]
            assert any("batch" in n for n in notes) == (method == "cflow")
            assert any("clips" in n for n in notes) == (method in ("cflow", "draem", "patchcore"))
            assert any("trapezoidal" in n for n in notes) == (metric == "ap")
    assert quantity_differences("auroc", "thumbnail-nn") == ()
    assert len(quantity_differences("training_seconds", "padim")) == 1
