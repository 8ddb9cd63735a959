"""A store of the study's parts, as if they had been run: real plans on a tiny data set, made-up scores."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from andon.benchmark.expansion import expand
from andon.benchmark.gallery import GalleryMaps, shrink
from andon.benchmark.record import ExperimentSpec, StoredDataset, StoredPlan
from andon.benchmark.store import Store
from andon.benchmark.study import Scale, StudyPlan, study_plans
from andon.core import Category
from tests.benchmark.tiny import write_tiny
from tests.report.fake import FakeMethod, image_of, map_of, record_of

CATEGORIES = ("engine_wiring", "pipe_clip", "pipe_staple", "tank_screw", "underbody_pipes", "underbody_screw")
POWERS = {
    "thumbnail-nn": 0.8,
    "cflow": 0.3,
    "draem": 1.2,
    "dsr": 1.5,
    "efficientad": 1.8,
    "padim": 1.4,
    "patchcore": 2.4,
}
FEW = Scale(
    seeds=3,
    folds=2,
    budgets=dict.fromkeys(("cflow", "draem", "dsr", "efficientad"), 1.0),
    shots=(1, 4, None),
    draws=2,
    versions=4,
    categories=dict.fromkeys(("study", "table11", "table13", "figure5"), ("pipe_clip", "tank_screw")),
)
"""The study's own configurations on two categories."""
PARTS = ("study", "table11", "table12", "table13", "figure5")


@dataclass(frozen=True)
class FakeStudy:
    """The store, the parts that it is of, and the data they lie on."""

    store: Store
    parts: tuple[StudyPlan, ...]
    data: Path


def make_study(
    root: Path,
    *,
    synthetic: bool = False,
    small: bool | Scale = True,
    run: Sequence[str] = PARTS,
    extra: Sequence[FakeMethod] = (),
    random: Sequence[str] = (),
    seeds: int | None = None,
) -> FakeStudy:
    """Makes one.

    Args:
        run: the parts that were run.
        extra: methods beside the study's, in the main part.
        random: methods on random weights.
        seeds: runs; the plans' otherwise.
    """
    data = write_tiny(root / "data", categories=CATEGORIES)
    store = Store(root / "store", create=True)
    parts = tuple(
        replace(part, plan=_anywhere(part, seeds)) for part in study_plans(small=small, synthetic=synthetic, raw=True)
    )
    for part in parts:
        if part.part not in run:
            continue
        expanded = expand(part.on(data, data))
        specs = list(expanded.specs)
        if part.part == "study":
            specs += [_like(spec, method) for method in extra for spec in specs if spec.method == "padim"]
        store.write_plan(
            StoredPlan(
                name=part.name,
                title=part.plan.content.title,
                source="",
                content={},
                base="",
                seeds=part.plan.content.seeds,
                datasets=tuple(
                    StoredDataset(name=d.name, path=str(d.root), layout=d.layout, categories=tuple(d.categories))
                    for d in expanded.datasets.values()
                ),
                specs=tuple(specs),
            )
        )
        for spec in specs:
            if spec.id not in store:
                _run(store, spec, expanded.datasets[spec.dataset][spec.category], spec.method in random)
    return FakeStudy(store, parts, data)


def _anywhere(part: StudyPlan, seeds: int | None) -> Any:
    """The plan for a data set of any layout."""
    content = part.plan.content
    datasets = tuple(entry.model_copy(update={"layout": None}) for entry in content.datasets)
    update: dict[str, Any] = {"datasets": datasets}
    if seeds is not None:
        update["seeds"] = tuple(range(seeds))
    return replace(part.plan, content=content.model_copy(update=update))


def _like(spec: ExperimentSpec, method: FakeMethod) -> ExperimentSpec:
    config = {"variant": method.label}
    return spec.model_copy(update={"method": method.name, "label": method.label, "config": config})


def _run(store: Store, spec: ExperimentSpec, category: Category, random: bool) -> None:
    power = POWERS.get(spec.method, 1.0) + (0.2 if spec.protocol.augmentation else 0.0)
    if spec.protocol.shots is not None:
        power *= spec.protocol.shots / (spec.protocol.shots + 3)
    seeded = spec.method != "thumbnail-nn"
    method = FakeMethod(spec.method, spec.label, power, seeded=seeded, random=random)
    tests = sorted(category.test, key=lambda s: s.is_defective)
    types = [s.defect_type for s in tests]
    record, arrays = record_of(method, spec, types)
    arrays = arrays.model_copy(
        update={
            "sample_ids": tuple(s.id for s in tests),
            "calibration_scores": arrays.calibration_scores if spec.protocol.calibration_folds else None,
            "calibration_map_moments": np.array([7.0, 1.1]) if spec.protocol.calibration_folds else None,
        }
    )
    if not spec.protocol.calibration_folds:
        points = tuple(p for p in record.evaluation.operating_points if p.source != "train good")
        record = record.model_copy(
            update={"evaluation": record.evaluation.model_copy(update={"operating_points": points})}
        )
    key = zlib.crc32(f"{spec.method}".encode())
    total = 3.0 + key % 50 + 0.5 * spec.seed
    record = record.model_copy(
        update={
            "fit_seconds": {"total": total},
            "images_per_second": 4.0 + key % 17 if spec.seed == 0 else None,
            "features_cached": False,
            "n_train": spec.protocol.shots or len(category.train),
        }
    )
    maps = None
    if spec.seed == 0:
        pictures = [image_of(spec.category, i, s.is_defective) for i, s in enumerate(tests)]
        maps = GalleryMaps(
            arrays.sample_ids,
            tuple(map_of(mask, method, i) for i, (_, mask) in enumerate(pictures)),
            (method.region,) * len(tests),
        )
        if not store.has_gallery(spec.dataset, spec.category, spec.data_fingerprint):
            kept = [shrink(s.id, s.defect_type, *picture) for s, picture in zip(tests, pictures, strict=True)]
            store.write_gallery(spec.dataset, spec.category, spec.data_fingerprint, kept)
    store.write_experiment(record, arrays, maps=maps)
