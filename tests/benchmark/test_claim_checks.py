from __future__ import annotations

from dataclasses import replace

import pytest
from scipy import stats

from andon.benchmark.claim_checks import ClaimCheck, RunFigures, check_claim, check_claims, published_figures
from andon.benchmark.protocols import StudyProtocol
from andon.benchmark.published import CATEGORIES, CLAIMS, METHODS, StudyClaim


def failing(checks: list[ClaimCheck]) -> list[str]:
    return [check.claim.text for check in checks if check.agrees is False]


def test_the_studys_text_agrees_with_its_tables_but_for_the_known_contradiction() -> None:
    checks = check_claims(published_figures())
    assert [check.claim for check in checks] == list(CLAIMS)
    assert failing(checks) == [c.text for c in CLAIMS if c.doubt]
    unknown = {check.reason for check in checks if check.agrees is None}
    assert unknown == {
        "no single runs of cflow on underbody_pipes",
        "no validation_share of efficientad on engine_wiring",
        "no images_per_second of cflow on engine_wiring",
        "no auroc@1 shot of patchcore on underbody_pipes",
    }
    assert sum(check.agrees is True for check in checks) == len(CLAIMS) - 5 - 1


def test_only_a_one_sided_test_finds_what_section_5_1_says_of_chance() -> None:
    """64.2 ± 19.7 of eight runs against 50: one-sided p is below 5 %, two-sided it is not."""
    t = (64.2 - 50) / (19.7 / 7**0.5)
    assert stats.t.sf(t, 7) < 0.05 < 2 * stats.t.sf(t, 7)
    claims = [c for c in CLAIMS if c.statistic == "above chance"]
    assert [check.agrees for check in check_claims(published_figures(), claims=claims)] == [True, True]


def runs(cells: dict[tuple[str, str], list[float]], quantity: str = "auroc") -> dict[tuple[str, str, str], RunFigures]:
    return {(quantity, method, category): RunFigures.of(values) for (method, category), values in cells.items()}


def test_extremes_and_means_over_runs() -> None:
    figures = runs({("cflow", "underbody_pipes"): [30.0, 90.0]})
    claim = StudyClaim("5", "its best run", "auroc", "cflow", "underbody_pipes", 90.04, "maximum")
    assert check_claim(claim, figures) == ClaimCheck(claim, 90.0, True)
    lowest = replace(claim, statistic="minimum", figure=31)
    assert check_claim(lowest, figures) == ClaimCheck(lowest, 30.0, False)


def test_a_mean_agrees_where_it_does_not_differ_significantly_from_the_print() -> None:
    claim = next(c for c in CLAIMS if c.quantity == "auroc" and c.figure == 79.2)
    near = check_claim(claim, runs({("padim", "engine_wiring"): [78.0, 79.5, 80.5, 78.0]}))
    assert near.agrees is True
    assert "not significantly different" in near.reason
    far = check_claim(claim, runs({("padim", "engine_wiring"): [60.0, 61.0, 62.0, 61.0]}))
    assert far.agrees is False
    assert "differs significantly" in far.reason
    single = check_claim(claim, runs({("padim", "engine_wiring"): [78.0]}))
    assert (single.measured, single.agrees, single.reason) == (78.0, False, "")


def test_ranks_need_every_method_of_the_study() -> None:
    claim = next(c for c in CLAIMS if c.statistic == "rank" and c.method == "padim")
    values = {(m, "engine_wiring"): [50.0 + i, 51.0 + i] for i, m in enumerate(METHODS)}
    assert check_claim(claim, runs(values)).measured == 2
    last = replace(claim, statistic="rank from the last")
    assert check_claim(last, runs(values)).measured == 5
    del values["dsr", "engine_wiring"]
    missing = check_claim(claim, runs(values))
    assert (missing.measured, missing.agrees) == (None, None)
    assert missing.reason == "no auroc of dsr on engine_wiring"


def test_best_sets_follow_the_protocol() -> None:
    claim = next(
        c for c in CLAIMS if c.statistic == "in best set" and c.category == "pipe_clip" and c.method == "draem"
    )
    figures = published_figures()
    assert check_claim(claim, figures).agrees is True
    behind = replace(claim, method="patchcore")
    assert check_claim(behind, figures).agrees is False
    assert check_claim(behind, figures, StudyProtocol(correction="holm")).agrees is True


def test_of_many_places_the_one_against_the_claim_counts() -> None:
    claim = next(c for c in CLAIMS if c.quantity == "tpr_at_tnr_99" and c.method == "efficientad")
    below = runs({("efficientad", c): [1.0, 2.0] for c in CATEGORIES}, claim.quantity)
    assert check_claim(claim, below).agrees is True
    beyond = below | runs({("efficientad", "pipe_clip"): [12.0, 13.0]}, claim.quantity)
    assert check_claim(claim, beyond) == ClaimCheck(claim, 12.5, False)
    counted = next(c for c in CLAIMS if c.threshold == 99 and c.method == "patchcore")
    shares = runs({("patchcore", c): [99.5 if i < 2 else 99.0] for i, c in enumerate(CATEGORIES)}, counted.quantity)
    assert check_claim(counted, shares).agrees is True


def test_every_method_is_meant_where_none_is_named() -> None:
    claim = next(c for c in CLAIMS if c.figure == 36000)
    seconds = {("training_seconds", m, ""): RunFigures.of([100.0]) for m in METHODS}
    assert check_claim(claim, seconds).agrees is True
    slow = seconds | {("training_seconds", "dsr", ""): RunFigures.of([40000.0])}
    assert check_claim(claim, slow) == ClaimCheck(claim, 40000.0, False)


def test_single_runs_cannot_be_tested_against_chance() -> None:
    claim = next(c for c in CLAIMS if c.statistic == "above chance" and c.category)
    check = check_claim(claim, runs({("cflow", "underbody_pipes"): [80.0]}))
    assert check.agrees is None
    assert "cannot be tested" in check.reason


def test_a_claim_that_counts_needs_a_threshold() -> None:
    with pytest.raises(ValueError, match="threshold"):
        check_claim(StudyClaim("5", "x", "auroc", "padim", "", 1, over="how many categories"), {})
    nothing = RunFigures.of([None, float("nan")])
    assert (nothing.summary.mean, nothing.minimum, nothing.maximum) == (None, None, None)
