"""The figures that tables show: how each is read from a record, named, formatted and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from andon.benchmark import ExperimentRecord, Summary, published
from andon.evaluation import Evaluation, LocalisationMetrics, OperatingPoint

__all__ = [
    "Metric",
    "Unit",
    "aupro",
    "auspro",
    "defect_auroc",
    "defect_auspro",
    "image_metrics",
    "long_values",
    "point_metric",
]

Unit = Literal["%", "s", "1/s", "MiB", "score"]
Source = Literal["test good", "train good", "best F1"]


@dataclass(frozen=True)
class Metric:
    """A figure of an experiment.

    Attributes:
        name: in files ("tpr_at_tnr_95").
        title: in tables ("TPR at TNR 95 %").
        read: from a record; None where it is undefined. Percentages are fractions.
        unit: how it is shown.
        higher_is_better: None where no best set is marked: an FPR should meet its target, times and memory depend on
            what else the machine did.
        published: the study's name for it, where the study printed it.
    """

    name: str
    title: str
    read: Callable[[ExperimentRecord], float | None]
    unit: Unit = "%"
    higher_is_better: bool | None = True
    published: published.Metric | None = None

    def format(self, value: float) -> str:
        """A value without its unit: "88.4", "1.25", "15,954"."""
        if self.unit == "score":
            return f"{value:.4g}"
        return f"{100 * value if self.unit == '%' else value:,.{self._digits(value)}f}"

    def _digits(self, value: float) -> int:
        if self.unit == "%":
            return 1
        return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 or self.unit == "MiB" else 2

    def format_summary(self, summary: Summary) -> str:
        """ "88.4 ± 0.3"; without deviation where there is none; "–" without a mean."""
        if summary.mean is None:
            return "–"
        if summary.sd is None:
            return self.format(summary.mean)
        if self.unit == "score":
            return f"{self.format(summary.mean)} ± {summary.sd:.2g}"
        sd = 100 * summary.sd if self.unit == "%" else summary.sd
        return f"{self.format(summary.mean)} ± {sd:,.{self._digits(summary.mean)}f}"


def image_metrics() -> dict[str, Metric]:
    """Metrics that do not depend on a plan's options, by name."""

    def image(name: str) -> Callable[[ExperimentRecord], float | None]:
        return lambda r: getattr(r.evaluation.image, name)

    def pixel(name: str) -> Callable[[ExperimentRecord], float | None]:
        return lambda r: getattr(r.evaluation.localisation, name) if r.evaluation.localisation else None

    def tpr(percent: str) -> Callable[[ExperimentRecord], float | None]:
        return lambda r: r.evaluation.image.tpr_at_tnr.get(percent)

    metrics = [
        Metric("auroc", "AUROC", image("auroc"), published="auroc"),
        Metric("ap", "AP", image("ap"), published="ap"),
        Metric("tpr_at_tnr_99", "TPR at TNR 99 %", tpr("99"), published="tpr_at_tnr_99"),
        Metric("tpr_at_tnr_95", "TPR at TNR 95 %", tpr("95"), published="tpr_at_tnr_95"),
        Metric("tpr_at_tnr_90", "TPR at TNR 90 %", tpr("90"), published="tpr_at_tnr_90"),
        Metric("best_f1", "Best F1", image("best_f1")),
        Metric("pixel_auroc", "Pixel AUROC", pixel("pixel_auroc")),
        Metric("pixel_ap", "Pixel AP", pixel("pixel_ap")),
        Metric(
            "training_seconds",
            "Training time",
            lambda r: r.fit_seconds.get("total"),
            "s",
            higher_is_better=None,
            published="training_seconds",
        ),
        Metric("images_per_second", "Images a second", lambda r: r.images_per_second, "1/s", None),
        Metric("peak_memory_mb", "Peak memory", lambda r: r.peak_memory_mb, "MiB", None),
    ]
    for percent in ("99", "95", "90"):
        metrics += [point_metric("train good", percent, "fpr"), point_metric("train good", percent, "fnr")]
    return {metric.name: metric for metric in metrics}


