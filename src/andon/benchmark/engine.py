"""Engines run jobs; what a job does and what becomes of its result they do not know.

The local engine gives every experiment a process of its own, ``jobs`` of them at a time, never a pool: a process that
is killed, hangs or exits takes nothing else with it. On Linux the processes are forked from a server that has imported
torch once and done nothing else (multiprocessing's "forkserver"), so that a fresh process costs 0.05 s rather than the
seconds of importing torch; elsewhere they are spawned.

What can become of a job:

- its function returns: ``Finished``;
- it raises: ``Failed("error")`` with the exception in one line and the traceback; running out of memory in a way that
  Python sees (``MemoryError``, torch's allocators) is one of these;
- its process dies (signal, ``os._exit``, crash in native code): ``Failed("killed")`` with signal or exit code, and the
  last lines it printed;
- it is not done after its ``timeout``: its process and all that it started are killed: ``Failed("timeout")``;
- the fork server dies (killed, out of memory): nobody could tell any more how the processes in flight end, so they are
  killed and their jobs begin again (``Restarted``) under another server. A job to which that happens twice has
  ``Failed("killed")``, lest one that kills it goes on for ever.

If the engine's own process is interrupted (Ctrl-C) or ``on_event`` raises, all children are killed before the exception
goes on; if it is itself killed, the children notice and end.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import signal
import sys
import time
import traceback
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

import psutil

from andon._tools.processes import end_with_parent
from andon._tools.text import first_line
from andon.benchmark.events import Event, Failed, Finished, Progressed, Restarted, Started
from andon.core import AndonError, ConfigError, ProgressCallback

__all__ = [
    "Engine",
    "Job",
    "LocalEngine",
    "cpu_count",
    "limit_threads",
    "log_tail",
    "one_line",
    "redirect_output",
]

_LOG_LINES = 40
_STARTS = 3
"""Attempts to start a process while fork servers die under it."""
_PROGRESS_INTERVAL = 0.1
_JOB_BYTES = 4 * 2**30
"""Memory that a job is supposed to need, where nobody says how many jobs there shall be."""


@dataclass(frozen=True)
class Job:
    """One thing to do.

    Attributes:
        id: unique among the jobs of a run.
        function: a module's function, called as ``function(*args, progress=…)``; its result is dropped but for
            ``receive``.
        args: picklable.
        log: file for what the job prints, on both streams; None leaves the streams alone.
        timeout: seconds until it is killed; None for never.
        group: jobs that compute the same things first; while one of a group runs, jobs of other groups go before its
            next one, which then finds those things in the cache.
        receive: called with the function's result, in the run's process, before ``Finished``; for engines whose jobs
            run on other machines.
    """

    id: str
    function: Callable[..., object]
    args: tuple[Any, ...] = ()
    log: Path | None = None
    timeout: float | None = None
    group: str = ""
    receive: Callable[[object], None] | None = None


class Engine(Protocol):
    """What runs jobs: this machine, or a cluster."""

    def run(self, jobs: Iterable[Job], on_event: Callable[[Event], None]) -> None:
        """Runs all jobs; for each ``Started``, any number of ``Progressed``, then ``Finished`` or ``Failed``; or
        ``Restarted``, and it begins anew.

        ``on_event`` is called in the caller's thread. An exception from it ends the run and all jobs in flight.
        """
        ...


def _thread_limit() -> int | None:
    """The environment's OMP_NUM_THREADS (of a list the first, OpenMP's outermost level); None where it says none."""
    text = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(text) if text.isdecimal() and int(text) > 0 else None


def cpu_count() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class _Running:
    job: Job
    process: BaseProcess
    connection: multiprocessing.connection.Connection
    started: float
    server: int | None
    """The fork server that it came from."""
    done: bool = False
    error: tuple[str, str, str] | None = None
    open: bool = True

    @property
    def deadline(self) -> float | None:
        return None if self.job.timeout is None else self.started + self.job.timeout


@dataclass
class LocalEngine:
    """One process a job on this machine.

    Attributes:
        jobs: at a time; by default as many as the processors have room for, but none without 4 GiB of memory to it.
        threads: for each job's numerical libraries. They decide the last bits of what a job computes, so their number
            does not hang on ``jobs`` or on the machine: it is 1 by default. The environment's OMP_NUM_THREADS is its
            upper bound.
        preload: modules to import once for all processes.
    """

    jobs: int | None = None
    threads: int | None = None
    preload: tuple[str, ...] = ()
    _running: list[_Running] = field(default_factory=list, init=False, repr=False)
    _waiting: deque[Job] = field(default_factory=deque, init=False, repr=False)
    _restarted: set[str] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("jobs", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        limit = _thread_limit()
        if limit is not None and self.threads is not None and self.threads > limit:
            raise ConfigError(
                f"threads must be at most {limit}, not {self.threads}: the environment has OMP_NUM_THREADS={limit}"
            )
        self.threads = self.threads or 1
        room = min(cpu_count() // self.threads, int(psutil.virtual_memory().total / _JOB_BYTES))
        self.jobs = self.jobs or max(1, room)

    def run(self, jobs: Iterable[Job], on_event: Callable[[Event], None]) -> None:
        """See ``Engine.run``."""
        assert self.jobs is not None
        waiting = self._waiting = deque(jobs)
        assert all(job.receive is None for job in waiting), "a process of this machine gives no result back"
        self._restarted.clear()
        context = _context(self.preload)
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self.jobs:
                    job = self._next(waiting)
                    self._running.append(self._start(job, context))
                    on_event(Started(job.id))
                self._wait()
                for running in list(self._running):
                    for event in self._collect(running):
                        on_event(event)
        finally:
            for running in self._running:
                _kill(running.process)
            for running in self._running:
                running.process.join()
                running.connection.close()
            self._running.clear()

    def _next(self, waiting: deque[Job]) -> Job:
        busy = {r.job.group for r in self._running}
        job = next((j for j in waiting if j.group not in busy), waiting[0])
        waiting.remove(job)
        return job

    def _start(self, job: Job, context: BaseContext) -> _Running:
        """Starts a job's process; AndonError where that cannot be."""
        for attempt in range(_STARTS):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(  # type: ignore[attr-defined]
                target=_child, args=(job, theirs, self.threads), name=f"andon-{job.id}", daemon=False
            )
            try:
                with _no_main_module():
                    process.start()
                return _Running(job, process, ours, time.monotonic(), _fork_server())
            except (OSError, EOFError) as error:  # the server died: the next attempt starts another
                ours.close()
                _fork_server_gone(_fork_server())  # or multiprocessing would take the dying one for alive
                if attempt == _STARTS - 1:
                    raise AndonError(
                        f"no process can be started for an experiment, {_STARTS} times in a row ({first_line(error)}): "
                        "out of memory, or is the process that starts them (fork server) being killed? "
                        "What was finished is kept: run the same command again"
                    ) from error
            finally:
                theirs.close()
        raise AssertionError

    def _wait(self) -> None:
        """Until a child says something, ends, or is overdue."""
        waitable: list[Any] = [r.process.sentinel for r in self._running]
        waitable += [r.connection for r in self._running if r.open]
        deadlines = [r.deadline for r in self._running if r.deadline is not None]
        timeout = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        multiprocessing.connection.wait(waitable, timeout)

    def _collect(self, running: _Running) -> Iterator[Event]:
        """What a child has to tell; at its end it is taken off the list."""
        ended = not running.process.is_alive()  # asked before reading: all it said is in the pipe by then
        yield from self._read(running)
        seconds = time.monotonic() - running.started
        overdue = running.deadline is not None and time.monotonic() >= running.deadline
        if not ended and not overdue:
            return
        if not ended:
            _kill(running.process)
        running.process.join()
        self._running.remove(running)
        yield from self._read(running)
        running.connection.close()
        job_id, code = running.job.id, running.process.exitcode
        orphaned = ended and code == _UNKNOWN and _fork_server_gone(running.server)
        _kill_rest(running.process, alone=orphaned)
        if running.done:
            yield Finished(job_id, seconds)
        elif orphaned and running.error is None and job_id not in self._restarted:
            self._restarted.add(job_id)
            self._waiting.appendleft(running.job)
            yield Restarted(job_id, f"{_SERVER_DIED}: begun again")
        elif orphaned and running.error is None:
            yield Failed(job_id, "killed", f"{_SERVER_DIED}, twice", log_tail(running.job.log), seconds)
        elif running.error is not None:
            error, reason, detail = running.error
            yield Failed(job_id, "error", reason, detail, seconds, error)
        elif not ended:
            reason = f"no result after {running.job.timeout:g} s (its timeout)"
            yield Failed(job_id, "timeout", reason, log_tail(running.job.log), seconds)
        else:
            yield Failed(job_id, "killed", _death(code), log_tail(running.job.log), seconds)

    def _read(self, running: _Running) -> Iterator[Event]:
        try:
            while running.open and running.connection.poll():
                kind, *values = running.connection.recv()
                if kind == "progress":
                    yield Progressed(running.job.id, *values)
                elif kind == "done":
                    running.done = True
                else:
                    running.error = (values[0], values[1], values[2])
        except Exception:  # closed, or cut in the middle of a message by a kill
            running.open = False


