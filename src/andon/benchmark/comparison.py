"""Whether the study's printed figures may stand beside an experiment's: only where it is the study's configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from andon.benchmark.published import METHODS
from andon.benchmark.record import Protocol
from andon.core import ConfigError

__all__ = ["STUDY_PRESETS", "Comparability", "comparability"]

STUDY_PRESETS = ("study", "released-code")
"""Presets that stand for the study: its text's settings, and its code's."""

_NEUTRAL = {
    "batch_size": "changes speed, never scores",
    "memory_limit": "changes where intermediate values lie, never scores",
    "transform.antialias": "the study's text leaves it open",
}
_NEUTRAL_PROTOCOL = {"fpr_limits", "calibration_folds"}
_MOST = 4
"""Differences that a label names."""


@dataclass(frozen=True)
class Comparability:
    """Whether printed figures may stand beside measured ones.

    Attributes:
        preset: the study's preset that the configuration equals; "" for none.
        reason: why they may not; "" where they may.
    """

    preset: str = ""
    reason: str = ""

    @property
    def comparable(self) -> bool:
        return not self.reason


def comparability(
    method: str,
    config: Mapping[str, Any],
    protocol: Protocol | None = None,
    *,
    random_weights: Sequence[str] = (),
    presets: Sequence[str] = STUDY_PRESETS,
) -> Comparability:
    """Compares an experiment with the study's.

    What never changes a score (batch sizes at prediction, memory limits) may differ, and so may what the study leaves
    open (antialiasing). The data set is the caller's to check.

    Args:
        method: registered name or ``path/to/file.py:Class``.
        config: its Config as an experiment keeps it; options that it lacks have their defaults.
        protocol: of the experiment; None for the default.
        random_weights: learned parts that ran on random weights.
        presets: the method's presets that count as the study's; those that it does not have are passed over.

    Returns:
        The preset, or as reason the options that differ from the nearest of them.
    """
    if method not in METHODS:
        return Comparability(reason="not a method of the study")
    try:
        found = _flat(_resolved(method, json.dumps(config, sort_keys=True)))
    except (ConfigError, TypeError, ValueError) as error:
        return Comparability(reason=f"a configuration that cannot be read: {error}")
    elsewhere = list(_protocol_differences(protocol or Protocol()))
    if random_weights:
        elsewhere.append(f"random weights ({', '.join(random_weights)})")
    nearest: list[str] | None = None
    for preset in presets:
        try:
            differing = list(_differences(found, _flat(_preset(method, preset)), preset))
        except ConfigError:
            continue  # the method has no such preset
        if not differing and not elsewhere:
            return Comparability(preset)
        if nearest is None or len(differing) < len(nearest):
            nearest = differing
    if nearest is None:
        return Comparability(reason=f"{method} has no preset of the study's")
    return Comparability(reason=_label(method, found, elsewhere + nearest))


def _label(method: str, found: Mapping[str, Any], differing: Sequence[str]) -> str:
    shown = "; ".join(differing[:_MOST]) + (f"; and {len(differing) - _MOST} more" if len(differing) > _MOST else "")
    return f"not the study's configuration: {shown}{_printed_elsewhere(method, found, differing)}"


def _printed_elsewhere(method: str, found: Mapping[str, Any], differing: Sequence[str]) -> str:
    """Where the study has figures for what alone differs."""
    if len(differing) != 1:
        return ""
    if method == "efficientad" and found.get("extra_normalisation") is True:
        return " (Table 13 has figures for it)"
    if differing[0].startswith("augmentation "):
        return " (Table 11 has figures for the study's augmentation)"
    return " (Figure 5 has such curves)" if method == "patchcore" and differing[0].startswith("shots ") else ""


def _protocol_differences(protocol: Protocol) -> Iterator[str]:
    default = Protocol().model_dump(mode="json")
    for name, value in protocol.model_dump(mode="json").items():
        if name not in _NEUTRAL_PROTOCOL and value != default[name]:
            yield f"{name} {_text(value)}"


@cache
def _preset(method: str, preset: str) -> dict[str, Any]:
    from andon.methods import create_method

    values: dict[str, Any] = create_method(method, preset=preset).config.model_dump(mode="json")
    return values


@cache
def _resolved(method: str, config: str) -> dict[str, Any]:
    """The Config with the defaults of what it does not name: those of before an option existed."""
    from andon.methods import recorded_method

    values: dict[str, Any] = recorded_method(method, json.loads(config)).config.model_dump(mode="json")
    return values


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any], preset: str) -> Iterator[str]:
    for name in dict.fromkeys((*wanted, *found)):
        if name not in _NEUTRAL and found.get(name) != wanted.get(name):
            yield f"{name} {_text(found.get(name))} ({preset}: {_text(wanted.get(name))})"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} {_text(part)}" for name, part in value.items()) + ")"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)
