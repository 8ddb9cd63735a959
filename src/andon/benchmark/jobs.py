"""An experiment as an engine's job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from andon.benchmark.engine import Job
from andon.benchmark.expansion import ExpandedPlan
from andon.benchmark.plan import PlanContent
from andon.benchmark.record import ExperimentSpec
from andon.benchmark.runner import RunOptions, run_experiment
from andon.benchmark.store import Store
from andon.core import Category, ProgressCallback
from andon.data import ArrayCache

__all__ = ["ExperimentJob", "experiment_job", "experiment_jobs"]


@dataclass(frozen=True)
class ExperimentJob:
    """What an experiment's process is given."""

    spec: ExperimentSpec
    category: Category = field(repr=False)
    store: Path
    cache: Path | None
    device: str
    keep_maps: Literal["gallery", "all", "none"]
    keep_model: bool
    measure_speed: bool
    reference: str
    log: Path
    skipped: tuple[str, ...] = ()


def experiment_job(job: ExperimentJob, progress: ProgressCallback) -> None:
    """Runs in the experiment's own process."""
    run_experiment(
        job.spec,
        job.category,
        Store(job.store),
        None if job.cache is None else ArrayCache(job.cache),
        options=RunOptions(job.device, job.keep_maps, job.keep_model, job.measure_speed, job.reference, job.skipped),
        log=job.log,
        progress=progress,
    )


def experiment_jobs(
    expanded: ExpandedPlan,
    todo: Sequence[ExperimentSpec],
    store: Store,
    cache: Path | None,
    device: str,
    log: Callable[[ExperimentSpec], Path],
) -> list[Job]:
    """The jobs of experiments that are to be done, each with the file for what it prints."""
    content = expanded.plan.content
    first_seeds: dict[str, int] = {}
    for spec in expanded.specs:
        first_seeds.setdefault(spec.label, spec.seed)
    jobs = []
    for spec in todo:
        job = ExperimentJob(
            spec=spec,
            category=expanded.category(spec),
            store=store.root.absolute(),
            cache=None if cache is None else cache.absolute(),
            device=device,
            keep_maps=_keep_maps(content, spec, first_seeds[spec.label]),
            keep_model=content.keep_models,
            measure_speed=spec.seed == first_seeds[spec.label],
            reference=expanded.references[spec.id],
            log=log(spec),
            skipped=expanded.skipped.get((spec.dataset, spec.category), ()),
        )
        group = f"{spec.dataset}/{spec.category}/{spec.config.get('backbone', spec.label)}"
        jobs.append(Job(spec.id, experiment_job, (job,), log=log(spec), timeout=content.timeout, group=group))
    return jobs


def _keep_maps(content: PlanContent, spec: ExperimentSpec, first_seed: int) -> Literal["gallery", "all", "none"]:
    # The gallery shows one map a method; the first seed's will do, the others' would only fill the disk.
    if content.keep_maps == "all":
        return "all"
    if content.keep_maps == "none" or spec.seed != first_seed:
        return "none"
    return "all" if content.keep_maps == "first" else "gallery"
