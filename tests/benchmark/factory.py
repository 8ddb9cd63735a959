"""Records made up for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from andon.benchmark.record import ExperimentRecord, ExperimentSpec, Hardware, Protocol
from andon.evaluation.result import Evaluation, EvaluationArrays, ImageMetrics


def make_spec(**changes: Any) -> ExperimentSpec:
    values: dict[str, Any] = {
        "dataset": "tiny",
        "category": "bolt",
        "data_fingerprint": "f" * 32,
        "method": "patchcore",
        "label": "Patchcore",
        "config": {"batch_size": 2, "ratio": 0.1, "layers": ["layer2", "layer3"]},
        "protocol": Protocol(),
        "seed": 0,
    }
    return ExperimentSpec(**values | changes)


def make_record(spec: ExperimentSpec | None = None, *, auroc: float = 0.9, **changes: Any) -> ExperimentRecord:
    spec = spec or make_spec()
    values: dict[str, Any] = {
        "id": spec.id,
        "spec": spec,
        "evaluation": Evaluation(image=ImageMetrics(n_good=2, n_defective=2, auroc=auroc)),
        "n_train": 3,
        "fit_seconds": {"features": 0.5, "total": 0.75},
        "predict_seconds": 0.25,
        "images_per_second": 16.0,
        "features_cached": False,
        "peak_memory_mb": 300.0,
        "hardware": Hardware(cpu="a CPU", cores=2, memory_gb=8.0, device="cpu", threads=2),
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 1.5,
    }
    return ExperimentRecord(**values | changes)


def make_arrays(count: int = 4) -> EvaluationArrays:
    return EvaluationArrays(
        sample_ids=tuple(f"test/x/{i:04d}" for i in range(count)),
        defect_types=tuple("good" if i % 2 == 0 else "broken" for i in range(count)),
        image_scores=np.linspace(0, 1, count, dtype=np.float32),
    )
