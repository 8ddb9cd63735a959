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
    from andon.benchmark.claim_checks import ClaimCheck, RunFigures, check_claims, published_figures
    from andon.benchmark.comparison import Comparability, comparability
    from andon.benchmark.engine import Engine, cpu_count
    from andon.benchmark.estimate import PlanEstimate, RowEstimate, estimate_plan
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
    from andon.benchmark.fusion import Fused, FusedExperiment, fuse
    from andon.benchmark.gallery import GalleryImage, GalleryMaps
    from andon.benchmark.intervals import (
        Interval,
        bootstrap_auroc,
        bootstrap_interval,
        clopper_pearson,
        delong_interval,
        delong_p_value,
        delong_variance,
    )
    from andon.benchmark.judge import evaluate
    from andon.benchmark.maps import MapsReport, evaluate_maps
    from andon.benchmark.pareto import CostPoint, pareto_front
    from andon.benchmark.plan import Plan, load_plan, make_plan, packaged_plans
    from andon.benchmark.protocols import STUDY_PROTOCOLS, StudyProtocol, study_protocol
    from andon.benchmark.ranking import Ranking, critical_difference, rank_methods
    from andon.benchmark.ray_engine import RayEngine
    from andon.benchmark.record import ExperimentRecord, ExperimentSpec, Failure, Protocol
    from andon.benchmark.statistics import (
        Summary,
        adjusted_p_values,
        best_set,
        mean_over,
        run_means,
        summarise,
        welch_p_value,
    )
    from andon.benchmark.store import Store
    from andon.benchmark.study import StudyPlan, few_shot_entries, study_plans
    from andon.benchmark.study_line import StudyLine, render_study_line
    from andon.benchmark.study_run import (
        StudyEstimate,
        StudyRowEstimate,
        estimate_study,
        prepare_study,
        run_study,
        with_images,
    )
    from andon.benchmark.suitability import Suitability, derive_suitability

__all__ = [
    "STUDY_PROTOCOLS",
    "ClaimCheck",
    "Comparability",
    "CostPoint",
    "DataProblem",
    "Engine",
    "ExperimentEvent",
    "ExperimentRecord",
    "ExperimentSpec",
    "Failed",
    "Failure",
    "Fused",
    "FusedExperiment",
    "GalleryImage",
    "GalleryMaps",
    "ImportsCode",
    "Interval",
    "MapsReport",
    "Plan",
    "PlanEstimate",
    "PlanStatus",
    "Planned",
    "Progressed",
    "Protocol",
    "Ranking",
    "RayEngine",
    "Repaired",
    "Restarted",
    "RowEstimate",
    "RunEvent",
    "RunFigures",
    "RunSummary",
    "Started",
    "Store",
    "StudyEstimate",
    "StudyLine",
    "StudyPlan",
    "StudyProtocol",
    "StudyRowEstimate",
    "Suitability",
    "Summary",
    "adjusted_p_values",
    "best_set",
    "bootstrap_auroc",
    "bootstrap_interval",
    "check_claims",
    "clopper_pearson",
    "comparability",
    "cpu_count",
    "critical_difference",
    "delong_interval",
    "delong_p_value",
    "delong_variance",
    "derive_suitability",
    "estimate_plan",
    "estimate_study",
    "evaluate",
    "evaluate_maps",
    "expand",
    "few_shot_entries",
    "fuse",
    "load_plan",
    "make_plan",
    "mean_over",
    "packaged_plans",
    "pareto_front",
    "plan_status",
    "prepare_study",
    "published_figures",
    "rank_methods",
    "render_study_line",
    "resume_plan",
    "run_means",
    "run_plan",
    "run_study",
    "study_plans",
    "study_protocol",
    "summarise",
    "welch_p_value",
    "with_images",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "andon.benchmark.bench": "PlanStatus RunSummary plan_status resume_plan run_plan",
        "andon.benchmark.engine": "Engine cpu_count",
        "andon.benchmark.judge": "evaluate",
        "andon.benchmark.events": (
            "DataProblem ExperimentEvent Failed ImportsCode Planned Progressed Repaired Restarted RunEvent Started"
        ),
        "andon.benchmark.estimate": "PlanEstimate RowEstimate estimate_plan",
        "andon.benchmark.expansion": "expand",
        "andon.benchmark.fusion": "Fused FusedExperiment fuse",
        "andon.benchmark.gallery": "GalleryImage GalleryMaps",
        "andon.benchmark.maps": "MapsReport evaluate_maps",
        "andon.benchmark.plan": "Plan load_plan make_plan packaged_plans",
        "andon.benchmark.ray_engine": "RayEngine",
        "andon.benchmark.record": "ExperimentRecord ExperimentSpec Failure Protocol",
        "andon.benchmark.claim_checks": "ClaimCheck RunFigures check_claims published_figures",
        "andon.benchmark.comparison": "Comparability comparability",
        "andon.benchmark.intervals": (
            "Interval bootstrap_auroc bootstrap_interval clopper_pearson delong_interval delong_p_value delong_variance"
        ),
        "andon.benchmark.pareto": "CostPoint pareto_front",
        "andon.benchmark.protocols": "STUDY_PROTOCOLS StudyProtocol study_protocol",
        "andon.benchmark.ranking": "Ranking critical_difference rank_methods",
        "andon.benchmark.study": "StudyPlan few_shot_entries study_plans",
        "andon.benchmark.study_line": "StudyLine render_study_line",
        "andon.benchmark.study_run": (
            "StudyEstimate StudyRowEstimate estimate_study prepare_study run_study with_images"
        ),
        "andon.benchmark.suitability": "Suitability derive_suitability",
        "andon.benchmark.statistics": "Summary adjusted_p_values best_set mean_over run_means summarise welch_p_value",
        "andon.benchmark.store": "Store",
    },
)
