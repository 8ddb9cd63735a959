"""One method on one category, or a folder of anomaly maps on a data set: from maps to figures, streaming.

Maps come, are placed at image size, counted, and go: nothing here grows with the number of good images. Maps of
defective images are needed twice (see ``andon.evaluation.localization``), so the small raw ones are spooled, beyond
128 MB to a temporary file.
"""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from andon.core import (
    GOOD,
    AndonError,
    Category,
    Channel,
    Dataset,
    FullFrame,
    GroundTruth,
    Prediction,
    ProgressCallback,
    Region,
    Sample,
    listed,
    no_progress,
)
from andon.data.maps import MAP_SUFFIXES, MapFiles, find_maps, map_folder, read_map, sample_key
from andon.evaluation.image import auroc, check_scores, image_metrics, operating_points
from andon.evaluation.localization import FPR_LIMITS, SproAccumulator
from andon.evaluation.placing import place_map
from andon.evaluation.result import DefectTypeMetrics, Evaluation, EvaluationArrays, LocalisationMetrics

if TYPE_CHECKING:  # both import torch, which judging maps from files has no use for
    from andon.data.images import Images
    from andon.methods.base import Method

__all__ = ["CategoryResult", "MapSink", "MapsReport", "evaluate", "evaluate_maps", "official_metrics"]

MapSink = Callable[[int, Sample, Prediction], None]
"""``map_sink(index, sample, prediction)``: the place in the test set, and the prediction of this one image."""

_SPOOL_IN_MEMORY = 128 * 2**20
_CURVE_POINTS = 256
_FILE_SUFFIXES = (*MAP_SUFFIXES, ".jpg", ".jpeg", ".bmp")


@dataclass(frozen=True)
class CategoryResult:
    """What an evaluation gives.

    Attributes:
        evaluation: the figures.
        arrays: scores and curves behind them, in the order of the test samples.
        predict_seconds: wall seconds spent in the method's prediction alone, decoding included; 0 for maps from files.
    """

    evaluation: Evaluation
    arrays: EvaluationArrays
    predict_seconds: float = 0.0


class _Truths:
    """Reads ground truth for localisation, and remembers what had to be left out and why."""

    def __init__(self) -> None:
        self.without: list[str] = []
        self.empty: list[str] = []
        self.part_empty: list[str] = []

    def usable(self, sample: Sample) -> GroundTruth | None:
        """The truth of a defective sample; None where no mask shows its defect."""
        truth = sample.ground_truth()
        name = sample_key(sample)
        if truth is None or not truth.channels:
            self.without.append(name)
            return None
        with_pixels = tuple(c for c in truth.channels if c.mask.any())
        if not with_pixels:
            self.empty.append(name)
            return None
        if len(with_pixels) < len(truth.channels):
            self.part_empty.append(name)
        return GroundTruth(truth.size, with_pixels)

    def notes(self) -> list[str]:
        out = []
        for names, one, many in (
            (self.without, "image has no mask", "images have no mask"),
            (self.empty, "image has an empty mask", "images have an empty mask"),
        ):
            if names:
                verb = one if len(names) == 1 else many
                out.append(f"{len(names)} defective {verb}: left out of localisation ({listed(names)})")
        if self.part_empty:
            out.append(f"channels without a pixel were left out in: {listed(self.part_empty)}")
        return out


class _Unions:
    """Unions of channels, one bit a pixel."""

    def __init__(self) -> None:
        self._packed: dict[int, tuple[tuple[int, int], npt.NDArray[np.uint8]]] = {}

    def put(self, key: int, truth: GroundTruth) -> None:
        self._packed[key] = (truth.size, np.packbits(truth.union()))

    def get(self, key: int) -> GroundTruth:
        """A truth with the same union and size (one channel)."""
        (height, width), packed = self._packed[key]
        mask = np.unpackbits(packed, count=height * width).astype(bool).reshape(height, width)
        return GroundTruth((height, width), (Channel(mask, "union", int(mask.sum())),))

    def __iter__(self) -> Iterator[int]:
        return iter(self._packed)


