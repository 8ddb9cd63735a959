"""A detector on one category: from its predictions to figures, streaming.

Maps come, are placed at image size, counted, and go: nothing here grows with the number of good images (see
``andon.evaluation.LocalisationAccumulator``).

>>> import tempfile
>>> from andon import create_method, load_dataset
>>> from andon.synthetic import Counts, generate
>>> folder = tempfile.mkdtemp()
>>> _ = generate(f"{folder}/line", tasks=["pipe_staple"], counts=Counts(train=4, good=2, defective=2), jobs=1)
>>> category = load_dataset(f"{folder}/line")["pipe_staple"]
>>> result = evaluate(create_method("thumbnail-nn").fit(category), category)
>>> 0 <= result.evaluation.localisation.auspro[0.05] <= 1
True
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from andon.core import Category, DataError, DetectorError, Prediction, ProgressCallback, Sample, no_progress
from andon.data import sample_key
from andon.evaluation import (
    FPR_LIMITS,
    CategoryResult,
    LocalisationAccumulator,
    auroc,
    category_result,
    check_scores,
)

if TYPE_CHECKING:  # both import torch, which judging maps from files has no use for
    from andon.data import Images
    from andon.methods import Detector

__all__ = ["MapSink", "evaluate"]

MapSink = Callable[[int, Sample, Prediction], None]
"""``map_sink(index, sample, prediction)``: the place in the test set, and the prediction of this one image."""


def evaluate(
    detector: Detector,
    data: Category | Sequence[Sample],
    *,
    fpr_limits: Sequence[float] = FPR_LIMITS,
    images: Images | None = None,
    calibration_scores: npt.ArrayLike | None = None,
    map_sink: MapSink | None = None,
    progress: ProgressCallback = no_progress,
) -> CategoryResult:
    """Judges a detector on test images.

    Maps are judged at image size. Images are predicted defective ones first, which lets the maps stream; their
    order changes no score, and the results are in the order of the samples.

    Args:
        detector: what ``Method.fit`` gave.
        data: a category (its test samples are taken), or test samples.
        fpr_limits: pixel-FPR limits of AUsPRO, each in (0, 1].
        images: the same test images in the same order, with a cache behind them; made from the samples if None.
        calibration_scores: image scores ``[m]`` of training images by models that did not see them: for thresholds
            that look at no test image.
        map_sink: gets every prediction as it comes.
        progress: of the prediction.

    Raises:
        ConfigError: a limit outside (0, 1].
        DataError: no test images, an image that cannot be read, or a calibration score that is not finite.
        DetectorError: a score or a map that is not finite.
    """
    samples = _test_samples(data)
    if images is not None and len(images) != len(samples):
        raise ValueError(f"{len(images)} images for {len(samples)} test samples")
    if calibration_scores is not None:
        check_scores(calibration_scores)  # refuses them before anything is predicted
    scores = np.zeros(len(samples), dtype=np.float32)
    has_maps = True
    watch = _Stopwatch()
    with LocalisationAccumulator(fpr_limits, defective_first=True) as localisation:
        for index, prediction in _defective_first(detector, samples, images, watch, progress):
            sample = samples[index]
            scores[index] = prediction.image_scores[0]
            if map_sink is not None:
                map_sink(index, sample, prediction)
            has_maps &= prediction.anomaly_maps is not None
            _localise(localisation, sample, prediction)
        return category_result(
            scores,
            [s.defect_type for s in samples],
            localisation,
            sample_ids=[s.id for s in samples],
            names=[str(s.path) for s in samples],
            calibration_scores=calibration_scores,
            notes=(
                *(() if has_maps else (f"{detector.title} gives no anomaly maps: no localisation",)),
                *_branch_notes(detector, samples, images),
            ),
            predict_seconds=watch.seconds,
        )


def _test_samples(data: Category | Sequence[Sample]) -> tuple[Sample, ...]:
    samples = data.test if isinstance(data, Category) else tuple(data)
    if not samples:
        where = f"category {data.name} ({data.root})" if isinstance(data, Category) else "the evaluation"
        raise DataError(f"{where} has no test images")
    return samples


def _branch_notes(detector: Detector, samples: Sequence[Sample], images: Images | None) -> list[str]:
    """What each branch of a detector would reach alone, where it has some (GCAD's structural and logical one)."""
    if not hasattr(detector, "branches"):
        return []
    from andon.data import Images
    from andon.methods import branch_scores

    kinds = np.array([sample.defect_type for sample in samples])
    good = np.array([not sample.is_defective for sample in samples])
    notes = []
    for name, scores in branch_scores(detector, Images(samples) if images is None else images).items():
        each = {"all defects": auroc(scores, ~good)}
        each |= {
            str(kind): auroc(scores[good | (kinds == kind)], ~good[good | (kinds == kind)]) for kind in _kinds(samples)
        }
        told = ", ".join(f"{kind} {100 * value:.1f} %" for kind, value in each.items() if value is not None)
        if told:
            notes.append(f"{name} branch alone: image AUROC {told}")
    return notes


def _kinds(samples: Sequence[Sample]) -> list[str]:
    """Types of defects, where there are several."""
    kinds = sorted({sample.defect_type for sample in samples if sample.is_defective})
    return kinds if len(kinds) > 1 else []


def _localise(localisation: LocalisationAccumulator, sample: Sample, prediction: Prediction) -> None:
    if prediction.anomaly_maps is not None:
        localisation.update(
            prediction.anomaly_maps[0],
            sample.ground_truth(),
            region=prediction.region,
            group=sample.defect_type,
            name=sample_key(sample),
            source=sample.path,
        )


class _Stopwatch:
    """Wall seconds spent in an iterator."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self, batches: Iterator[Prediction]) -> Iterator[Prediction]:
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.seconds += time.perf_counter() - start
            if batch is None:
                return
            yield batch


def _defective_first(
    detector: Detector,
    samples: Sequence[Sample],
    images: Images | None,
    watch: _Stopwatch,
    progress: ProgressCallback,
) -> Iterator[tuple[int, Prediction]]:
    """(place in the samples, its prediction alone) of every sample."""
    from andon.data import Images

    shown = Images(samples) if images is None else images
    order = sorted(range(len(samples)), key=lambda i: not samples[i].is_defective)  # stable
    done = 0
    for batch in watch.time(iter(detector.iterate_predictions(shown.subset(order), progress=progress))):
        for row in range(len(batch)):
            if done == len(samples):
                raise RuntimeError(f"{detector.name} gave more predictions than there are images ({len(samples)})")
            _check_finite(detector, samples[order[done]], batch, row)
            maps = None if batch.anomaly_maps is None else batch.anomaly_maps[row : row + 1]
            yield order[done], Prediction(batch.image_scores[row : row + 1], maps, batch.region)
            done += 1
    if done != len(samples):
        raise RuntimeError(f"{detector.name} gave {done} predictions for {len(samples)} images")


def _check_finite(detector: Detector, sample: Sample, batch: Prediction, row: int) -> None:
    if not np.isfinite(batch.image_scores[row]):
        raise DetectorError(
            f"{detector.name}: the image score of {sample.path} is {batch.image_scores[row]}; training went astray, or "
            "the model file is damaged"
        )
    if batch.anomaly_maps is not None and not np.isfinite(batch.anomaly_maps[row]).all():
        raise DetectorError(f"{detector.name}: the anomaly map of {sample.path} has values that are not finite")
