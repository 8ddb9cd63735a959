from __future__ import annotations

import math
from itertools import combinations_with_replacement
from typing import get_args

import numpy as np
import pytest

from andon.benchmark.published import CATEGORIES, METHODS, RUNS, Metric, published, short_name
from andon.benchmark.statistics import Summary, best_set, summarise

PERCENTAGES = [m for m in get_args(Metric) if m != "training_seconds"]


def row(metric: Metric, category: str) -> dict[str, Summary]:
    cells = {m: published(metric, m, category) for m in METHODS}
    return {m: Summary.from_printed(c.mean, c.sd, RUNS) for m, c in cells.items() if c is not None}


def test_every_cell_is_there() -> None:
    for metric in PERCENTAGES:
        for method in METHODS:
            assert all(published(metric, method, category) for category in CATEGORIES)
    assert published("auroc", "cflow", "bottle") is None
    assert published("auroc", "thumbnail-nn", "tank_screw") is None
    assert published("training_seconds", "padim", None) is not None
    assert published("training_seconds", "padim", "tank_screw") is None
    assert published("tpr_at_tnr_99", "padim", None) is None
    assert (short_name("tank_screw"), short_name("bottle")) == ("T. screw", "bottle")


@pytest.mark.parametrize("metric", ["auroc", "ap", "auspro"])
@pytest.mark.parametrize("method", METHODS)
def test_mean_rows_are_the_mean_and_population_deviation_across_categories(metric: Metric, method: str) -> None:
    printed = published(metric, method, None)
    assert printed is not None
    means = [c.mean for c in (published(metric, method, k) for k in CATEGORIES) if c is not None]
    # Every printed value is rounded to 0.05: both figures may move by that much, and be rounded themselves.
    assert np.mean(means) == pytest.approx(printed.mean, abs=0.1)
    deviation_fits = abs(np.std(means) - printed.sd) <= 0.1
    assert deviation_fits == ("deviation" not in printed.misprint)
    if "is 88.5" in printed.misprint:
        assert (round(float(np.mean(means)), 1), printed.mean) == (88.5, 88.4)
    if "is 24.6" in printed.misprint:
        assert (round(float(np.std(means)), 1), printed.sd) == (24.6, 24.8)


@pytest.mark.parametrize("metric", PERCENTAGES)
def test_only_the_known_misprint_is_impossible(metric: Metric) -> None:
    for method in METHODS:
        for category in CATEGORIES:
            cell = published(metric, method, category)
            assert cell is not None
            # Of n values in 0..100 with mean m the widest population spread has all but one at an end.
            room = min(cell.mean, 100 - cell.mean) + 0.05
            possible = cell.sd - 0.05 <= room * math.sqrt(RUNS - 1)
            assert possible == (not cell.misprint), (metric, method, category)


@pytest.mark.parametrize(
    ("metric", "method"), [("tpr_at_tnr_95", "cflow"), ("tpr_at_tnr_95", "padim"), ("tpr_at_tnr_90", "dsr")]
)
def test_printed_deviations_are_the_populations(metric: Metric, method: str) -> None:
    """underbody_screw has 18 defective images: of all outcomes of 8 runs with the printed mean, which fit the sd?"""
    cell = published(metric, method, "underbody_screw")
    assert cell is not None
    fits = {0: False, 1: False}
    few = round(min(cell.mean, 100 - cell.mean) / 100 * 18 * RUNS) + 1
    for found in combinations_with_replacement(range(few + 1), RUNS):
        rates = np.asarray(found) / 18 * 100
        if cell.mean > 50:
            rates = 100 - rates
        if round(float(rates.mean()), 1) == cell.mean:
            for ddof in fits:
                fits[ddof] |= round(float(rates.std(ddof=ddof)), 1) == cell.sd
    assert fits == {0: True, 1: False}


def test_best_sets_agree_with_what_the_paper_says_of_them() -> None:
    # Two cells whose bold survives in the paper's open text.
    assert best_set(row("tpr_at_tnr_90", "tank_screw")) == {"patchcore"}
    assert "dsr" in best_set(row("ap", "underbody_screw"))
    # Section 5.4: EfficientAD "among the highest AUROCs for pipe_clip, along with DRAEM and DSR, and engine_wiring,
    # along with PaDiM".
    assert best_set(row("auroc", "pipe_clip")) == {"efficientad", "draem", "dsr"}
    assert best_set(row("auroc", "engine_wiring")) == {"efficientad", "padim"}
    # 5.6: Patchcore's AUROC, 5.3: DSR's AUROC, AP and segmentation.
    for category in ("tank_screw", "underbody_pipes", "underbody_screw"):
        assert "patchcore" in best_set(row("auroc", category))
    for category in ("pipe_clip", "pipe_staple", "underbody_screw"):
        assert "dsr" in best_set(row("auroc", category)) & best_set(row("ap", category))
    for category in ("pipe_clip", "pipe_staple", "tank_screw"):
        assert "dsr" in best_set(row("auspro", category))


def test_a_corrected_test_would_contradict_the_paper() -> None:
    assert "patchcore" in best_set(row("auroc", "pipe_clip"), correction="holm")


def test_how_the_deviation_is_read_decides_one_best_set() -> None:
    changed = []
    for metric in PERCENTAGES:
        for category in CATEGORIES:
            cells = {m: published(metric, m, category) for m in METHODS}
            sample = {m: Summary.from_printed(c.mean, c.sd, RUNS, ddof=1) for m, c in cells.items() if c is not None}
            if best_set(row(metric, category)) != best_set(sample):
                changed.append((metric, category))
    assert changed == [("tpr_at_tnr_95", "engine_wiring")]


def test_the_mean_rows_bold_needs_the_runs_not_the_categories() -> None:
    """Table 6 marks Patchcore's mean alone: across six categories no test finds that, across eight runs it does."""
    across = {
        m: summarise([c.mean for c in (published("auroc", m, k) for k in CATEGORIES) if c is not None]) for m in METHODS
    }
    assert len(best_set(across)) > 1
    over_runs = {}
    for method in METHODS:
        cells = [c for c in (published("auroc", method, k) for k in CATEGORIES) if c is not None]
        # Runs are independent across categories: variances of the mean over six of them add up.
        sd = math.sqrt(sum(c.sd**2 for c in cells)) / len(cells)
        over_runs[method] = Summary.from_printed(float(np.mean([c.mean for c in cells])), sd, RUNS)
    assert best_set(over_runs) == {"patchcore"}
