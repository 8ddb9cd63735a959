"""Plan → experiments → store → tables.

>>> import tempfile
>>> from andon.benchmark import Store, make_plan, run_plan
>>> from andon.synthetic import Counts, generate
>>> folder = tempfile.mkdtemp()
>>> _ = generate(f"{folder}/line", tasks=["pipe_staple"], counts=Counts(train=4, good=2, defective=2), jobs=1)
>>> plan = make_plan([f"{folder}/line"], ["thumbnail-nn"])
>>> len(run_plan(plan, f"{folder}/results", jobs=1).finished)
1
>>> [record.spec.label for record in Store(f"{folder}/results").records()]
['Thumbnail NN']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from andon._tools.faces import lazy_face

if TYPE_CHECKING:
    from andon.benchmark.bench import PlanStatus, RunSummary, plan_status, resume_plan, run_plan
    from andon.benchmark.engine import cpu_count
    from andon.benchmark.events import (
        DataProblem,
        ExperimentEvent,
        Failed,
        ImportsCode,
        Planned,
        Progressed,
        Repaired,
        Restarted,
        RunEvent,
        Started,
    )
    from andon.benchmark.expansion import expand
    from andon.benchmark.gallery import GalleryImage, GalleryMaps
    from andon.benchmark.judge import evaluate
    from andon.benchmark.maps import MapsReport, evaluate_maps
    from andon.benchmark.plan import Plan, load_plan, make_plan, packaged_plans
    from andon.benchmark.record import ExperimentRecord, ExperimentSpec, Failure, Protocol
    from andon.benchmark.statistics import Summary, best_set, mean_over, run_means, summarise
    from andon.benchmark.store import Store

__all__ = [
    "DataProblem",
    "ExperimentEvent",
    "ExperimentRecord",
    "ExperimentSpec",
    "Failed",
    "Failure",
    "GalleryImage",
    "GalleryMaps",
    "ImportsCode",
    "MapsReport",
    "Plan",
    "PlanStatus",
    "Planned",
    "Progressed",
    "Protocol",
    "Repaired",
    "Restarted",
    "RunEvent",
    "RunSummary",
    "Started",
    "Store",
    "Summary",
    "best_set",
    "cpu_count",
    "evaluate",
    "evaluate_maps",
    "expand",
    "load_plan",
    "make_plan",
    "mean_over",
    "packaged_plans",
    "plan_status",
    "resume_plan",
    "run_means",
    "run_plan",
    "summarise",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "andon.benchmark.bench": "PlanStatus RunSummary plan_status resume_plan run_plan",
        "andon.benchmark.engine": "cpu_count",
        "andon.benchmark.judge": "evaluate",
        "andon.benchmark.events": (
            "DataProblem ExperimentEvent Failed ImportsCode Planned Progressed Repaired Restarted RunEvent Started"
        ),
        "andon.benchmark.expansion": "expand",
        "andon.benchmark.gallery": "GalleryImage GalleryMaps",
        "andon.benchmark.maps": "MapsReport evaluate_maps",
        "andon.benchmark.plan": "Plan load_plan make_plan packaged_plans",
        "andon.benchmark.record": "ExperimentRecord ExperimentSpec Failure Protocol",
        "andon.benchmark.statistics": "Summary best_set mean_over run_means summarise",
        "andon.benchmark.store": "Store",
    },
)
