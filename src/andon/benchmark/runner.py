"""One experiment: fit, calibrate, judge, time, keep.

What is measured, and how:

- ``fit_seconds``: wall seconds of ``fit``. Where features came from the cache (``features_cached``) their cost is
  missing: the first experiment of a category has the whole.
- calibration (``Protocol.calibration_folds``): the training images, in shooting order, are cut into contiguous
  blocks; each is scored by a model fitted, with the same seed, on the others, and on the extractor as it was adapted
  to all (``fitted_again``). Blocks, not random folds: neighbouring shots are nearly the same image, and a model that
  saw the neighbour would promise fewer false alarms than the line will have.
- ``images_per_second``: some test images spread over the test set, from file to score, without any cache; a plan's
  runs measure it with the first seed only, the speed does not hang on the seed.
- ``peak_memory_mb``: of the process, at its end; the experiment's own when it has a process of its own.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import psutil
import torch

from andon._tools.packages import installed_versions
from andon._tools.spacing import evenly_spaced
from andon.benchmark._moments import Moments
from andon.benchmark.gallery import GalleryMaps, shrink
from andon.benchmark.judge import evaluate
from andon.benchmark.record import ExperimentRecord, ExperimentSpec, Hardware
from andon.benchmark.skipping import skipped_note
from andon.benchmark.store import Store
from andon.core import (
    AndonError,
    BoolArray,
    Category,
    FloatArray,
    Prediction,
    ProgressCallback,
    Region,
    Sample,
    no_progress,
)
from andon.data import ArrayCache, Images, augmented, placed, window_note
from andon.evaluation import CategoryResult
from andon.methods import Detector, FitRun, Method, fitted_again, recorded_method

__all__ = [
    "RunOptions",
    "draw_shots",
    "gallery_samples",
    "keep_gallery",
    "peak_memory_mb",
    "run_experiment",
    "training_images",
]

GALLERY_PER_TYPE = 2
SPEED_IMAGES = 32
SPEED_SECONDS = 2.0
_KEPT_OF_LOG = 1_000_000
_PACKAGES = ("andon", "torch", "numpy", "scipy", "opencv-python-headless", "pillow")


@dataclass(frozen=True)
class RunOptions:
    """What does not change an experiment's figures, so is not in its id.

    Attributes:
        device: "cpu", "cuda", "cuda:1", "mps".
        keep_maps: raw anomaly maps to keep: of the gallery's images, of all test images, none.
        keep_model: whether to keep what was learned.
        measure_speed: whether to measure ``images_per_second``.
        reference: what ``create_method`` is called with, where it is not the spec's method name.
        skipped: ids of the images that the category lacks because they cannot be read; the record says so.
    """

    device: str = "cpu"
    keep_maps: Literal["gallery", "all", "none"] = "gallery"
    keep_model: bool = False
    measure_speed: bool = True
    reference: str | None = None
    skipped: tuple[str, ...] = ()


def run_experiment(
    spec: ExperimentSpec,
    category: Category,
    store: Store,
    cache: ArrayCache | None = None,
    *,
    options: RunOptions = RunOptions(),
    log: Path | None = None,
    progress: ProgressCallback = no_progress,
) -> ExperimentRecord:
    """Runs an experiment and keeps its result in the store, and the category's gallery if it has none.

    Args:
        log: file with what the experiment printed so far, to be kept with it.

    Raises:
        AndonError: bad images or options, more shots than training images; nothing is stored then.
        StoreError: the result cannot be written.
    """
    started, start = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    _reset_peak_memory()
    counting = None if cache is None else _CountingCache(cache.root, max_bytes=cache.max_bytes)
    method = _create(spec, options)
    run = FitRun(options.device, progress, checkpoints=store.checkpoints(spec.id))
    window = window_note(placed(category, cache))
    train = draw_shots(category.train, spec.protocol.shots, spec.seed, category.name)

    detector, fit_seconds = _timed_fit(method, training_images(train, method, spec, counting), spec.seed, run)
    fit_uncached = counting is None or counting.mostly_missed()
    calibration, calibration_seconds = _calibrated(method, detector, spec, train, counting, run)
    kept = _KeptMaps(category.test, options.keep_maps)
    result = _judged(detector, category, spec, Images(category.test, counting), calibration, kept, progress)
    predict_uncached = counting is None or counting.mostly_missed()
    keep_gallery(store, spec, category)
    record = ExperimentRecord(
        id=spec.id,
        spec=spec,
        evaluation=result.evaluation,
        fit_seconds=fit_seconds,
        calibration_seconds=calibration_seconds,
        predict_seconds=result.predict_seconds,
        images_per_second=_images_per_second(detector, category.test, progress) if options.measure_speed else None,
        features_cached=not (fit_uncached and predict_uncached),
        **_learned(
            detector, spec, options, window, uncalibrated=calibration is None and calibration_seconds is not None
        ),
        **_circumstances(options.device),
        started=started,
        seconds=time.perf_counter() - start,
    )
    model = detector.to_bytes() if options.keep_model else None
    store.write_experiment(record, result.arrays, maps=kept.maps(), detector=model, log=_read_log(log))
    shutil.rmtree(store.checkpoints(spec.id), ignore_errors=True)
    return record


def _judged(
    detector: Detector,
    category: Category,
    spec: ExperimentSpec,
    images: Images,
    calibration: _CrossFitted | None,
    kept: _KeptMaps,
    progress: ProgressCallback,
) -> CategoryResult:
    """The figures on the test images, and the arrays behind them with what the calibration gave."""
    scores, map_moments = (None, None) if calibration is None else calibration
    result = evaluate(
        detector,
        category,
        fpr_limits=spec.protocol.fpr_limits,
        images=images,
        calibration_scores=scores,
        map_sink=kept,
        progress=progress,
    )
    return replace(result, arrays=result.arrays.model_copy(update={"calibration_map_moments": map_moments}))


def _learned(
    detector: Detector, spec: ExperimentSpec, options: RunOptions, window: str, *, uncalibrated: bool
) -> dict[str, Any]:
    """What the record says of the fit itself."""
    report = detector.report
    notes = list(report.notes)
    if uncalibrated:
        notes.append("one training image: no threshold from training images")
    notes += [f"{w.part}: random weights ({w.name}), not pretrained" for w in report.weights if not w.pretrained]
    notes += [window] if window else []
    if spec.protocol.augmentation is not None:
        notes.append(spec.protocol.augmentation.describe(trained=detector.method.trained))
    if options.skipped:
        notes.append(skipped_note(options.skipped))
    return {
        "n_train": report.n_train,
        "seeded": detector.method.seeded or spec.protocol.drawn,
        "weights": tuple(w.as_dict() for w in report.weights),
        "notes": tuple(notes),
        "skipped": options.skipped,
        "curves": {name: list(points) for name, points in report.curves.items()},
    }


def _circumstances(device: str) -> dict[str, Any]:
    return {
        "peak_memory_mb": peak_memory_mb(),
        "versions": {"python": platform.python_version(), **installed_versions(_PACKAGES)},
        "hardware": _hardware(device),
    }


def _calibrated(
    method: Method[Any],
    detector: Detector,
    spec: ExperimentSpec,
    train: Sequence[Sample],
    cache: _CountingCache | None,
    run: FitRun,
) -> tuple[_CrossFitted | None, float | None]:
    """Cross-fitted scores where the protocol asks for them and there is more than one image, and their seconds."""
    if not spec.protocol.calibration_folds:
        return None, None
    before = time.perf_counter()
    found = _cross_fitted(method, detector, spec, train, cache, run)
    if cache is not None:
        cache.mostly_missed()  # the folds' features were cached by fit
    return found, time.perf_counter() - before


def training_images(
    train: Sequence[Sample], method: Method[Any], spec: ExperimentSpec, cache: ArrayCache | None
) -> Images:
    """The images to fit on, augmented where the protocol says so."""
    augmentation = spec.protocol.augmentation
    if augmentation is None:
        return Images(train, cache)
    versions = augmented(train, augmentation, seed=spec.seed, trained=method.trained)
    # No other seed has these versions, and of a trained method they are many: they would only push out what is shared.
    return Images(versions, None if method.trained else cache)


def _timed_fit(method: Method[Any], images: Images, seed: int, run: FitRun) -> tuple[Detector, dict[str, float]]:
    before = time.perf_counter()
    detector = method.fit(images, seed=seed, run=run)
    _synchronise(detector.device)
    return detector, {**detector.report.seconds, "total": time.perf_counter() - before}


class _KeptMaps:
    """A map sink that keeps the raw maps that are wanted."""

    def __init__(self, test: Sequence[Sample], which: Literal["gallery", "all", "none"]) -> None:
        self._test = test
        chosen = {"gallery": gallery_samples(test), "all": range(len(test)), "none": ()}[which]
        self._wanted = set(chosen)
        self._kept: dict[int, tuple[FloatArray, Region]] = {}

    def __call__(self, index: int, sample: Sample, prediction: Prediction) -> None:
        if index in self._wanted and prediction.anomaly_maps is not None:
            self._kept[index] = (prediction.anomaly_maps[0].astype(np.float32, copy=True), prediction.region)

    def maps(self) -> GalleryMaps | None:
        """In the order of the test samples; None where none was kept."""
        order = sorted(self._kept)
        if not order:
            return None
        ids = tuple(self._test[i].id for i in order)
        return GalleryMaps(ids, tuple(self._kept[i][0] for i in order), tuple(self._kept[i][1] for i in order))


def draw_shots(train: Sequence[Sample], shots: int | None, seed: int, name: str = "") -> tuple[Sample, ...]:
    """``shots`` of the training samples drawn at random, in shooting order; all for None.

    The draw depends on the seed only, so all methods get the same images. Draws of different sizes are independent of
    each other, not nested: with one seed the two images of a draw of 2 need not be among the four of a draw of 4.
    """
    if not train:
        raise AndonError(f"category {name} has no good training images")
    if shots is None:
        return tuple(train)
    if shots > len(train):
        raise AndonError(f"category {name} has {len(train)} good training images, fewer than the {shots} shots asked")
    # Seeded apart from the methods' own generators, which get the plain seed.
    rng = np.random.default_rng([0x5407, seed])
    return tuple(train[i] for i in np.sort(rng.choice(len(train), shots, replace=False)))


def gallery_samples(test: Sequence[Sample]) -> list[int]:
    """Places of the gallery's images: the first two of every defect type in shooting order, then two good ones."""
    chosen: list[int] = []
    for defect_type in sorted({s.defect_type for s in test}, key=lambda t: (t == "good", t)):
        chosen += [i for i, s in enumerate(test) if s.defect_type == defect_type][:GALLERY_PER_TYPE]
    return chosen


