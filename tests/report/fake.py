"""Stores made up for tests: scores, maps and images are drawn, figures are computed from them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from andon.benchmark.gallery import GalleryMaps, shrink
from andon.benchmark.record import ExperimentRecord, ExperimentSpec, Failure, Hardware, Protocol, StoredPlan
from andon.benchmark.store import Store
from andon.core import FullFrame, Region
from andon.evaluation.image import auroc, image_metrics, operating_points
from andon.evaluation.result import DefectTypeMetrics, Evaluation, EvaluationArrays, LocalisationMetrics
from andon.methods import create_method

SIZE = (96, 120)
HARDWARE = Hardware(cpu="Example CPU @ 3 GHz", cores=2, memory_gb=8.0, device="cpu", threads=2)
RANDOM = {
    "part": "resnet18",
    "source": "random",
    "name": "orthogonal, seed 0",
    "sha256": "ab" * 32,
    "licence": "",
    "pretrained": False,
}


@dataclass(frozen=True)
class FakeMethod:
    """A method of a fake store.

    Attributes:
        power: how far defective images score above good ones, in standard deviations.
        fails: (category, seed) pairs that fail.
        pending: (category, seed) pairs that were not run.
        preset: its configuration; one that no method has otherwise.
    """

    name: str
    label: str
    power: float = 2.0
    seeded: bool = True
    maps: bool = True
    random: bool = False
    region: Region = FullFrame
    fails: frozenset[tuple[str, int]] = frozenset()
    pending: frozenset[tuple[str, int]] = frozenset()
    curves: bool = False
    budget: float | None = None
    shots: int | None = None
    preset: str | None = None


METHODS = (
    FakeMethod("patchcore", "Patchcore", 2.5, random=True, region=Region(0.0625, 0.0625, 0.9375, 0.9375)),
    FakeMethod("padim", "PaDiM", 1.6, random=True),
    FakeMethod("thumbnail-nn", "Thumbnail NN", 0.9, seeded=False, maps=False),
)


def spec_of(
    method: FakeMethod, category: str, seed: int, dataset: str = "line", fingerprint: str = ""
) -> ExperimentSpec:
    return ExperimentSpec(
        dataset=dataset,
        category=category,
        data_fingerprint=fingerprint or f"{zlib.crc32(category.encode('utf-8', 'replace')):032x}",
        method=method.name,
        label=method.label,
        config=config_of(method),
        protocol=Protocol(shots=method.shots, calibration_folds=3),
        seed=seed,
    )


def config_of(method: FakeMethod) -> dict[str, Any]:
    if method.preset is not None:
        return create_method(method.name, preset=method.preset).config.model_dump(mode="json")
    own: dict[str, Any] = {"backbone": "resnet18", "layers": ["layer2", "layer3"], "variant": method.label}
    return own | ({} if method.budget is None else {"budget": method.budget})


def scores_of(
    method: FakeMethod, category: str, seed: int, types: Sequence[str]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    key = zlib.crc32(f"{category}/{method.label}".encode("utf-8", "replace"))
    rng = np.random.default_rng([key, 0])
    own = np.random.default_rng([key, 1, seed if method.seeded else 0])
    labels = np.asarray([t != "good" for t in types])
    scores = 3 + rng.normal(size=len(types)) + own.normal(scale=0.25, size=len(types)) + labels * method.power
    return scores.astype(np.float32), (3 + own.normal(size=60)).astype(np.float32)


def image_of(category: str, index: int, defect: bool) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A grey plate with holes; defective ones lack one, which the mask shows."""
    height, width = SIZE
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng([zlib.crc32(category.encode("utf-8", "replace")), index])
    image = np.full((height, width, 3), 150.0) + 25 * np.sin(x / 9 + index)[..., None] + rng.normal(0, 4, (*SIZE, 3))
    mask = np.zeros(SIZE, dtype=bool)
    for number, (cy, cx) in enumerate([(24, 30), (24, 90), (70, 30), (70, 90)]):
        hole = (y - cy) ** 2 + (x - cx) ** 2 < 100
        if defect and number == index % 4:
            mask |= hole
        else:
            image[hole] = (40, 44, 52)
    return image.clip(0, 255).astype(np.uint8), mask


def map_of(mask: np.ndarray[Any, Any], method: FakeMethod, index: int) -> np.ndarray[Any, Any]:
    height, width = mask.shape
    y, x = np.mgrid[:48, :60] + 0.5
    region = method.region
    y, x = (
        (region.top + y / 48 * (region.bottom - region.top)) * height,
        (region.left + x / 60 * (region.right - region.left)) * width,
    )
    noise = np.random.default_rng([index, len(method.label)]).normal(0, 0.15, (48, 60))
    out = 1 + noise
    if mask.any():
        cy, cx = np.argwhere(mask).mean(0)
        out = out + method.power * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 250)
    return (out * 7).astype(np.float32)