def point_metric(source: Source, percent: str | None, part: Literal["fpr", "fnr", "threshold"]) -> Metric:
    """The threshold of an operating point, or an error rate that it has on the test set.

    Args:
        source: what the threshold was set on.
        percent: the TNR that it was set for, "95"; None for best F1.
    """

    def read(record: ExperimentRecord) -> float | None:
        found = _operating_point(record.evaluation, source, percent)
        return None if found is None else getattr(found, part)

    where = source if percent is None else f"{source}, TNR {percent} %"
    name = f"{part}_{source.replace(' ', '_').lower()}" + (f"_{percent}" if percent else "")
    if part == "threshold":
        return Metric(name, f"Threshold ({where})", read, "score", None)
    return Metric(name, f"{part.upper()} ({where})", read, higher_is_better=None)


def _operating_point(evaluation: Evaluation, source: str, percent: str | None) -> OperatingPoint | None:
    """The operating point of a source ("train good") and TNR ("95"); None where there is none."""
    for point in evaluation.operating_points:
        target = None if point.target_tnr is None else f"{100 * point.target_tnr:g}"
        if point.source == source and target == percent:
            return point
    return None


def _localisation(record: ExperimentRecord, read: Callable[[LocalisationMetrics], float | None]) -> float | None:
    return None if record.evaluation.localisation is None else read(record.evaluation.localisation)


def _exactly(limit: float) -> str:
    """The shortest decimal of a limit that is no other's: "0.05", "0.3333333333333333", "1"."""
    return repr(float(limit)).removesuffix(".0")


def auspro(limit: float) -> Metric:
    """AUsPRO to a pixel FPR, 0.05 say."""
    return Metric(
        f"auspro@{_exactly(limit)}",
        f"AUsPRO to FPR {limit:g}",
        lambda r: _localisation(r, lambda m: m.auspro.get(limit)),
        published="auspro" if limit == 0.05 else None,
    )


def aupro(limit: float) -> Metric:
    """AUPRO to a pixel FPR, 0.3 say."""
    return Metric(
        f"aupro@{_exactly(limit)}",
        f"AUPRO to FPR {limit:g}",
        lambda r: _localisation(r, lambda m: m.aupro.get(limit)),
    )


def defect_auroc(defect_type: str) -> Metric:
    """AUROC of the images of one defect type against all good ones."""

    def read(record: ExperimentRecord) -> float | None:
        found = record.evaluation.defect_types.get(defect_type)
        return found.auroc if found else None

    return Metric(f"auroc[{defect_type}]", "AUROC", read)


def defect_auspro(defect_type: str, limit: float) -> Metric:
    """AUsPRO of the images of one defect type."""

    def read(record: ExperimentRecord) -> float | None:
        found = record.evaluation.defect_types.get(defect_type)
        return found.auspro.get(limit) if found else None

    return Metric(f"auspro@{_exactly(limit)}[{defect_type}]", f"AUsPRO to FPR {limit:g}", read)


def long_values(record: ExperimentRecord) -> Iterator[tuple[str, str, float | None]]:
    """Every figure of a record as (metric, unit, value); fractions are in 0..1, undefined figures are None."""
    evaluation = record.evaluation
    yield "n_train", "images", record.n_train
    yield "n_good", "images", evaluation.image.n_good
    yield "n_defective", "images", evaluation.image.n_defective
    units = {"%": "fraction", "s": "s", "1/s": "1/s", "MiB": "MiB"}
    for metric in image_metrics().values():
        if "_train_good_" not in metric.name:
            yield metric.name, units[metric.unit], metric.read(record)
    if evaluation.localisation is not None:
        for limit, value in evaluation.localisation.auspro.items():
            yield f"auspro@{_exactly(limit)}", "fraction", value
        for limit, value in evaluation.localisation.aupro.items():
            yield f"aupro@{_exactly(limit)}", "fraction", value
    for point in evaluation.operating_points:
        target = "" if point.target_tnr is None else f" TNR {100 * point.target_tnr:g}"
        where = f"[{point.source}{target}]"
        yield f"threshold{where}", "score", point.threshold
        yield f"fpr{where}", "fraction", point.fpr
        yield f"fnr{where}", "fraction", point.fnr
    for defect_type, metrics in evaluation.defect_types.items():
        yield f"n[{defect_type}]", "images", metrics.n
        yield f"auroc[{defect_type}]", "fraction", metrics.auroc
        for limit, value in metrics.auspro.items():
            yield f"auspro@{_exactly(limit)}[{defect_type}]", "fraction", value
    for stage, seconds in record.fit_seconds.items():
        if stage != "total":
            yield f"fit_seconds[{stage}]", "s", seconds
    yield "predict_seconds", "s", record.predict_seconds
    yield "calibration_seconds", "s", record.calibration_seconds
    yield "seconds", "s", record.seconds
