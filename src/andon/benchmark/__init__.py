"""Plan → experiments → store → tables.

>>> from andon.benchmark import run_plan, Store  # doctest: +SKIP
>>> run_plan("plan.yaml", "results")             # doctest: +SKIP
>>> Store("results").records()                   # doctest: +SKIP
"""

from andon.benchmark.bench import PlanStatus, RunEvent, RunSummary, plan_status, resume_plan, run_plan
from andon.benchmark.plan import Plan, expand, load_plan, packaged_plans
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
    "packaged_plans",
    "plan_status",
    "resume_plan",
    "run_plan",
]
