"""Plan → experiments → store → tables.

>>> from andon.benchmark import run_plan, Store  # doctest: +SKIP
>>> run_plan("plan.yaml", "results")             # doctest: +SKIP
>>> Store("results").records()                   # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from andon.benchmark.bench import PlanStatus, RunEvent, RunSummary, plan_status, resume_plan, run_plan
    from andon.benchmark.plan import Plan, expand, load_plan, make_plan, packaged_plans
    from andon.benchmark.record import ExperimentRecord, ExperimentSpec, Failure, Protocol
    from andon.benchmark.store import Store, StoreError

__all__ = [
    "ExperimentRecord",
    "ExperimentSpec",
    "Failure",
    "Plan",
    "PlanStatus",
    "Protocol",
    "RunEvent",
    "RunSummary",
    "Store",
    "StoreError",
    "expand",
    "load_plan",
    "make_plan",
    "packaged_plans",
    "plan_status",
    "resume_plan",
    "run_plan",
]

# Imported on first use: the store and the published figures need no torch, running a plan does.
_MODULES = {
    "bench": ("PlanStatus", "RunEvent", "RunSummary", "plan_status", "resume_plan", "run_plan"),
    "plan": ("Plan", "expand", "load_plan", "make_plan", "packaged_plans"),
    "record": ("ExperimentRecord", "ExperimentSpec", "Failure", "Protocol"),
    "store": ("Store", "StoreError"),
}
_LAZY = {name: f"andon.benchmark.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
