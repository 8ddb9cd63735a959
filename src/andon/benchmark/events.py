"""What is told while experiments run: an engine's events of its jobs, and a run's events of its experiments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from andon.benchmark.record import ExperimentSpec

__all__ = [
    "DataProblem",
    "Event",
    "ExperimentEvent",
    "Failed",
    "Finished",
    "ImportsCode",
    "Planned",
    "Progressed",
    "Repaired",
    "Restarted",
    "RunEvent",
    "Started",
]


@dataclass(frozen=True)
class Started:
    """A job's process was started."""

    id: str


@dataclass(frozen=True)
class Progressed:
    """A job is at ``done`` of ``total`` of a stage."""

    id: str
    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Finished:
    """A job's function returned."""

    id: str
    seconds: float


@dataclass(frozen=True)
class Restarted:
    """A job's process was lost by no fault of its own; it begins again.

    Attributes:
        reason: one line.
    """

    id: str
    reason: str


@dataclass(frozen=True)
class Failed:
    """A job has no result.

    Attributes:
        kind: it raised, its process died, or it took too long.
        reason: one line.
        detail: traceback, or the last lines that it printed.
        error: the class name of the exception for kind "error".
    """

    id: str
    kind: Literal["error", "killed", "timeout"]
    reason: str
    detail: str
    seconds: float
    error: str = ""


Event = Started | Progressed | Restarted | Finished | Failed
"""Of a job."""


@dataclass(frozen=True)
class Planned:
    """A run begins: comes once, after what was repaired.

    Attributes:
        message: one line.
        total: experiments that the run has to do.
    """

    message: str
    total: int


@dataclass(frozen=True)
class Repaired:
    """A damaged entry of the store was moved aside."""

    message: str


@dataclass(frozen=True)
class ImportsCode:
    """A plan from a store is going to import code from outside: what, from where, with which hash."""

    message: str


@dataclass(frozen=True)
class ExperimentEvent:
    """Something happened to an experiment.

    Attributes:
        spec: the experiment.
        event: what its job's engine told; its ``id`` is the experiment's.
        message: one line.
        done, total: experiments of this run that have ended, failed ones included, and all that it has to do.
        eta_seconds: estimate of the time left for the run; None before the first has ended.
    """

    spec: ExperimentSpec
    event: Event
    message: str
    done: int
    total: int
    eta_seconds: float | None


@dataclass(frozen=True)
class DataProblem:
    """Something in the data would make results wrong or impossible; comes before any experiment starts."""

    message: str


RunEvent = Planned | Repaired | DataProblem | ImportsCode | ExperimentEvent
"""Of a run; ``match`` tells them apart."""
