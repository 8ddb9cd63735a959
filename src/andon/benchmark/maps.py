"""A folder of anomaly maps on a data set: from files to figures, streaming."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from andon._tools.files import read_regular
from andon.core import (
    AndonError,
    Category,
    DataError,
    Dataset,
    ProgressCallback,
    listed,
    no_progress,
)
from andon.data import MAP_SUFFIXES, MapFiles, find_maps, map_folder, read_map, sample_key
from andon.evaluation import (
    FPR_LIMITS,
    CategoryResult,
    Evaluation,
    Interpolation,
    LocalisationAccumulator,
    category_result,
)

__all__ = ["MapsReport", "evaluate_maps", "official_metrics"]

_MOST_SCORES = 2**28
"""Largest table of scores, bytes: some millions of images."""
_FILE_SUFFIXES = (*MAP_SUFFIXES, ".jpg", ".jpeg", ".bmp")


@dataclass(frozen=True)
class MapsReport:
    """What ``evaluate_maps`` gives.

    Attributes:
        results: by category.
        refused: why a category could not be evaluated, one line each.
    """

    results: dict[str, CategoryResult] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def evaluate_maps(
    maps_dir: Path,
    dataset: Dataset,
    *,
    categories: Sequence[str] | None = None,
    fpr_limits: Sequence[float] = FPR_LIMITS,
    scores: Path | None = None,
    interpolation: Interpolation = "bicubic",
    progress: ProgressCallback = no_progress,
) -> MapsReport:
    """Judges anomaly maps from files: a drop-in for the AutoVI study's official evaluator, exact and streaming.

    Maps lie in ``<maps_dir>/<category>[/test]/<defect type>/<name>.<suffix>``, or, for one category, in
    ``<maps_dir>[/test]/<defect type>/…``. They are resized to their image, by default as the official evaluator does
    it (8-bit maps stay 8-bit). Image scores are the maxima of the stored maps, unless a file gives them.

    Args:
        maps_dir: folder of the maps.
        dataset: the data set they belong to.
        categories: names of the categories; None for all.
        fpr_limits: pixel-FPR limits of AUsPRO, each in (0, 1].
        scores: CSV file with the columns ``sample`` (``<defect type>/<name>``) and ``score``, and ``category`` where
            there are several.
        interpolation: see ``place_map``.
        progress: stages are categories.

    Returns:
        Results and refusals by category: a category whose maps are missing or bad does not stop the others.

    Raises:
        ConfigError: a limit outside (0, 1].
        DataError: nothing could be evaluated (with every reason), or the table of scores is wrong.
    """
    maps_dir = Path(maps_dir)
    if not maps_dir.is_dir():
        raise DataError(f"{maps_dir}: no such folder of anomaly maps")
    LocalisationAccumulator(fpr_limits)  # refuses wrong limits before anything is read
    chosen = [dataset[name] for name in categories] if categories is not None else list(dataset)
    table = {} if scores is None else _read_scores(Path(scores))
    report = MapsReport()
    for category in chosen:
        try:
            files = _map_files(maps_dir, category, len(chosen) == 1)
            given = None if scores is None else _scores_of(Path(scores), table, category, len(chosen) == 1)
            report.results[category.name] = _evaluate_files(files, category, fpr_limits, given, interpolation, progress)
        except AndonError as error:
            report.refused[category.name] = str(error)
    if not report.results:
        raise DataError("; ".join(report.refused.values()) or f"data set {dataset.name} has no category")
    return report


def _map_files(maps_dir: Path, category: Category, single: bool) -> MapFiles:
    folder = map_folder(maps_dir, category, single=single)
    if folder is None:
        raise DataError(
            f"{maps_dir}: no maps of category {category.name}; expected "
            f"{category.name}/<defect type>/<name>.png (or .tif, .tiff, .npy)"
        )
    files = find_maps(folder, category)
    if not files.samples:
        raise DataError(f"category {category.name} ({category.root}) has no test images")
    return files


def _evaluate_files(
    files: MapFiles,
    category: Category,
    limits: Sequence[float],
    given: npt.NDArray[np.float64] | None,
    interpolation: Interpolation,
    progress: ProgressCallback,
) -> CategoryResult:
    samples = files.samples
    scores = np.zeros(len(samples))
    order = sorted(range(len(samples)), key=lambda i: not samples[i].is_defective)  # lets good float maps stream
    with LocalisationAccumulator(limits, interpolation=interpolation, defective_first=True) as localisation:
        for n, index in enumerate(order):
            sample, path = samples[index], files.paths[index]
            stored = read_map(path)
            scores[index] = stored.max()
            localisation.update(
                stored, sample.ground_truth(), group=sample.defect_type, name=sample_key(sample), source=path
            )
            progress(category.name, n + 1, len(samples))
        notes = [] if given is not None else ["image scores are the maxima of the anomaly maps"]
        if files.surplus:
            count = len(files.surplus)
            notes.append(f"{count} maps belong to no test image and were ignored ({listed(files.surplus)})")
        return category_result(
            scores if given is None else given,
            [s.defect_type for s in samples],
            localisation,
            sample_ids=[s.id for s in samples],
            names=[str(s.path) for s in samples],
            notes=notes,
        )


def _read_scores(path: Path) -> dict[tuple[str | None, str], float]:
    """Image scores of a CSV file by (category or None, ``<defect type>/<name>``)."""
    table: dict[tuple[str | None, str], float] = {}
    try:
        with io.StringIO(read_regular(path, _MOST_SCORES, what="a table").decode("utf-8-sig"), newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames is None or not {"sample", "score"} <= set(reader.fieldnames):
                raise DataError(f"{path}: the first line must name the columns: sample,score (and category)")
            for row in reader:
                try:
                    score = float(row["score"])
                except (TypeError, ValueError):
                    raise DataError(f"{path}, line {reader.line_num}: {row['score']!r} is not a number") from None
                if not np.isfinite(score):
                    raise DataError(f"{path}, line {reader.line_num}: the score is {score}; it must be finite")
                key = (row.get("category") or None, _sample_name(row["sample"] or ""))
                if key in table:
                    raise DataError(f"{path}, line {reader.line_num}: a second score for {row['sample']}")
                table[key] = score
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table of scores ({error})") from error
    return table


def _sample_name(text: str) -> str:
    name = text.strip().replace("\\", "/").removeprefix("./").removeprefix("test/")
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in _FILE_SUFFIXES else name


def _scores_of(
    path: Path, table: dict[tuple[str | None, str], float], category: Category, single: bool
) -> npt.NDArray[np.float64]:
    out, missing = [], []
    for sample in category.test:
        name = sample_key(sample)
        score = table.get((category.name, name), table.get((None, name)) if single else None)
        if score is None:
            missing.append(name)
        else:
            out.append(score)
    if missing:
        raise DataError(f"{path}: no score for {len(missing)} test images of {category.name}: {listed(missing)}")
    return np.asarray(out)


def official_metrics(evaluation: Evaluation) -> dict[str, Any]:
    """The figures as the official evaluator's ``metrics.json`` has them (AUsPRO by limit)."""
    values = evaluation.localisation.auspro if evaluation.localisation is not None else {}
    return {"localization": {"auc_spro": {repr(limit): value for limit, value in sorted(values.items())}}}
