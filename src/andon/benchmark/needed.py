"""Before a run: whether the learned parts that its methods need are on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from andon.benchmark.expansion import ExpandedPlan
from andon.benchmark.record import ExperimentSpec
from andon.core import WeightsError, canonical_json, listed
from andon.methods import check_method_weights, recorded_method

__all__ = ["check_weights"]


def check_weights(expanded: ExpandedPlan, todo: Sequence[ExperimentSpec]) -> None:
    """WeightsError that names every learned part that experiments lack, and the ways out; nothing is loaded.

    What is published and missing is downloaded where there is a network.
    """
    faults: dict[str, list[str]] = {}
    packaged: list[str] = []
    methods = {(expanded.references[s.id], canonical_json(s.config)): s for s in todo}
    for (reference, _), spec in methods.items():
        method = recorded_method(reference, spec.config)
        try:
            check_method_weights(method)
        except WeightsError as error:
            faults.setdefault(str(error), []).append(spec.label)
            if "default" in method.presets:
                packaged.append(spec.label)
    if not faults:
        return
    missing = [f"for {listed(dict.fromkeys(labels))}: {fault}" for fault, labels in faults.items()]
    if packaged:
        names = listed(dict.fromkeys(packaged))
        missing.append(
            f"or run {names} on what is installed with the package: leave the preset out, or write preset: default"
        )
    raise WeightsError("nothing was run, because weights are missing: " + "; ".join(missing))
