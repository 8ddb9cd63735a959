"""The method zoo: one folder a method, each with its Config, behind one contract.

>>> from andon.methods import create_method, method_names
>>> {"csflow", "patchcore", "thumbnail-nn"} <= set(method_names())
True
>>> create_method("padim", sigma=2.0).config.sigma
2.0
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from andon._tools.faces import lazy_face

if TYPE_CHECKING:
    from andon.methods._branches import Branched, branch_scores
    from andon.methods._file import load, load_bytes
    from andon.methods._growing import Grows, detector_with
    from andon.methods._leaving_out import LeavesOut, Recall, Recalls, detector_without, fitted_again
    from andon.methods._own_files import method_files
    from andon.methods.base import (
        Detector,
        FeatureConfig,
        FeatureDetector,
        FeatureMethod,
        FitReport,
        FitRun,
        Fitting,
        Method,
        MethodConfig,
        TrainedConfig,
    )
    from andon.methods.contract_check import ContractItem, ContractReport, check_method
    from andon.methods.parts import (
        LearnedPart,
        PartStatus,
        check_method_weights,
        fetch_part,
        part_status,
        parts_named,
        verify_part,
    )
    from andon.methods.registry import (
        code_fingerprint,
        create_method,
        method_class,
        method_names,
        method_presets,
        preset_config,
        recorded_method,
    )
    from andon.methods.timed_fit import TimedFit, time_fit

__all__ = [
    "Branched",
    "ContractItem",
    "ContractReport",
    "Detector",
    "FeatureConfig",
    "FeatureDetector",
    "FeatureMethod",
    "FitReport",
    "FitRun",
    "Fitting",
    "Grows",
    "LearnedPart",
    "LeavesOut",
    "Method",
    "MethodConfig",
    "PartStatus",
    "Recall",
    "Recalls",
    "TimedFit",
    "TrainedConfig",
    "branch_scores",
    "check_method",
    "check_method_weights",
    "code_fingerprint",
    "create_method",
    "detector_with",
    "detector_without",
    "fetch_part",
    "fitted_again",
    "load",
    "load_bytes",
    "method_class",
    "method_files",
    "method_names",
    "method_presets",
    "part_status",
    "parts_named",
    "preset_config",
    "recorded_method",
    "time_fit",
    "verify_part",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "andon.methods._branches": "Branched branch_scores",
        "andon.methods._file": "load load_bytes",
        "andon.methods._growing": "Grows detector_with",
        "andon.methods._leaving_out": "LeavesOut Recall Recalls detector_without fitted_again",
        "andon.methods._own_files": "method_files",
        "andon.methods.base": (
            "Detector FeatureConfig FeatureDetector FeatureMethod FitReport FitRun Fitting Method MethodConfig "
            "TrainedConfig"
        ),
        "andon.methods.contract_check": "ContractItem ContractReport check_method",
        "andon.methods.parts": (
            "LearnedPart PartStatus check_method_weights fetch_part part_status parts_named verify_part"
        ),
        "andon.methods.registry": "code_fingerprint create_method method_class method_names "
        "method_presets preset_config recorded_method",
        "andon.methods.timed_fit": "TimedFit time_fit",
    },
)