class _Spool:
    """Float32 maps written once and read back once, in order."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_SPOOL_IN_MEMORY)  # noqa: SIM115 (closed by ``close``)
        self._entries: list[tuple[int, tuple[int, ...], Region]] = []

    def put(self, key: int, scores: npt.NDArray[np.float32], region: Region) -> None:
        try:
            self._file.write(np.ascontiguousarray(scores).tobytes())
        except OSError as error:
            raise AndonError(
                f"{tempfile.gettempdir()}: no room for the anomaly maps of the defective images "
                f"({error.strerror}); free some, or set TMPDIR to a folder with room"
            ) from error
        self._entries.append((key, scores.shape, region))

    def drain(self) -> Iterator[tuple[int, npt.NDArray[np.float32], Region]]:
        self._file.seek(0)
        for key, shape, region in self._entries:
            data = self._file.read(4 * int(np.prod(shape)))
            yield key, np.frombuffer(data, dtype=np.float32).reshape(shape), region
        self.close()

    def close(self) -> None:
        self._file.close()


def evaluate(
    method: Method[Any],
    data: Category | Sequence[Sample],
    *,
    fpr_limits: Sequence[float] = FPR_LIMITS,
    images: Images | None = None,
    calibration_scores: npt.ArrayLike | None = None,
    map_sink: MapSink | None = None,
    progress: ProgressCallback = no_progress,
) -> CategoryResult:
    """Judges a fitted method on test images.

    Maps are judged at image size. Images are predicted defective ones first, which lets the maps stream; their
    order changes no score, and the results are in the order of the samples.

    Args:
        method: fitted.
        data: a category (its test samples are taken), or test samples.
        fpr_limits: pixel-FPR limits of AUsPRO, each in (0, 1].
        images: the same test images in the same order, with a cache behind them; made from the samples if None.
        calibration_scores: image scores ``[m]`` of training images by models that did not see them: for thresholds
            that look at no test image.
        map_sink: gets every prediction as it comes.
        progress: of the prediction.

    Raises:
        AndonError: no test images, an image that cannot be read, or a score that is not finite.
    """
    from andon.data.images import Images

    samples = data.test if isinstance(data, Category) else tuple(data)
    if not samples:
        where = f"category {data.name} ({data.root})" if isinstance(data, Category) else "the evaluation"
        raise AndonError(f"{where} has no test images")
    shown = Images(samples) if images is None else images
    if len(shown) != len(samples):
        raise ValueError(f"{len(shown)} images for {len(samples)} test samples")
    calibration = None if calibration_scores is None else check_scores(calibration_scores)
    order = sorted(range(len(samples)), key=lambda i: not samples[i].is_defective)  # stable: defective ones first

    accumulator = SproAccumulator(fpr_limits)
    truths, unions, spool = _Truths(), _Unions(), _Spool()
    scores = np.zeros(len(samples), dtype=np.float32)
    has_maps = True
    seconds = 0.0

    def count_defective() -> None:
        for key, scores_of_map, region in spool.drain():
            truth = unions.get(key)
            placed = place_map(scores_of_map, region, truth.size)
            accumulator.add_negatives(placed, truth, samples[key].defect_type)

    n_done, counted = 0, False
    predictions = method.iterate_predictions(shown.subset(order), progress=progress)
    try:
        while True:
            start = time.perf_counter()
            batch = next(predictions, None)
            seconds += time.perf_counter() - start
            if batch is None:
                break
            for row in range(len(batch)):
                if n_done == len(samples):
                    raise RuntimeError(f"{method.name} gave more predictions than there are images ({len(samples)})")
                index = order[n_done]
                n_done += 1
                sample = samples[index]
                scores[index] = batch.image_scores[row]
                _check_finite(method, sample, batch, row)
                if map_sink is not None:
                    map_sink(index, sample, _row(batch, row))
                if batch.anomaly_maps is None:
                    has_maps = False
                    continue
                raw = batch.anomaly_maps[row]
                if sample.is_defective:
                    truth = truths.usable(sample)
                    if truth is not None:
                        placed = place_map(raw, batch.region, truth.size)
                        accumulator.add_positives(placed, truth, sample.defect_type)
                        unions.put(index, truth)
                        spool.put(index, raw.astype(np.float32, copy=False), batch.region)
                    continue
                if not counted:
                    count_defective()
                    counted = True
                if accumulator.n_channels:
                    truth = GroundTruth(sample.size())
                    accumulator.add_negatives(place_map(raw, batch.region, truth.size), truth, GOOD)
        if n_done != len(samples):
            raise RuntimeError(f"{method.name} gave {n_done} predictions for {len(samples)} images")
        if not counted:
            count_defective()
    finally:
        spool.close()

    notes = truths.notes()
    if not has_maps:
        notes.append(f"{method.title} gives no anomaly maps: no localisation")
    return _result(samples, scores, accumulator, calibration, notes, seconds)


def _check_finite(method: Method[Any], sample: Sample, batch: Prediction, row: int) -> None:
    if not np.isfinite(batch.image_scores[row]):
        raise AndonError(
            f"{method.name}: the image score of {sample.path} is {batch.image_scores[row]}; training went astray, or "
            "the model file is damaged"
        )
    if batch.anomaly_maps is not None and not np.isfinite(batch.anomaly_maps[row]).all():
        raise AndonError(f"{method.name}: the anomaly map of {sample.path} has values that are not finite")


def _row(batch: Prediction, row: int) -> Prediction:
    maps = None if batch.anomaly_maps is None else batch.anomaly_maps[row : row + 1]
    return Prediction(batch.image_scores[row : row + 1], maps, batch.region)


def _key(limit: float) -> str:
    return f"{limit:.12g}"


def _by_key(values: dict[float, float]) -> dict[str, float]:
    return {_key(limit): value for limit, value in values.items()}


def _result(
    samples: Sequence[Sample],
    scores: npt.NDArray[Any],
    accumulator: SproAccumulator,
    calibration: npt.NDArray[np.float64] | None,
    notes: list[str],
    seconds: float,
) -> CategoryResult:
    """Puts the figures together."""
    types = tuple(s.defect_type for s in samples)
    defective = np.asarray([t != GOOD for t in types], dtype=bool)
    names = [str(s.path) for s in samples]
    image = image_metrics(scores, defective, names=names)
    if image.n_defective == 0:
        notes.append("no defective test images: no figure that compares with good ones")
    if image.n_good == 0:
        notes.append("no good test images: no figure that compares with defective ones")
    localisation = None
    curve_fpr = curve_spro = None
    if accumulator.n_channels:
        result = accumulator.result()
        localisation = LocalisationMetrics(
            n_channels=result.n_channels,
            auspro=_by_key(result.auspro),
            aupro=_by_key(result.aupro),
            pixel_auroc=result.pixel_auroc,
            pixel_ap=result.pixel_ap,
        )
        if result.auspro:
            curve_fpr, curve_spro = result.curve(max(accumulator.limits), _CURVE_POINTS)
        else:
            notes.append("the masks cover every pixel of every image: no pixel-FPR, hence no localisation figures")
    defect_types = {}
    for name in sorted(set(types) - {GOOD}):
        own = np.asarray([t == name for t in types], dtype=bool)
        chosen = own | ~defective
        of_type = accumulator.result(name).auspro if localisation is not None else {}
        defect_types[name] = DefectTypeMetrics(
            n=int(own.sum()), auroc=auroc(scores[chosen], defective[chosen]), auspro=_by_key(of_type)
        )
    return CategoryResult(
        Evaluation(
            image=image,
            operating_points=operating_points(scores, defective, calibration_scores=calibration),
            localisation=localisation,
            defect_types=defect_types,
            notes=tuple(notes),
        ),
        EvaluationArrays(
            sample_ids=tuple(s.id for s in samples),
            defect_types=types,
            image_scores=scores.astype(np.float32),
            calibration_scores=None if calibration is None else calibration.astype(np.float32),
            spro_fpr=curve_fpr,
            spro=curve_spro,
        ),
        seconds,
    )


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
    interpolation: Literal["bilinear", "bicubic"] = "bicubic",
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
        AndonError: nothing could be evaluated (with every reason), or an option is wrong.
    """
    maps_dir = Path(maps_dir)
    if not maps_dir.is_dir():
        raise AndonError(f"{maps_dir}: no such folder of anomaly maps")
    SproAccumulator(fpr_limits)  # refuses wrong limits before anything is read
    chosen = [dataset[name] for name in categories] if categories is not None else list(dataset)
    table = None if scores is None else _read_scores(Path(scores))
    report = MapsReport()
    for category in chosen:
        try:
            folder = map_folder(maps_dir, category, single=len(chosen) == 1)
            if folder is None:
                raise AndonError(
                    f"{maps_dir}: no maps of category {category.name}; expected "
                    f"{category.name}/<defect type>/<name>.png (or .tif, .tiff, .npy)"
                )
            files = find_maps(folder, category)
            if not files.samples:
                raise AndonError(f"category {category.name} ({category.root}) has no test images")
            given = (
                _scores_of(Path(scores), table, category, len(chosen) == 1)
                if scores is not None and table is not None
                else None
            )
            report.results[category.name] = _evaluate_files(
                files, category, tuple(fpr_limits), given, interpolation, progress
            )
        except AndonError as error:
            report.refused[category.name] = str(error)
    if not report.results:
        raise AndonError("; ".join(report.refused.values()) or f"data set {dataset.name} has no category")
    return report