def _context(preload: tuple[str, ...]) -> BaseContext:
    if "forkserver" in multiprocessing.get_all_start_methods() and sys.platform == "linux":
        context = multiprocessing.get_context("forkserver")
        # Without effect where this process runs a fork server already: then children import for themselves.
        context.set_forkserver_preload(["andon.benchmark.engine", *preload])
        return context
    return multiprocessing.get_context("spawn")


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Children must not import the program's main module: jobs never need it, it may be slow or unguarded."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


_UNKNOWN = 255
"""The exit code that multiprocessing gives where the fork server, which alone would know it, has died."""
_SERVER_DIED = "the process that starts the experiments' processes (fork server) ended while this one ran"


def _fork_server() -> int | None:
    """Id of the process that forks this one's children; None where there is none."""
    server = getattr(multiprocessing.forkserver, "_forkserver", None)
    pid = getattr(server, "_forkserver_pid", None)
    return pid if isinstance(pid, int) else None


def _fork_server_gone(pid: int | None) -> bool:
    """Whether a fork server has ended; it is left to multiprocessing to take note of it."""
    if pid is None:
        return False
    for _ in range(100):  # its end is seen by its children's pipes some moments before
        try:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
        except ChildProcessError:  # multiprocessing did, and has another by now
            return True
        time.sleep(0.01)
    return False


