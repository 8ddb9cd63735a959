from __future__ import annotations

import math

import pytest

from andon.benchmark.published import CATEGORIES, CHARACTERISTICS, METHODS, published, published_suitability
from andon.benchmark.suitability import CHARACTERISTIC_CATEGORIES, derive_suitability


def study_aurocs(method: str) -> dict[str, float | None]:
    cells = {category: published("auroc", method, category) for category in CATEGORIES}
    return {category: None if cell is None else cell.mean for category, cell in cells.items()}


def test_rows_are_table_14s_and_categories_autovis() -> None:
    assert tuple(CHARACTERISTIC_CATEGORIES) == CHARACTERISTICS
    assert {c for members in CHARACTERISTIC_CATEGORIES.values() for c in members} == set(CATEGORIES)


def test_on_the_studys_figures_the_rule_gives_22_of_the_30_marks() -> None:
    agreeing, wrong = 0, set()
    for method in METHODS:
        for characteristic, verdict in derive_suitability(study_aurocs(method)).items():
            if verdict.suits == published_suitability(characteristic, method):
                agreeing += 1
            else:
                wrong.add((characteristic, method))
    assert agreeing == 22
    assert {("Struct. defects", "cflow"), ("Small defects", "efficientad")} < wrong


def test_the_rule() -> None:
    kinds = {"k": ("x", "y")}
    high = derive_suitability({"x": 100.0, "y": 60.0}, categories=kinds)["k"]
    assert (high.suits, high.auroc) == (True, 80)
    assert high.reason == "mean AUROC 80.0 ≥ 80 (x 100.0, y 60.0)"
    assert derive_suitability({"x": 100.0, "y": 59.9}, categories=kinds)["k"].suits is False
    assert derive_suitability({"x": 70.0, "y": 60.0}, categories=kinds, suitable_from=65)["k"].suits is True


@pytest.mark.parametrize("absent", [{}, {"y": None}, {"y": math.nan}])
def test_without_a_figure_there_is_no_verdict(absent: dict[str, float | None]) -> None:
    verdict = derive_suitability({"x": 99.0, **absent}, categories={"k": ("x", "y")})["k"]
    assert (verdict.suits, verdict.auroc) == (None, None)
    assert verdict.reason == "no AUROC on y"