def record_of(
    method: FakeMethod, spec: ExperimentSpec, types: Sequence[str], *, localisation: bool = True, **changes: Any
) -> tuple[ExperimentRecord, EvaluationArrays]:
    scores, calibration = scores_of(method, spec.category, spec.seed, types)
    labels = np.asarray([t != "good" for t in types])
    rng = np.random.default_rng([zlib.crc32(spec.id.encode()), 7])
    fpr = np.linspace(0, 1, 300)
    spro = 1 - np.exp(-fpr * (10 + 20 * method.power + rng.normal()))
    areas = {
        f"{limit:g}": float(np.trapezoid(np.interp(np.linspace(0, limit, 400), fpr, spro), dx=1 / 399))
        for limit in spec.protocol.fpr_limits
    }
    has_maps = localisation and method.maps
    defects = {}
    for name in sorted({t for t in types if t != "good"}):
        chosen = np.asarray([t in ("good", name) for t in types])
        defects[name] = DefectTypeMetrics(
            n=sum(t == name for t in types),
            auroc=auroc(scores[chosen], labels[chosen]),
            auspro=areas if has_maps else {},
        )
    evaluation = Evaluation(
        image=image_metrics(scores, labels),
        operating_points=operating_points(scores, labels, calibration_scores=calibration),
        localisation=LocalisationMetrics(n_channels=9, auspro=areas, aupro=areas, pixel_auroc=0.9, pixel_ap=0.5)
        if has_maps
        else None,
        defect_types=defects,
        notes=("1 defective image has an empty mask: left out of localisation",) if has_maps else (),
    )
    values: dict[str, Any] = {
        "id": spec.id,
        "spec": spec,
        "evaluation": evaluation,
        "n_train": 60,
        "fit_seconds": {"features": 3.0 + rng.random(), "total": 4.0 + 2 * rng.random()},
        "predict_seconds": 2.5,
        "images_per_second": 12 + rng.random(),
        "features_cached": spec.seed != 0,
        "peak_memory_mb": 610.0 + rng.random() * 20,
        "calibration_seconds": 3.5,
        "seeded": method.seeded,
        "weights": (RANDOM,) if method.random else (),
        "notes": ("coreset 470 of 4,704 patches",),
        "curves": {"loss": [(i, float(np.exp(-i / 40) + 0.05 * rng.random())) for i in range(0, 200, 5)]}
        if method.curves
        else {},
        "versions": {"andon": "0.1.0", "torch": "2.13.0", "python": "3.11.9"},
        "hardware": HARDWARE,
        "started": "2026-01-01T12:00:00+00:00",
        "seconds": 9.0,
    }
    arrays = EvaluationArrays(
        sample_ids=tuple(f"test/{t}/{i:04d}" for i, t in enumerate(types)),
        defect_types=tuple(types),
        image_scores=scores,
        calibration_scores=calibration,
        spro_fpr=fpr if has_maps else None,
        spro=spro if has_maps else None,
    )
    return ExperimentRecord(**values | changes), arrays


def types_of(defects: Mapping[str, int], n_good: int) -> list[str]:
    return ["good"] * n_good + [name for name, count in defects.items() for _ in range(count)]


def fill(
    root: Path,
    *,
    methods: Sequence[FakeMethod] = METHODS,
    categories: Sequence[str] = ("washer", "bracket"),
    seeds: int = 3,
    dataset: str = "line",
    defects: Mapping[str, int] | None = None,
    n_good: int = 40,
    gallery: bool = True,
    plan: str = "fake",
) -> Store:
    """A store as a finished run leaves it."""
    store = Store(root, create=True)
    types = types_of({"missing": 14, "scratched": 10} if defects is None else defects, n_good)
    specs = [
        spec_of(method, category, seed, dataset)
        for category in categories
        for method in methods
        for seed in range(seeds if method.seeded else 1)
    ]
    store.write_plan(
        StoredPlan(
            name=plan,
            title="A plan made up for tests",
            source="",
            content={},
            base="",
            seeds=tuple(range(seeds)),
            datasets=(),
            specs=tuple(specs),
        )
    )
    by_label = {method.label: method for method in methods}
    for spec in specs:
        method = by_label[spec.label]
        if (spec.category, spec.seed) in method.pending:
            continue
        if (spec.category, spec.seed) in method.fails:
            store.write_failure(
                Failure(
                    id=spec.id,
                    spec=spec,
                    kind="killed",
                    reason="killed by signal 9 (out of memory?)",
                    detail="last line of the log",
                    started="2026-01-01T12:00:00+00:00",
                    seconds=2.0,
                )
            )
            continue
        record, arrays = record_of(method, spec, types)
        maps = None
        chosen = _gallery(types)
        if gallery and method.maps and spec.seed == 0:
            masks = [image_of(spec.category, i, types[i] != "good")[1] for i in chosen]
            maps = GalleryMaps(
                tuple(arrays.sample_ids[i] for i in chosen),
                tuple(map_of(m, method, i) for i, m in zip(chosen, masks, strict=True)),
                (method.region,) * len(chosen),
            )
        store.write_experiment(record, arrays, maps=maps)
        if gallery and not store.has_gallery(dataset, spec.category, spec.data_fingerprint):
            images = []
            for i in chosen:
                image, mask = image_of(spec.category, i, types[i] != "good")
                images.append(shrink(arrays.sample_ids[i], types[i], image, mask))
            store.write_gallery(dataset, spec.category, spec.data_fingerprint, images)
    return store


def _gallery(types: Sequence[str]) -> list[int]:
    order = sorted(set(types), key=lambda t: (t == "good", t))
    return [i for t in order for i in [k for k, found in enumerate(types) if found == t][:2]]
