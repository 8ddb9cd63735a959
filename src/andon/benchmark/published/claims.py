"""What the study's text says of its results, sentence by sentence, as something that can be checked.

Section 5 whole: every sentence that states a figure, an extreme or a set of best; of sections 6.3 and 7 the sentences
that state a figure of a measured quantity. The texts are Andon's own words. ``andon.benchmark.claim_checks`` compares
them with measured figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["CLAIMS", "Over", "Relation", "Statistic", "StudyClaim"]

Statistic = Literal["mean", "minimum", "maximum", "rank", "rank from the last", "in best set", "above chance"]
"""``mean``, ``minimum``, ``maximum``: over the runs. ``rank``: of the mean among the study's methods, 1 = highest.
``in best set``: 1 for a member of the best set by Welch's test, else 0. ``above chance``: 1 where the runs' mean is
significantly above 50 %, one-sided, else 0."""

Over = Literal["category", "categories", "every category", "how many categories"]
"""What the statistic is taken over. ``category``: the claim's own. ``categories``: the mean over all of them (the Mean
row). ``every category``: the one that is furthest against the claim. ``how many categories``: the number of categories
whose mean is above ``threshold`` (or that are above chance)."""

Relation = Literal["equals", "below", "above", "at least", "at most"]


@dataclass(frozen=True)
class StudyClaim:
    """A statement of the study's text.

    Attributes:
        section: where it stands.
        text: what it says, in our words.
        quantity: metric, as in ``andon.benchmark.published.Metric``, or "images_per_second", "auroc@1 shot",
            "validation_share".
        method: Andon's name of it; "" for each of the six.
        category: Andon's name of it; "" where ``over`` says which.
        figure: what the statistic is to be: %, seconds, images a second, a rank or a number of categories.
        statistic, over, relation: see there.
        tolerance: allowed difference of an "equals"; half a unit of the last printed digit unless the text rounds.
        threshold: of ``how many categories``.
        doubt: why it cannot be right as it stands; "" if nothing speaks against it.
    """

    section: str
    text: str
    quantity: str
    method: str
    category: str
    figure: float
    statistic: Statistic = "mean"
    over: Over = "category"
    relation: Relation = "equals"
    tolerance: float = 0.05
    threshold: float | None = None
    doubt: str = ""


def _best(section: str, quantity: str, method: str, category: str, text: str) -> StudyClaim:
    return StudyClaim(section, text, quantity, method, category, 1, "in best set", tolerance=0)


def _cflow() -> tuple[StudyClaim, ...]:
    section, pipes = "5.1", "underbody_pipes"
    lowest = tuple(
        StudyClaim(
            section,
            f"CFlow has the lowest mean {name} of all methods",
            quantity,
            "cflow",
            "",
            1,
            "rank from the last",
            "categories",
            tolerance=0,
        )
        for quantity, name in (("auroc", "AUROC"), ("ap", "AP"), ("auspro", "AUsPRO"))
    )
    return (
        *lowest,
        StudyClaim(
            section,
            "one category alone has an AUROC of CFlow's that is significantly better than chance (50 %)",
            "auroc",
            "cflow",
            "",
            1,
            "above chance",
            "how many categories",
            tolerance=0,
        ),
        StudyClaim(
            section,
            "and that is underbody_pipes",
            "auroc",
            "cflow",
            pipes,
            1,
            "above chance",
            tolerance=0,
        ),
        StudyClaim(section, "CFlow's best run on underbody_pipes", "auroc", "cflow", pipes, 87.8, "maximum"),
        StudyClaim(section, "CFlow's worst run on underbody_pipes", "auroc", "cflow", pipes, 33.1, "minimum"),
    )


def _dsr() -> tuple[StudyClaim, ...]:
    section = "5.3"
    best = tuple(
        _best(section, quantity, "dsr", category, f"DSR is among the best in {name} on {category}")
        for quantity, name in (("auroc", "AUROC"), ("ap", "AP"))
        for category in ("pipe_clip", "pipe_staple", "underbody_screw")
    )
    segmentation = tuple(
        _best(section, "auspro", "dsr", category, f"DSR is among the best in segmentation on {category}")
        for category in ("pipe_clip", "pipe_staple", "tank_screw")
    )
    at95, at99 = "tpr_at_tnr_95", "tpr_at_tnr_99"
    return (
        *best,
        StudyClaim(section, "DSR's mean TPR at TNR 95 % on pipe_staple", at95, "dsr", "pipe_staple", 82.7),
        StudyClaim(
            section,
            "which is far above the others'",
            at95,
            "dsr",
            "pipe_staple",
            1,
            "rank",
            tolerance=0,
        ),
        StudyClaim(section, "DSR's mean TPR at TNR 99 % on underbody_screw", at99, "dsr", "underbody_screw", 63.9),
        StudyClaim(
            section,
            "no category has a higher one of DSR's",
            at99,
            "dsr",
            "",
            63.9,
            "mean",
            "every category",
            "at most",
        ),
        StudyClaim(
            section,
            "DSR has the lowest mean AUROC of all methods on underbody_pipes",
            "auroc",
            "dsr",
            "underbody_pipes",
            1,
            "rank from the last",
            tolerance=0,
        ),
        *segmentation,
    )


def _efficientad() -> tuple[StudyClaim, ...]:
    section = "5.4"
    best = tuple(
        _best(section, "auroc", method, category, f"{title} is among the best in AUROC on {category}")
        for category, members in (
            ("pipe_clip", (("efficientad", "EfficientAD"), ("draem", "DRAEM"), ("dsr", "DSR"))),
            ("engine_wiring", (("efficientad", "EfficientAD"), ("padim", "PaDiM"))),
        )
        for method, title in members
    )
    return (
        *best,
        StudyClaim(
            section,
            "EfficientAD's TPR at TNR 99 % does not exceed 10 % anywhere",
            "tpr_at_tnr_99",
            "efficientad",
            "",
            10,
            "mean",
            "every category",
            "at most",
            tolerance=0,
        ),
        StudyClaim(
            section,
            "EfficientAD normalises its maps on 5 % of the training images",
            "validation_share",
            "efficientad",
            "",
            5,
            "mean",
            "categories",
        ),
    )


def _padim() -> tuple[StudyClaim, ...]:
    section, wiring = "5.5", "engine_wiring"
    return (
        StudyClaim(
            section, "PaDiM is second in mean AUROC on engine_wiring", "auroc", "padim", wiring, 2, "rank", tolerance=0
        ),
        StudyClaim(section, "PaDiM's mean AUROC on engine_wiring", "auroc", "padim", wiring, 79.2),
        StudyClaim(
            section, "PaDiM's mean AUROC on tank_screw is at 50 %", "auroc", "padim", "tank_screw", 50, tolerance=1
        ),
    )


def _above_99_percent() -> tuple[StudyClaim, ...]:
    """Section 5.6: which methods have a TPR of more than 99 % at a TNR of 95 %, and where."""
    return tuple(
        StudyClaim(
            "5.6",
            f"Patchcore alone exceeds a TPR of 99 % at TNR 95 %, and in two categories: {title} in "
            f"{'two' if method == 'patchcore' else 'none'}",
            "tpr_at_tnr_95",
            method,
            "",
            2 if method == "patchcore" else 0,
            "mean",
            "how many categories",
            tolerance=0,
            threshold=99,
        )
        for method, title in (
            ("patchcore", "Patchcore"),
            ("cflow", "CFlow"),
            ("draem", "DRAEM"),
            ("dsr", "DSR"),
            ("efficientad", "EfficientAD"),
            ("padim", "PaDiM"),
        )
    )


def _patchcore() -> tuple[StudyClaim, ...]:
    section = "5.6"
    best = tuple(
        _best(section, "auroc", "patchcore", category, f"Patchcore is among the best in AUROC on {category}")
        for category in ("tank_screw", "underbody_pipes", "underbody_screw")
    )
    behind = tuple(
        StudyClaim(
            section,
            f"DRAEM, DSR and EfficientAD are above Patchcore in {name} on pipe_clip",
            quantity,
            "patchcore",
            "pipe_clip",
            4,
            "rank",
            "category",
            "at least",
            tolerance=0,
        )
        for quantity, name in (("auroc", "AUROC"), ("ap", "AP"))
    )
    return (
        StudyClaim(
            section,
            "Patchcore is the best method over all, by mean AUROC",
            "auroc",
            "patchcore",
            "",
            1,
            "rank",
            "categories",
            tolerance=0,
        ),
        *best,
        StudyClaim(
            section,
            "Patchcore's TPR at TNR 99 % on underbody_pipes",
            "tpr_at_tnr_99",
            "patchcore",
            "underbody_pipes",
            98.3,
        ),
        *_above_99_percent(),
        *behind,
    )


def _times() -> tuple[StudyClaim, ...]:
    section, seconds = "5.7", "training_seconds"
    quick = tuple(
        StudyClaim(
            section,
            f"{title} trains in less than a minute",
            seconds,
            method,
            "",
            60,
            "mean",
            "categories",
            "below",
        )
        for method, title in (("patchcore", "Patchcore"), ("padim", "PaDiM"))
    )
    return (
        StudyClaim(
            section,
            "every method predicts several images a second (read as: more than two)",
            "images_per_second",
            "",
            "",
            2,
            "mean",
            "every category",
            "above",
        ),
        StudyClaim(
            section,
            "every method trains in less than ten hours on average",
            seconds,
            "",
            "",
            36000,
            "mean",
            "categories",
            "below",
        ),
        *quick,
    )


def _later_sections() -> tuple[StudyClaim, ...]:
    return (
        StudyClaim(
            "6.3",
            "with one training image Patchcore's AUROC on underbody_pipes is above 99 %",
            "auroc@1 shot",
            "patchcore",
            "underbody_pipes",
            99,
            relation="above",
        ),
        StudyClaim(
            "7",
            "Patchcore's TPR at TNR 99 % on underbody_screw is over 98 %",
            "tpr_at_tnr_99",
            "patchcore",
            "underbody_screw",
            98,
            relation="above",
            doubt="Table 8 prints 16.6 for underbody_screw; 98.3 is its figure for underbody_pipes",
        ),
        StudyClaim(
            "7",
            "the best mean AUROC on AutoVI is Patchcore's 88.4 % (its row's rounded cells have 88.5)",
            "auroc",
            "patchcore",
            "",
            88.4,
            over="categories",
            tolerance=0.1,
        ),
    )


CLAIMS: tuple[StudyClaim, ...] = (
    *_cflow(),
    *_dsr(),
    *_efficientad(),
    *_padim(),
    *_patchcore(),
    *_times(),
    *_later_sections(),
)
"""In the text's order. Section 5.2 states no figure, extreme or set of best."""
