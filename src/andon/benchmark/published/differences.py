"""Where a printed figure is another quantity than the one that Andon measures, and where the study contradicts itself.

Found by comparing the paper with its authors' code (github.com/phcarval/autovi-paper-code) and by arithmetic on the
printed figures; ``tests/benchmark/test_published_facts.py`` repeats the arithmetic. docs/protocol.md has the reasons.
"""

from __future__ import annotations

from dataclasses import dataclass

from andon.benchmark.published.cells import METHODS, Metric

__all__ = ["CONTRADICTIONS", "Contradiction", "quantity_differences"]

_CLIPPED = (
    "the study's code scales this method's scores by minimum and maximum and clips them to 0..1 before its image-level "
    "figures: scores beyond tie; Andon's are raw"
)
_PNG = "the study's maps were saved as 8-bit PNGs: at most 256 thresholds; Andon's are raw floats"
_BATCH_RESCALED = "the study rescales each batch's maps by their minimum and maximum before AUsPRO; Andon never does"
_STRETCHED = (
    "the study's Patchcore sees the centre 224 of 256 pixels, and its maps are stretched over the whole image: they "
    "are out of place; Andon puts them where the crop was"
)
_BATCH_MAXIMUM = (
    "CFlow's image scores in the study are taken from the maximum of their batch, so they depend on which images share "
    "one; Andon's do not"
)
_TRAPEZOID = (
    "Table 7 is the trapezoidal area under the precision–recall curve, up to 1.65 points above the step-wise AP on "
    "underbody_screw, mostly at most 0.06; Andon's AP is step-wise"
)
_TNR_READING = (
    "Table 8 does not say whether its threshold has a TNR of at least the target or the one nearest to it; the two are "
    "different points in 13 of its 18 category–target pairs; Andon takes at least"
)
_TRUNCATED = "printed ± 0.0, yet no k of the defective images rounds to it: it is k/n cut off after one digit"
_ANY_GPU = "measured on an Nvidia V100: another machine's time is another quantity"

_RESCALED_MAPS = ("efficientad", "padim")
_CLIPPED_SCORES = ("cflow", "draem", "patchcore")
"""Whose released settings say ``normalization_method: min_max``; the others' say none."""

_TRUNCATED_CELLS: dict[tuple[Metric, str, str], str] = {
    ("tpr_at_tnr_99", "dsr", "tank_screw"): "1/95 = 1.05",
    ("tpr_at_tnr_99", "patchcore", "underbody_pipes"): "181/184 = 98.37",
    ("tpr_at_tnr_99", "patchcore", "underbody_screw"): "3/18 = 16.67",
    ("tpr_at_tnr_95", "patchcore", "pipe_clip"): "7/141 = 4.96",
}


def quantity_differences(metric: Metric, method: str, category: str | None = None) -> tuple[str, ...]:
    """Why a printed figure is not quite the quantity that Andon measures; empty where no difference is known.

    Args:
        metric: of the figure.
        method: Andon's name of one of the six; empty result for others, of which nothing is printed.
        category: adds what holds for this cell alone; None for the column.
    """
    if method not in METHODS:
        return ()
    if metric == "training_seconds":
        return (_ANY_GPU,)
    found: list[str] = []
    if metric == "auspro":
        found.append(_PNG)
        if method in _RESCALED_MAPS:
            found.append(_BATCH_RESCALED)
        if method == "patchcore":
            found.append(_STRETCHED)
        return tuple(found)
    if metric == "ap":
        found.append(_TRAPEZOID)
    if metric.startswith("tpr_at_tnr"):
        found.append(_TNR_READING)
    if method == "cflow":
        found.append(_BATCH_MAXIMUM)
    if method in _CLIPPED_SCORES:
        found.append(_CLIPPED)
    truncated = None if category is None else _TRUNCATED_CELLS.get((metric, method, category))
    if truncated is not None:
        found.append(f"{_TRUNCATED} ({truncated})")
    return tuple(found)


@dataclass(frozen=True)
class Contradiction:
    """Two things of the study that cannot both be right.

    Attributes:
        where: table or section.
        says: what stands there.
        against: what it contradicts.
        reading: what Andon takes.
    """

    where: str
    says: str
    against: str
    reading: str


CONTRADICTIONS: tuple[Contradiction, ...] = (
    Contradiction(
        "Section 7",
        "Patchcore finds over 98 % of the defects of underbody_screw at a TNR of 99 %",
        "Table 8 prints 16.6 there; 98.3 stands at underbody_pipes, as section 5.6 has it",
        "Table 8's: the sentence names the wrong category",
    ),
    Contradiction(
        "Table 9, CFlow, T. screw",
        "4.3 ± 16.1",
        "eight runs in 0..100 with a mean of 4.3 deviate by 11.4 at most; the column's printed mean of 22.6 ± 24.2 "
        "agrees with 4.3",
        "shown as printed, marked; in no test",
    ),
    Contradiction(
        "Table 6, Patchcore, Mean",
        "88.4",
        "the mean of the column's printed cells is 88.5",
        "shown as printed: rounding of the cells can make the difference",
    ),
    Contradiction(
        "Table 7, EfficientAD, Mean",
        "a deviation of 24.8",
        "the population deviation of the column's printed cells is 24.57, the sample's 26.9",
        "shown as printed, marked",
    ),
    Contradiction(
        "Table 8, four cells of deviation 0.0",
        "DSR 1.0 (T. screw), Patchcore 98.3 (Pipes), 16.6 (U. screw) and 4.9 (Clip)",
        "of 95, 184, 18 and 141 defective images no number rounds to these; 1.05, 98.37, 16.67 and 4.96, cut off, do",
        "compared within a tenth of a point",
    ),
    Contradiction(
        "Section 4.1 and the released code",
        "EfficientAD-M, maps normalised on 5 % of the training images",
        "the code trains EfficientAD-S on all images and normalises on good test images",
        "the paper's; the code's as a preset where the method has the option",
    ),
    Contradiction(
        "Table 4 and section 6.4",
        "underbody_screw varies much (lighting, casing models; section 6.3 as well)",
        "section 6.4 calls it and underbody_pipes categories of little structural variability",
        "of high variability, as in Table 4: the light counts",
    ),
    Contradiction(
        "Table 4",
        'a category "Cables"',
        "everywhere else it is underbody_pipes",
        "underbody_pipes",
    ),
    Contradiction(
        "Table 3 and the published archive",
        "1,530 training, 1,533 good and 887 defective test images",
        "an account of the archive counts 1,523, 1,521 and 878 (pipe_staple 191 training, 188 + 117 test; pipe_clip "
        "195 + 142 test)",
        "the images that are there: every table says how many",
    ),
    Contradiction(
        "Section 4.2",
        "thresholds of Table 8 come from the training set alone",
        "its figures fit a TNR on the good test images; with thresholds of training images the TNR would vary",
        "as in the table, and the threshold from training images as a table of its own",
    ),
    Contradiction(
        "Table 11 and section 6.1",
        "the area under the averaged ROC curve, with a ±",
        "one averaged curve has one area; the ± can only be that of the runs' own areas",
        "both: the area under the averaged curve, and mean ± deviation of the runs' AUROCs",
    ),
)
"""All that are known; docs/protocol.md lists them."""
