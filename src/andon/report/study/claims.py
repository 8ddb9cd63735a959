"""What the study's text says of its results, sentence by sentence, and what was found here."""

from __future__ import annotations

from dataclasses import dataclass, replace

from andon.benchmark import ClaimCheck, RunFigures, check_claims, published
from andon.report.metrics import Metric, auspro
from andon.report.results import Column, DatasetResults, Runs
from andon.report.study.main_tables import comparable_methods
from andon.report.study.model import Block, Cell, StudyRow, StudyTable, missing_table
from andon.report.study.parts import Study, experiment_ids
from andon.report.tables import primary_limit

__all__ = ["Claim", "claims_of", "claims_table", "measured_figures"]

_STATISTICS = {"rank", "rank from the last", "in best set"}
"""Those that are about all the study's methods together."""


@dataclass(frozen=True)
class Claim:
    """A claim and what was found.

    Attributes:
        says: the study's figure.
        here: ours, "–" where there is none.
        verdict: "agrees", "differs", "no figure", "not compared".
        reason: what it rests on.
    """

    check: ClaimCheck
    says: str
    here: str
    verdict: str
    reason: str
    ids: tuple[str, ...] = ()


def claims_of(study: Study) -> list[Claim]:
    """All claims, in the text's order.

    A verdict is given only where everything that the claim is about is configured as in the study, and on AutoVI.
    """
    if not study.has_main:
        return []
    figures, ids = measured_figures(study)
    comparable = comparable_methods(study)
    found = []
    for check in check_claims(figures, study.protocol):
        claim = check.claim
        about = set(published.METHODS) if not claim.method or claim.statistic in _STATISTICS else {claim.method}
        used = tuple(
            dict.fromkeys(
                i
                for (quantity, method, category), own in ids.items()
                if quantity == claim.quantity and method in about and claim.category in ("", category)
                for i in own
            )
        )
        reason = "; ".join(t for t in (check.reason, claim.doubt) if t)
        verdict = "no figure" if check.agrees is None else "agrees" if check.agrees else "differs"
        if check.agrees is not None and not about <= comparable:
            verdict = "not compared"
            reason = (
                "another data set"
                if not study.on_autovi
                else f"not the study's configuration: {', '.join(sorted(about - comparable))}"
            )
        here = "–" if check.measured is None else _number(claim, check.measured)
        found.append(Claim(check, _said(check), here, verdict, reason, used))
    return found


def claims_table(claims: list[Claim], why: str) -> StudyTable:
    """The claims as a table, for files.

    Args:
        why: there are none.
    """
    title = "What the study's text says, and what is found here"
    if not claims:
        return missing_table("claims", title, why or "there are no claims")
    rows = []
    for claim in claims:
        verdict = f"{claim.verdict}: {claim.reason}" if claim.reason else claim.verdict
        cells = (
            Cell(claim.check.claim.text),
            Cell(claim.says, claim.check.claim.figure),
            Cell(claim.here, claim.check.measured, ids=claim.ids),
            Cell(verdict),
        )
        rows.append(StudyRow(claim.check.claim.section, cells))
    block = Block(("The study says", "There", "Here", "Verdict"), tuple(rows), words=True)
    return StudyTable("claims", title, (block,), stub="Section", notes=("Figures are in the print's units.",))


def _said(check: ClaimCheck) -> str:
    claim = check.claim
    relation = {"below": "< ", "above": "> ", "at least": "≥ ", "at most": "≤ ", "equals": ""}[claim.relation]
    return relation + _number(claim, claim.figure)


def _number(claim: published.StudyClaim, value: float) -> str:
    if claim.over == "how many categories":
        return f"{value:g} {'category' if value == 1 else 'categories'}"
    if claim.statistic in ("in best set", "above chance"):
        return "yes" if value else "no"
    if claim.statistic in _STATISTICS:
        return f"rank {value:g}" if claim.statistic == "rank" else f"rank {value:g} from the end"
    if claim.quantity == "training_seconds":
        return f"{value:,.0f} s"
    return f"{value:.3g}" if claim.quantity == "images_per_second" else f"{value:.1f} %"


def measured_figures(
    study: Study,
) -> tuple[dict[tuple[str, str, str], RunFigures], dict[tuple[str, str, str], tuple[str, ...]]]:
    """Figures in the print's units by (quantity, method, category), and the experiments behind each.

    Of a method that stands in several columns the first counts.
    """
    figures: dict[tuple[str, str, str], RunFigures] = {}
    ids: dict[tuple[str, str, str], tuple[str, ...]] = {}
    names = ("auroc", "ap", "tpr_at_tnr_99", "tpr_at_tnr_95", "tpr_at_tnr_90", "training_seconds", "images_per_second")
    metrics = [*(study.metrics[name] for name in names), replace(auspro(primary_limit(study.main)), name="auspro")]
    for column in reversed(study.main.columns):
        for row in study.main.rows:
            runs = study.main.get(row, column)
            for metric in metrics:
                key = (metric.name, column.method, row.category)
                figures[key], ids[key] = _figures(metric, runs), experiment_ids([runs])
        share = column.spec.config.get("validation_share")
        if isinstance(share, int | float):
            figures["validation_share", column.method, ""] = RunFigures.of([100.0 * share], exact=True)
    _one_shot(study, figures, ids)
    return figures, ids


def _figures(metric: Metric, runs: Runs) -> RunFigures:
    scale = 100 if metric.unit == "%" else 1
    used = runs
    if metric.name == "training_seconds":
        used = Runs(tuple(r for r in runs.records if not r.features_cached)) if runs.records else runs
    values = used.values(metric.read).values()
    exact = used.exact and metric.unit == "%"
    return RunFigures.of([None if v is None else scale * v for v in values], exact=exact)


def _one_shot(
    study: Study,
    figures: dict[tuple[str, str, str], RunFigures],
    ids: dict[tuple[str, str, str], tuple[str, ...]],
) -> None:
    if study.missing("figure5"):
        return
    results: DatasetResults = study.parts["figure5"].main
    single: list[Column] = [c for c in results.columns if c.protocol.shots == 1]
    for column in reversed(single):
        for row in results.rows:
            key = ("auroc@1 shot", column.method, row.category)
            runs = results.get(row, column)
            figures[key], ids[key] = _figures(study.metrics["auroc"], runs), experiment_ids([runs])