def _evaluate_files(
    files: MapFiles,
    category: Category,
    limits: tuple[float, ...],
    given: npt.NDArray[np.float64] | None,
    interpolation: Literal["bilinear", "bicubic"],
    progress: ProgressCallback,
) -> CategoryResult:
    accumulator, truths, unions = SproAccumulator(limits), _Truths(), _Unions()
    samples = files.samples
    scores = np.zeros(len(samples))
    kind: np.dtype[Any] | None = None
    kind_from = ""

    def load(index: int) -> npt.NDArray[Any]:
        nonlocal kind, kind_from
        stored = read_map(files.paths[index])
        if kind is None:
            kind, kind_from = stored.dtype, files.paths[index].name
        elif stored.dtype != kind:
            raise AndonError(
                f"{files.paths[index]}: a map of type {stored.dtype}, but {kind_from} is {kind}; all maps of a "
                "category must be of one type to be comparable"
            )
        scores[index] = stored.max()
        return stored

    def place(index: int, stored: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
        if stored.shape != size and stored.dtype.kind == "f" and np.isneginf(stored.min()):
            raise AndonError(
                f"{files.paths[index]}: −inf pixels cannot be resized ({stored.shape[0]}×{stored.shape[1]} to "
                f"{size[0]}×{size[1]}); write such a map at its image's size"
            )
        return place_map(stored, FullFrame, size, interpolation)

    # Defective images first. Integer maps are done with in one pass; of float ones the negatives follow.
    order = sorted(range(len(samples)), key=lambda i: not samples[i].is_defective)
    n_defective = sum(s.is_defective for s in samples)
    later: list[int] = []
    for n, index in enumerate(order[:n_defective]):
        sample = samples[index]
        stored = load(index)
        truth = truths.usable(sample)
        if truth is not None:
            placed = place(index, stored, truth.size)
            accumulator.add_positives(placed, truth, sample.defect_type)
            if placed.dtype.kind == "f":
                unions.put(index, truth)
                later.append(index)
            else:
                accumulator.add_negatives(placed, truth, sample.defect_type)
        progress(category.name, n + 1, len(samples))
    for index in later:
        truth = unions.get(index)
        placed = place(index, read_map(files.paths[index]), truth.size)
        accumulator.add_negatives(placed, truth, samples[index].defect_type)
    for n, index in enumerate(order[n_defective:]):
        stored = load(index)
        if accumulator.n_channels:
            good = GroundTruth(samples[index].size())
            accumulator.add_negatives(place(index, stored, good.size), good, GOOD)
        progress(category.name, n_defective + n + 1, len(samples))

    notes = truths.notes()
    if given is None:
        notes.append("image scores are the maxima of the anomaly maps")
    if files.surplus:
        notes.append(f"{len(files.surplus)} maps belong to no test image and were ignored ({listed(files.surplus)})")
    return _result(samples, scores if given is None else given, accumulator, None, notes, 0.0)


def _read_scores(path: Path) -> dict[tuple[str | None, str], float]:
    """Image scores of a CSV file by (category or None, ``<defect type>/<name>``)."""
    table: dict[tuple[str | None, str], float] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames is None or not {"sample", "score"} <= set(reader.fieldnames):
                raise AndonError(f"{path}: the first line must name the columns: sample,score (and category)")
            for row in reader:
                try:
                    score = float(row["score"])
                except (TypeError, ValueError):
                    raise AndonError(f"{path}, line {reader.line_num}: {row['score']!r} is not a number") from None
                if not np.isfinite(score):
                    raise AndonError(f"{path}, line {reader.line_num}: the score is {score}; it must be finite")
                key = (row.get("category") or None, _sample_name(row["sample"] or ""))
                if key in table:
                    raise AndonError(f"{path}, line {reader.line_num}: a second score for {row['sample']}")
                table[key] = score
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AndonError(f"{path}: cannot be read as a table of scores ({error})") from error
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
        raise AndonError(f"{path}: no score for {len(missing)} test images of {category.name}: {listed(missing)}")
    return np.asarray(out)


def official_metrics(evaluation: Evaluation) -> dict[str, Any]:
    """The figures as the official evaluator's ``metrics.json`` has them (AUsPRO by limit)."""
    values = evaluation.localisation.auspro if evaluation.localisation is not None else {}
    by_limit = {str(float(limit)): value for limit, value in sorted(values.items(), key=lambda item: float(item[0]))}
    return {"localization": {"auc_spro": by_limit}}