def _kill_rest(process: BaseProcess, *, alone: bool) -> None:
    """Kills what is left of the process group that a child led when it ended.

    Args:
        alone: its end is only supposed, because its fork server has died: it may be running still.
    """
    if process.pid is None:
        return
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    if alone:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)


def _kill(process: BaseProcess) -> None:
    """Kills a child and all that it started: it leads a process group of its own."""
    if process.pid is None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg") and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
            return
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def _death(code: int | None) -> str:
    if code is None or code >= 0:
        return f"its process ended with exit code {code} before it had a result"
    try:
        name = f" ({signal.Signals(-code).name})"
    except ValueError:
        name = ""
    hint = " (out of memory?)" if -code == 9 else ""
    return f"killed by signal {-code}{hint or name}"


def log_tail(log: Path | None) -> str:
    """The last lines of a job's log; "" where there is none."""
    if log is None or not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65536))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_LOG_LINES:])


# In the child


def _child(job: Job, connection: multiprocessing.connection.Connection, threads: int) -> None:
    """The child's whole life. ``multiprocessing`` exits with 0 after it."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    end_with_parent(group=True)
    if job.log is not None:
        redirect_output(job.log)
    try:
        limit_threads(threads)
        job.function(*job.args, progress=_reporter(connection))
        message: tuple[str, ...] = ("done",)
    except BaseException as error:
        traceback.print_exc()
        message = ("error", type(error).__name__, one_line(error), traceback.format_exc())
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(message)
    connection.close()


def redirect_output(log: Path) -> None:
    """Sends all that this process prints, on both streams, into a new file from now on; a crash's stack, too."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    faulthandler.enable(file=2)


def _reporter(connection: multiprocessing.connection.Connection) -> ProgressCallback:
    """Sends progress, but not more often than anybody can look."""
    last_stage, last_time = "", 0.0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal last_stage, last_time
        now = time.monotonic()
        if stage != last_stage or done >= total or now - last_time >= _PROGRESS_INTERVAL:
            connection.send(("progress", stage, done, total))
            last_stage, last_time = stage, now

    return progress


def one_line(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, AndonError):
        return text
    if isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text.lower():
        return f"out of memory: {text[:300] or type(error).__name__}"
    return f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__


def limit_threads(threads: int) -> None:
    """Threads of this process's numerical libraries."""
    import cv2
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    threadpool_limits(threads)
