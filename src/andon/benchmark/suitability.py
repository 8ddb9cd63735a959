"""Table 14 by a rule instead of by eye: which method suits which kind of problem.

The rule: **a method suits a characteristic when the mean of its AUROCs over the categories that have the characteristic
is at least 80 %.** Which categories have it is read from the study's Table 4 and sections 3.2, 5.3, 6.3 and 7
(``CHARACTERISTIC_CATEGORIES``). On the study's own figures the rule gives what Table 14 prints in 22 of 30 cells; no
threshold on AUROCs gives all, for it marks CFlow (64.2 on underbody_pipes, 49.3 on pipe_clip) as suited to structural
defects and EfficientAD (62.4 on tank_screw), not DSR (70.2), to small ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CHARACTERISTIC_CATEGORIES", "SUITABLE_FROM", "Suitability", "derive_suitability"]

CHARACTERISTIC_CATEGORIES: Mapping[str, tuple[str, ...]] = {
    # Table 4: several modes of normality, or major changes of light.
    "High variability": ("pipe_clip", "pipe_staple", "tank_screw", "underbody_screw"),
    # Table 4 and section 5.3: a small clip, a relatively small screw.
    "Small defects": ("pipe_clip", "tank_screw"),
    # Section 7: large and complex scenes.
    "Complex scenes": ("tank_screw", "underbody_pipes"),
    # Section 6.3: underbody_pipes; section 7: the locally defective clip.
    "Struct. defects": ("pipe_clip", "underbody_pipes"),
    # Section 7: wrongly connected cables and hoops. (Section 3.2 counts missing parts as logical too.)
    "Logical defects": ("engine_wiring",),
}
"""Row of Table 14 → categories of AutoVI that stand for it."""

SUITABLE_FROM = 80.0
"""Mean AUROC in % from which a method suits."""


@dataclass(frozen=True)
class Suitability:
    """Whether a method suits a characteristic.

    Attributes:
        suits: None where a figure is missing.
        auroc: mean over the characteristic's categories, %; None where a figure is missing.
        reason: what it rests on, or what is missing.
    """

    suits: bool | None
    auroc: float | None
    reason: str


def derive_suitability(
    aurocs: Mapping[str, float | None],
    *,
    categories: Mapping[str, tuple[str, ...]] = CHARACTERISTIC_CATEGORIES,
    suitable_from: float = SUITABLE_FROM,
) -> dict[str, Suitability]:
    """Applies the rule to one method.

    Args:
        aurocs: category → mean AUROC over the runs, in %; None or NaN where there is none.
        categories: characteristic → categories that have it; other data sets have their own.
        suitable_from: %.

    Returns:
        By characteristic.
    """
    verdicts = {}
    for characteristic, members in categories.items():
        found = {name: value for name in members if (value := aurocs.get(name)) is not None and not math.isnan(value)}
        if missing := [name for name in members if name not in found]:
            verdicts[characteristic] = Suitability(None, None, f"no AUROC on {', '.join(missing)}")
            continue
        mean = math.fsum(found.values()) / len(found)
        shown = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
        suits = mean >= suitable_from
        relation = "≥" if suits else "<"
        verdicts[characteristic] = Suitability(
            suits, mean, f"mean AUROC {mean:.1f} {relation} {suitable_from:g} ({shown})"
        )
    return verdicts
