"""Jobs on a Ray cluster: one task a job, each in a process of its own that ends with it.

CPUs and GPUs are resources: a task waits until a node has them free. What was said of the local engine's outcomes
holds, and in addition: a worker or a node that is lost in the middle costs only the time of its job, which begins again
elsewhere (``Restarted``), from its last checkpoint where the store is shared; a job that loses its worker more than
``retries`` times has ``Failed("killed")``.

Every node needs this version of Andon, and the data at the same path. A store that the nodes share is written to by
the tasks; from a node that does not see it the result is fetched back (``andon.benchmark.remote``).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import andon
from andon._tools.text import first_line
from andon.benchmark.engine import Job, limit_threads, log_tail, one_line, redirect_output
from andon.benchmark.events import Event, Failed, Finished, Progressed, Restarted, Started
from andon.core import AndonError, ConfigError

__all__ = ["RayEngine"]

_CONNECT_SECONDS = 10.0
_POLL_SECONDS = 0.2
_PROGRESS_SECONDS = 0.5


@dataclass
class RayEngine:
    """Runs jobs on a Ray cluster.

    Attributes:
        address: of the cluster ("auto", "10.0.0.1:6379"); None for RAY_ADDRESS, and where that is
            not set for a cluster on this machine that ends with the run.
        threads: CPUs of a job, and threads of its numerical libraries; they decide the last bits of what it computes.
        gpus: of a job; a part of one lets several jobs share it.
        retries: times that a job begins again after its worker or node was lost.
        options: more arguments for ``ray.init`` (``num_cpus``, ``object_store_memory``, …).
    """

    address: str | None = None
    threads: int = 1
    gpus: float = 0.0
    retries: int = 3
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.threads < 1 or self.gpus < 0 or self.retries < 0:
            raise ConfigError(
                "threads must be at least 1, gpus and retries at least 0, not "
                f"{self.threads}, {self.gpus} and {self.retries}"
            )

    def check(self) -> None:
        """ConfigError where Ray is not installed or nobody answers at the address: quicker than Ray says it."""
        _ray()
        host, colon, port = (self.address or os.environ.get("RAY_ADDRESS") or "").rpartition(":")
        if not colon or not port.isdecimal() or "/" in host:  # "auto", or for Ray to understand
            return
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"no Ray cluster answers at {host}:{port} ({error}); start one (ray start --head) and give its "
                "--address"
            ) from error

    def run(self, jobs: Iterable[Job], on_event: Callable[[Event], None]) -> None:
        """See ``Engine.run``.

        Raises:
            ConfigError: Ray is not installed, no cluster answers, or none of its nodes has what a job needs.
        """
        work = list(jobs)
        if not work:
            return
        self.check()
        ray = _ray()
        with self._connected(ray):
            self._check_resources(ray)
            run = _RayRun(ray, self, on_event)
            try:
                run.all(work)
            finally:
                run.cancel()

    @contextlib.contextmanager
    def _connected(self, ray: Any) -> Iterator[None]:
        if ray.is_initialized():  # by the program that uses this as a library: it ends it, too
            yield
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        try:
            options = {"log_to_driver": False, "include_dashboard": False, **self.options}
            if self.address is not None or os.environ.get("RAY_ADDRESS"):
                options.pop("include_dashboard")  # the cluster is there: Ray takes no word about how to make it
            ray.init(address=self.address, logging_level="ERROR", **options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            where = self.address or os.environ.get("RAY_ADDRESS") or "on this machine"
            raise ConfigError(
                f"no Ray cluster at {where}: {first_line(error)}; start one (ray start --head) and give its --address"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()

    def _check_resources(self, ray: Any) -> None:
        """ConfigError where a job would wait for ever."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(n.get("CPU", 0) >= self.threads and n.get("GPU", 0) >= self.gpus for n in nodes):
            have = ", ".join(f"{n.get('CPU', 0):g} CPU and {n.get('GPU', 0):g} GPU" for n in nodes) or "none"
            raise ConfigError(
                f"no node of the Ray cluster has the {self.threads} CPU and {self.gpus:g} GPU that an experiment asks "
                f"for (--threads, --device); nodes: {have}"
            )


@dataclass
class _Submitted:
    job: Job
    attempt: int
    begun: float | None = None
    """When it was heard to have begun; it may wait for a free node before."""