def _create(spec: ExperimentSpec, options: RunOptions) -> Method[Any]:
    return recorded_method(options.reference or spec.method, spec.config)


class _CrossFitted(NamedTuple):
    """Of training images, by detectors that did not see their block.

    Attributes:
        scores: image scores, float32 ``[n]``.
        map_moments: mean and standard deviation of all values of their maps, float64 ``[2]``; None without maps.
    """

    scores: npt.NDArray[np.float32]
    map_moments: npt.NDArray[np.float64] | None


def _cross_fitted(
    method: Method[Any],
    detector: Detector,
    spec: ExperimentSpec,
    train: Sequence[Sample],
    cache: ArrayCache | None,
    run: FitRun,
) -> _CrossFitted | None:
    """None for a single image. The images that are scored are never augmented."""
    folds = min(spec.protocol.calibration_folds, len(train))
    if folds < 2:
        return None
    scores, moments = np.empty(len(train), dtype=np.float32), Moments()
    run.progress("calibration", 0, folds)
    for fold, block in enumerate(np.array_split(np.arange(len(train)), folds)):
        held_out = set(block.tolist())
        rest = [s for i, s in enumerate(train) if i not in held_out]
        checkpoints = None if run.checkpoints is None else run.checkpoints / f"fold-{fold}"
        images = training_images(rest, method, spec, cache)
        quiet = FitRun(run.device, checkpoints=checkpoints)
        without = fitted_again(method, detector, images, seed=spec.seed, run=quiet)
        scored = []
        for prediction in without.iterate_predictions(Images([train[i] for i in block], cache)):
            scored.append(prediction.image_scores)
            if prediction.anomaly_maps is not None:
                moments.add(prediction.anomaly_maps)
        scores[block] = np.concatenate(scored)
        run.progress("calibration", fold + 1, folds)
    return _CrossFitted(scores, moments.result())


