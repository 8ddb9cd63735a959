from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from andon.benchmark.protocols import STUDY_PROTOCOLS, StudyProtocol, study_protocol
from andon.benchmark.statistics import best_set, summarise, welch_p_value
from andon.core import ConfigError
from andon.evaluation import average_precision, tpr_at_nearest_tnr, tpr_at_tnr, trapezoidal_ap


def test_paper_is_the_default_and_what_the_tables_do() -> None:
    paper = study_protocol("paper")
    assert paper == StudyProtocol()
    values = [0.5, 0.7, 0.9]
    assert paper.summarise(values) == summarise(values)
    cells = {"a": summarise([0.9, 0.91, 0.92]), "b": summarise([0.90, 0.91, 0.915]), "c": summarise([0.1, 0.2, 0.3])}
    assert paper.best_set(cells) == best_set(cells) == {"a", "b"}
    assert paper.best_set(cells, higher_is_better=False) == {"c"}
    assert paper.p_value(cells["a"], cells["c"]) == welch_p_value(cells["a"], cells["c"])


def test_the_released_code_differs_where_the_code_says_so() -> None:
    paper, code = STUDY_PROTOCOLS["paper"].model_dump(), STUDY_PROTOCOLS["released-code"].model_dump()
    assert {k: v for k, v in code.items() if v != paper[k]} == {
        "tnr": "nearest",
        "ap": "trapezoidal",
        "antialias": False,
    }


def test_readings_are_those_of_the_evaluation() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) < 20
    scores = rng.normal(0, 1, 60) + labels
    paper, code = STUDY_PROTOCOLS["paper"], STUDY_PROTOCOLS["released-code"]
    assert paper.average_precision(scores, labels) == average_precision(scores, labels)
    assert code.average_precision(scores, labels) == trapezoidal_ap(scores, labels)
    assert paper.average_precision(scores, labels) != code.average_precision(scores, labels)
    for tnr in (0.99, 0.95, 0.9):
        assert paper.tpr_at_tnr(scores, labels, tnr) == tpr_at_tnr(scores, labels, tnr)
        assert code.tpr_at_tnr(scores, labels, tnr) == tpr_at_nearest_tnr(scores, labels, tnr)


def test_options_reach_the_test_and_the_deviation() -> None:
    sample = StudyProtocol(ddof=1, alternative="one-sided", correction="bonferroni", alpha=0.2)
    values = [0.5, 0.7, 0.9]
    assert sample.summarise(values).sd == pytest.approx(np.std(values, ddof=1))
    a, b = summarise([0.8, 0.9, 1.0]), summarise([0.7, 0.8, 0.95])
    assert sample.p_value(a, b) == pytest.approx(welch_p_value(a, b) / 2)
    cells = {"a": a, "b": b, "c": summarise([0.71, 0.8, 0.94])}
    expected = best_set(cells, alpha=0.2, alternative="one-sided", correction="bonferroni")
    assert sample.best_set(cells) == expected
    assert sample.summarise([0.5], exact=True).exact


def test_it_is_frozen_and_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown study protocol 'anomalib'; known: paper, released-code"):
        study_protocol("anomalib")
    with pytest.raises(ValidationError):
        StudyProtocol(ddof=2)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        StudyProtocol().ddof = 1  # type: ignore[misc]