class _RayRun:
    """One call of ``RayEngine.run``."""

    def __init__(self, ray: Any, engine: RayEngine, on_event: Callable[[Event], None]) -> None:
        self.ray, self.engine, self.on_event = ray, engine, on_event
        # Where the program runs: what is told of the jobs is not lost with a node of theirs.
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=True
        )
        self.board = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_Board).remote()
        # max_calls: each job has a process of its own. The retries are ours, because they are to be told.
        self.task = ray.remote(num_cpus=engine.threads, num_gpus=engine.gpus, max_calls=1, max_retries=0)(_task)
        self.pending: dict[Any, _Submitted] = {}

    def all(self, jobs: list[Job]) -> None:
        waiting = deque(jobs)
        while waiting or self.pending:
            while waiting and len(self.pending) < self._room():
                self._submit(_Submitted(_next(waiting, self.pending.values()), attempt=0))
            done, _ = self.ray.wait(list(self.pending), num_returns=1, timeout=_POLL_SECONDS)
            self._listen()
            for reference in done:
                self._ended(reference, self.pending.pop(reference))
            self._overdue()

    def cancel(self) -> None:
        """Ends what still runs."""
        for reference in self.pending:
            with contextlib.suppress(Exception):
                self.ray.cancel(reference, force=True)
        with contextlib.suppress(Exception):
            self.ray.kill(self.board)

    def _room(self) -> int:
        """Jobs that the cluster could run now, and some that wait to be started at once when one ends."""
        total = self.ray.cluster_resources()
        room = int(total.get("CPU", 1) // self.engine.threads)
        if self.engine.gpus:
            room = min(room, int(total.get("GPU", 0) / self.engine.gpus))
        return max(1, room) + 2

    def _submit(self, submitted: _Submitted) -> None:
        job = submitted.job
        arguments = (job.id, job.function, job.args, job.log, self.engine.threads, submitted.attempt, andon.__version__)
        self.pending[self.task.remote(self.board, *arguments)] = submitted

    def _listen(self) -> None:
        """What the jobs have told since the last time."""
        try:
            told = self.ray.get(self.board.read.remote(), timeout=10)
        except Exception:  # it begins again by itself, what it had is lost, and the jobs tell more
            return
        by_id = {(s.job.id, s.attempt): s for s in self.pending.values()}
        for (job_id, attempt), events in told.items():
            submitted = by_id.get((job_id, attempt))
            if submitted is None:
                continue
            self._begun(submitted)
            for stage, done, total in events:
                self.on_event(Progressed(job_id, stage, done, total))

    def _begun(self, submitted: _Submitted) -> None:
        if submitted.begun is None:
            submitted.begun = time.monotonic()
            self.on_event(Started(submitted.job.id))

    def _ended(self, reference: Any, submitted: _Submitted) -> None:
        job = submitted.job
        try:
            kind, *values = self.ray.get(reference)
        except (
            self.ray.exceptions.WorkerCrashedError,
            self.ray.exceptions.NodeDiedError,
            self.ray.exceptions.OutOfMemoryError,
            self.ray.exceptions.ObjectLostError,
            self.ray.exceptions.LocalRayletDiedError,
        ) as error:
            self._lost(submitted, type(error).__name__)
            return
        except Exception as error:  # Andon is not there, or cannot be imported
            kind, *values = "error", type(error).__name__, one_line(error), str(error)
        self._begun(submitted)
        seconds = self._seconds(submitted)
        if kind == "error":
            self.on_event(Failed(job.id, "error", values[1], values[2], seconds, values[0]))
            return
        if job.receive is not None:
            try:
                job.receive(values[0])
            except Exception as error:
                detail = traceback.format_exc()
                self.on_event(Failed(job.id, "error", one_line(error), detail, seconds, type(error).__name__))
                return
        self.on_event(Finished(job.id, seconds))

    def _lost(self, submitted: _Submitted, why: str) -> None:
        self._begun(submitted)
        job, lost = submitted.job, submitted.attempt + 1
        if lost <= self.engine.retries:
            self.on_event(Restarted(job.id, f"its Ray worker was lost ({why}): begun again"))
            self._submit(_Submitted(job, lost))
            return
        reason = f"its Ray worker was lost ({why}), {lost} times: is there memory enough?"
        self.on_event(Failed(job.id, "killed", reason, log_tail(job.log), self._seconds(submitted)))

    def _overdue(self) -> None:
        for reference, submitted in list(self.pending.items()):
            limit = submitted.job.timeout
            if limit is None or submitted.begun is None or self._seconds(submitted) < limit:
                continue
            del self.pending[reference]
            with contextlib.suppress(Exception):
                self.ray.cancel(reference, force=True)
            reason = f"no result after {limit:g} s (its timeout)"
            detail = log_tail(submitted.job.log)
            self.on_event(Failed(submitted.job.id, "timeout", reason, detail, self._seconds(submitted)))

    @staticmethod
    def _seconds(submitted: _Submitted) -> float:
        return 0.0 if submitted.begun is None else time.monotonic() - submitted.begun


def _next(waiting: deque[Job], pending: Iterable[_Submitted]) -> Job:
    """Of a group that does not run yet, where there is one (see ``Job.group``)."""
    busy = {submitted.job.group for submitted in pending}
    job = next((j for j in waiting if j.group not in busy), waiting[0])
    waiting.remove(job)
    return job


def _ray() -> Any:
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ConfigError(f"the engine ray needs Ray ({error}): pip install 'andon[ray]'") from error
    return ray


# In the cluster


class _Board:
    """An actor on which jobs write how far they are."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, int], list[tuple[str, int, int]]] = {}

    def tell(self, job_id: str, attempt: int, *events: tuple[str, int, int]) -> None:
        self._told.setdefault((job_id, attempt), []).extend(events)

    def read(self) -> dict[tuple[str, int], list[tuple[str, int, int]]]:
        told, self._told = self._told, {}
        return told


def _task(
    board: Any,
    job_id: str,
    function: Callable[..., object],
    args: tuple[Any, ...],
    log: Any,
    threads: int,
    attempt: int,
    version: str,
) -> tuple[Any, ...]:
    """A job in its worker's process: ("done", result) or ("error", class, reason, traceback)."""
    board.tell.remote(job_id, attempt)
    try:
        if andon.__version__ != version:
            raise AndonError(
                f"the Ray worker has Andon {andon.__version__}, this run is of {version}: install the same version on "
                "every node"
            )
        if log is not None and log.parent.is_dir():  # otherwise what it prints goes where Ray puts it
            redirect_output(log)
        limit_threads(threads)
        return "done", function(*args, progress=_teller(board, job_id, attempt))
    except Exception as error:
        return "error", type(error).__name__, one_line(error), traceback.format_exc()


def _teller(board: Any, job_id: str, attempt: int) -> Callable[[str, int, int], None]:
    last_stage, last_time = "", 0.0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal last_stage, last_time
        now = time.monotonic()
        if stage != last_stage or done >= total or now - last_time >= _PROGRESS_SECONDS:
            board.tell.remote(job_id, attempt, (stage, done, total))
            last_stage, last_time = stage, now

    return progress