def _images_per_second(detector: Detector, test: Sequence[Sample], progress: ProgressCallback) -> float:
    """Test images a second from file to score, none of it from a cache."""
    spread = evenly_spaced(len(test), SPEED_IMAGES)
    size = max(1, min(detector.config.batch_size, 8, len(spread)))
    # Arrays, not samples: what is decoded here is not left in any cache of decoded images.
    detector.predict([test[spread[0]].image() for _ in range(size)])
    _synchronise(detector.device)
    done, start = 0, time.perf_counter()
    for first in range(0, len(spread) - size + 1, size):
        detector.predict([test[i].image() for i in spread[first : first + size]])
        _synchronise(detector.device)
        done = first + size
        progress("speed", done, len(spread))
        if time.perf_counter() - start > SPEED_SECONDS:
            break
    return done / (time.perf_counter() - start)


def keep_gallery(store: Store, spec: ExperimentSpec, category: Category) -> None:
    """Keeps small copies of the gallery's images of an experiment's category, unless they are kept already."""
    where = (spec.dataset, spec.category, spec.data_fingerprint)
    if store.has_gallery(*where):
        return
    samples = [category.test[i] for i in gallery_samples(category.test)]
    copies = []
    for sample in samples:
        image, truth = sample.image(), sample.ground_truth()
        # A mask of another size is named by the evaluation; the image is shown without it.
        mask: BoolArray | None = truth.union() if truth is not None and truth.size == image.shape[:2] else None
        copies.append(shrink(sample.id, sample.defect_type, image, mask))
    store.write_gallery(*where, copies)


