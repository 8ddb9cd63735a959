"""The method zoo: one folder a method, each with its Config, behind one contract.

>>> from andon.methods import create_method, method_names
>>> method_names()
('cflow', 'draem', 'dsr', 'efficientad', 'padim', 'patchcore', 'thumbnail-nn')
>>> create_method("padim", sigma=2.0).config.sigma
2.0
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from andon._tools.faces import lazy_face

if TYPE_CHECKING:
    from andon.methods._file import load
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
    from andon.methods.parts import (
        LearnedPart,
        PartStatus,
        check_method_weights,
        fetch_part,
        part_status,
        parts_named,
        verify_part,
    )
    from andon.methods.registry import code_fingerprint, create_method, method_class, method_names, preset_config

__all__ = [
    "Detector",
    "FeatureConfig",
    "FeatureDetector",
    "FeatureMethod",
    "FitReport",
    "FitRun",
    "Fitting",
    "LearnedPart",
    "Method",
    "MethodConfig",
    "PartStatus",
    "TrainedConfig",
    "check_method_weights",
    "code_fingerprint",
    "create_method",
    "fetch_part",
    "load",
    "method_class",
    "method_names",
    "part_status",
    "parts_named",
    "preset_config",
    "verify_part",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "andon.methods._file": "load",
        "andon.methods.base": (
            "Detector FeatureConfig FeatureDetector FeatureMethod FitReport FitRun Fitting Method MethodConfig "
            "TrainedConfig"
        ),
        "andon.methods.parts": (
            "LearnedPart PartStatus check_method_weights fetch_part part_status parts_named verify_part"
        ),
        "andon.methods.registry": "code_fingerprint create_method method_class method_names preset_config",
    },
)
