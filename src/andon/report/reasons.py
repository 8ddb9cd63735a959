"""Why a figure does not exist: what a reader of a "–" has to know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from andon.benchmark import ExperimentRecord

__all__ = ["caution_of", "missing_reason", "reason_notes"]

_LOCALISATION = ("auspro", "aupro", "pixel_")
_CAUSES = ("no anomaly maps", "left out of localisation", "no pixel-FPR")


def missing_reason(metric: str, records: Sequence[ExperimentRecord]) -> str:
    """Why records lack a figure, in a few words.

    Args:
        metric: the figure's name (``andon.report.metrics``).
        records: those without it.
    """
    return "; ".join(dict.fromkeys(_reason(metric, record) for record in records)) or "no run has it"


def _reason(metric: str, record: ExperimentRecord) -> str:
    evaluation = record.evaluation
    if metric == "images_per_second":
        return "speed is measured in the first seed's runs alone, and not where the plan leaves it out"
    if metric in ("training_seconds", "peak_memory_mb"):
        return "it was not measured"
    if evaluation.image.n_defective == 0:
        return "there are no defective test images"
    if metric.startswith(_LOCALISATION):
        notes = [note for note in evaluation.notes if any(cause in note for cause in _CAUSES)]
        return "; ".join(notes) or "no defective image has a mask that shows its defect"
    if evaluation.image.n_good == 0:
        return "there are no good test images"
    if "_train_good" in metric:
        return "no threshold was set on training images (none were held out)"
    if "[" in metric:
        return "there are no test images of this defect type"
    return "it is undefined for these scores"


def caution_of(metric: str, records: Sequence[ExperimentRecord]) -> str:
    """What a figure that exists is not; "" where there is nothing to say of it."""
    if metric.startswith(_LOCALISATION) and any(record.evaluation.image.n_good == 0 for record in records):
        return "no good image is in the pixel-FPR, it is that of the defective images alone"
    return ""


class _Cell(Protocol):
    @property
    def status(self) -> str: ...
    @property
    def reason(self) -> str: ...


def reason_notes(cells: Iterable[tuple[str, _Cell]]) -> list[str]:
    """One note a reason, naming the rows that it holds for.

    Args:
        cells: (label of the row, cell); those without a reason are left out.
    """
    rows: dict[tuple[str, str], list[str]] = {}
    for label, cell in cells:
        if cell.reason:
            labels = rows.setdefault(("“–” " if cell.status == "undefined" else "", cell.reason), [])
            if label not in labels:
                labels.append(label)
    return [f"{mark}({', '.join(labels)}): {reason}." for (mark, reason), labels in rows.items()]