class _CountingCache(ArrayCache):
    """A cache that knows how many of the features asked for it had."""

    hits = misses = 0

    def get(self, kind: str, key: str) -> tuple[np.ndarray[Any, Any], ...] | None:
        entry = super().get(kind, key)
        if kind.startswith("features"):
            self.hits += entry is not None
            self.misses += entry is None
        return entry

    def mostly_missed(self) -> bool:
        """Whether nearly all were computed since the last call (an image that is there twice may be found)."""
        few = self.hits <= 0.05 * (self.hits + self.misses)
        self.hits = self.misses = 0
        return few


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _read_log(path: Path | None) -> str:
    if path is None or not path.is_file():
        return ""
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _KEPT_OF_LOG))
        return file.read(_KEPT_OF_LOG).decode("utf-8", errors="replace")


def _hardware(device: str) -> Hardware:
    kind = torch.device(device)
    return Hardware(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gb=round(psutil.virtual_memory().total / 2**30, 1),
        device=torch.cuda.get_device_name(kind) if kind.type == "cuda" else kind.type,
        threads=torch.get_num_threads(),
    )


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _reset_peak_memory() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # not Linux, or not allowed: the peak is then that of the process's whole life


def peak_memory_mb() -> float:
    """Peak resident memory of this process, MiB."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
