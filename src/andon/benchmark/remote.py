"""An experiment on another machine: into the run's store where it is shared, otherwise fetched back.

The run leaves a token in the store's scratch folder. A worker that finds it there writes to that store like any process
of the run's own machine. One that does not runs the experiment in a store of its own and gives back the files, which
the run then publishes like its own; it computes only where its data and code are those of the plan.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from andon.benchmark._files import publish_directory, write_atomically
from andon.benchmark.engine import Job, redirect_output
from andon.benchmark.jobs import ExperimentJob, experiment_job
from andon.benchmark.store import Store
from andon.core import ConfigError, DataError, ProgressCallback
from andon.data import category_fingerprint
from andon.methods import code_fingerprint
from andon.weights import cache_directory

__all__ = ["FetchedResult", "remote_jobs"]


@dataclass(frozen=True)
class FetchedResult:
    """What an experiment left in a store that the run does not see.

    Attributes:
        experiment: files of its folder by name.
        gallery_name, gallery: folder and files of its category's gallery.
    """

    experiment: Mapping[str, bytes]
    gallery_name: str
    gallery: Mapping[str, bytes]


def remote_jobs(jobs: Sequence[Job], store: Store) -> list[Job]:
    """Jobs of experiments, for an engine whose workers may not see the store."""
    token = store.scratch.absolute() / f"run-{secrets.token_hex(8)}"
    write_atomically(token, b"", store.scratch)
    return [
        replace(job, function=remote_experiment_job, args=(*job.args, token), receive=_receiver(store, job.args[0]))
        for job in jobs
    ]


def remote_experiment_job(job: ExperimentJob, token: Path, progress: ProgressCallback) -> FetchedResult | None:
    """Runs in the worker's process; None where the result is in the run's store."""
    _check_code(job)
    if token.is_file():
        experiment_job(job, progress)
        return None
    found = category_fingerprint(job.category)
    if found != job.spec.data_fingerprint:
        raise DataError(
            f"{job.category.root}: the worker has other images there than this run was planned with: every machine "
            "needs the same data at the same path"
        )
    with tempfile.TemporaryDirectory(prefix="andon-") as folder:
        store, log = Store(Path(folder) / "store", create=True), Path(folder) / "log.txt"
        redirect_output(log)
        # What is shared is computed once a machine; the cache bounds its own size.
        cache = None if job.cache is None else cache_directory() / "benchmark"
        experiment_job(replace(job, store=store.root, cache=cache, log=log), progress)
        (gallery,) = (store.root / "galleries").iterdir()
        return FetchedResult(_files(store.path(job.spec.id)), gallery.name, _files(gallery))


def _check_code(job: ExperimentJob) -> None:
    if code_fingerprint(job.reference) != job.spec.code_fingerprint:
        raise ConfigError(
            f"method {job.reference}: the worker has other code for it than this run was planned with: every machine "
            "needs the same files at the same path"
        )


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _receiver(store: Store, job: ExperimentJob) -> Callable[[object], None]:
    def receive(result: object) -> None:
        if isinstance(result, FetchedResult):
            _publish(store, store.path(job.spec.id), result.experiment)
            store.record(job.spec.id)  # StoreError where it was damaged on the way
            store.forget_failure(job.spec.id)
            gallery = store.root / "galleries" / result.gallery_name
            if not gallery.is_dir():
                _publish(store, gallery, result.gallery)

    return receive


def _publish(store: Store, target: Path, files: Mapping[str, bytes]) -> None:
    def fill(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)

    publish_directory(target, fill, store.scratch)
