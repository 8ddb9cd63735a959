"""The method zoo: one module a method, each with its Config, behind one contract."""

from andon.methods.base import FeatureMethod, FitReport, Method, MethodConfig
from andon.methods.registry import create_method, method_class, method_names, register

__all__ = [
    "FeatureMethod",
    "FitReport",
    "Method",
    "MethodConfig",
    "create_method",
    "method_class",
    "method_names",
    "register",
]
