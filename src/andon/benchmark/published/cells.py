"""Tables 6 to 10 of the AutoVI study, cell by cell.

Source: Carvalho, Lafou, Durupt, Leblanc, Grandvalet: *Detecting visual anomalies in an industrial environment:
Unsupervised methods put to the test on the AutoVI dataset*, Computers in Industry 163 (2024), 104151, Tables 6–10
(doi 10.1016/j.compind.2024.104151). Mean ± standard deviation of eight runs, in %; training time in seconds. Table 10's
second line (images a second) is not here: the open text of the paper lacks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["CATEGORIES", "METHODS", "RUNS", "SOURCE", "TABLES", "Metric", "Published", "published", "short_name"]

SOURCE = "Carvalho et al., Computers in Industry 163 (2024)"
RUNS = 8
"""Runs behind every mean ± standard deviation."""

CATEGORIES = {
    "engine_wiring": "Wiring",
    "pipe_clip": "Clip",
    "pipe_staple": "Staple",
    "tank_screw": "T. screw",
    "underbody_pipes": "Pipes",
    "underbody_screw": "U. screw",
}
"""The data set's categories and what the tables call them, in the tables' order."""

METHODS = {
    "cflow": "CFlow",
    "draem": "DRAEM",
    "dsr": "DSR",
    "efficientad": "Eff.AD",
    "padim": "PaDiM",
    "patchcore": "Patchcore",
}
"""Andon's method names and what the tables call them, in the tables' order."""

Metric = Literal["auroc", "ap", "tpr_at_tnr_99", "tpr_at_tnr_95", "tpr_at_tnr_90", "auspro", "training_seconds"]
TABLES: dict[Metric, int] = {
    "auroc": 6,
    "ap": 7,
    "tpr_at_tnr_99": 8,
    "tpr_at_tnr_95": 8,
    "tpr_at_tnr_90": 8,
    "auspro": 9,
    "training_seconds": 10,
}
"""The table that each metric is printed in; AUsPRO is to a pixel FPR of 0.05."""


@dataclass(frozen=True)
class Published:
    """A printed cell.

    Attributes:
        mean: in % (training time: seconds).
        sd: standard deviation: over eight runs; in Mean rows across the categories.
        misprint: what is wrong with it, "" if nothing is known to be.
    """

    mean: float
    sd: float
    misprint: str = ""


# One line a category, one "mean±sd" a method, as printed.
_PRINTED: dict[Metric, str] = {
    "auroc": """
        Wiring    46.1±8.6   71.8±2.3   75.9±2.4   79.7±0.8  79.2±1.3   77.2±0.3
        Clip      49.3±12.7  76.6±3.6   81.1±6.8   76.8±1.2  62.6±2.0   73.3±0.9
        Staple    51.2±6.7   74.2±12.1  96.2±3.1   84.3±1.5  54.6±3.0   92.3±0.6
        T. screw  48.7±14.1  63.9±11.8  70.2±10.2  62.4±2.7  49.4±2.7   89.3±0.7
        Pipes     64.2±19.7  89.2±5.5   56.9±8.6   91.2±1.2  98.9±0.6   99.8±0.0
        U. screw  48.8±13.0  96.0±2.8   97.9±2.2   91.0±0.2  82.6±1.7   98.9±0.1
        Mean      51.4±5.9   78.6±10.8  79.7±14.3  80.9±9.8  71.2±17.3  88.4±10.1
    """,
    "ap": """
        Wiring    52.8±6.3   70.2±4.9   74.2±3.1   77.9±1.0   77.2±1.3   77.5±0.4
        Clip      44.7±11.3  68.3±6.1   69.3±6.8   59.7±0.9   48.5±1.6   56.0±0.7
        Staple    40.1±6.5   57.2±12.8  94.2±4.5   61.5±1.9   39.4±1.2   78.0±1.6
        T. screw  25.1±7.4   37.2±14.1  34.8±8.9   26.1±1.3   23.0±0.6   57.9±2.2
        Pipes     66.5±16.9  92.7±2.3   56.9±7.0   88.9±1.2   99.1±0.6   99.9±0.0
        U. screw  7.2±1.0    61.1±12.1  70.0±18.7  22.5±0.5   13.9±0.9   67.7±1.7
        Mean      39.4±19.0  64.4±16.6  66.6±18.0  56.1±24.8  50.2±29.7  72.8±14.8
    """,
    "tpr_at_tnr_99": """
        Wiring    3.0±2.9  4.3±3.3    5.5±1.6    2.9±1.2  5.6±1.0    8.0±0.6
        Clip      2.6±4.7  4.1±5.6    2.4±1.4    1.0±0.3  0.5±0.3    0.7±0.0
        Staple    2.3±3.9  5.1±11.0   56.2±22.9  1.7±0.4  1.0±0.8    3.1±0.6
        T. screw  1.7±3.2  4.2±7.1    1.0±0.0    0.0±0.0  1.2±0.3    3.4±1.7
        Pipes     8.6±9.5  38.9±15.6  4.1±2.7    8.6±5.1  85.3±11.6  98.3±0.0
        U. screw  0.0±0.0  39.6±27.1  63.9±32.9  0.0±0.0  0.0±0.0    16.6±0.0
    """,
    "tpr_at_tnr_95": """
        Wiring    6.4±3.0    17.8±3.3   18.5±6.3   23.1±2.6  19.8±2.7  25.5±1.7
        Clip      8.0±10.1   25.4±11.2  18.3±7.0   3.9±0.8   5.1±2.0   4.9±0.0
        Staple    4.3±4.5    14.6±14.7  82.7±12.2  5.3±0.8   4.0±1.5   19.2±5.2
        T. screw  4.2±5.8    9.8±12.8   6.2±7.7    2.2±0.6   4.3±1.8   20.0±3.0
        Pipes     17.2±15.6  52.4±23.1  6.9±3.9    51.7±6.4  95.0±3.5  99.5±0.0
        U. screw  0.7±1.8    66.0±34.2  88.9±14.4  0.0±0.0   2.1±2.7   100±0.0
    """,
    "tpr_at_tnr_90": """
        Wiring    10.9±4.6   27.9±3.9   28.3±8.0   43.5±3.6   36.7±5.6  34.9±1.2
        Clip      12.0±12.8  40.9±12.0  42.5±9.4   11.2±2.9   11.3±2.8  13.1±0.8
        Staple    9.9±6.2    31.5±19.4  89.5±8.0   9.6±1.1    8.5±1.0   70.6±7.9
        T. screw  9.2±7.1    18.6±18.9  17.2±10.6  7.0±0.7    9.3±1.2   45.3±4.8
        Pipes     23.2±20.3  66.0±19.9  10.0±6.4   72.7±8.6   97.5±1.1  99.5±0.0
        U. screw  2.1±2.7    91.7±10.8  97.2±5.6   89.6±10.1  6.2±1.8   100±0.0
    """,
    "auspro": """
        Wiring    5.3±2.0    7.7±1.3    29.4±2.6   45.5±1.5   44.4±3.9   35.7±0.3
        Clip      6.8±5.5    26.4±16.0  59.6±11.0  45.9±2.1   38.1±5.6   60.2±5.7
        Staple    5.9±4.2    55.8±16.1  78.3±3.9   49.1±25.6  19.1±5.6   60.3±5.2
        T. screw  4.3±16.1   91.1±1.7   94.2±1.0   66.3±4.6   50.4±8.1   80.6±0.5
        Pipes     53.6±18.4  53.0±5.4   63.1±3.4   55.9±1.5   78.2±1.7   77.6±0.2
        U. screw  59.9±26.2  72.4±2.3   78.4±2.1   98.4±1.2   93.3±1.6   99.3±0.0
        Mean      22.6±24.2  51.1±27.6  67.2±20.3  60.1±18.5  53.9±24.8  68.9±20.0
    """,
    "training_seconds": """
        Mean      19374±5551  29438±7357  16839±4227  15954±2303  15±2  46±23
    """,
}

_MISPRINTS: dict[tuple[Metric, str, str], str] = {
    ("auroc", "patchcore", "Mean"): "the mean of its column's printed cells is 88.5",
    ("ap", "efficientad", "Mean"): "the deviation across its column's printed cells is 24.6",
    ("auspro", "cflow", "T. screw"): "impossible: eight runs in 0..100 of mean 4.3 deviate by 11.4 at most",
}


def _parse() -> dict[tuple[Metric, str, str], Published]:
    cells = {}
    for metric, text in _PRINTED.items():
        for line in text.strip().splitlines():
            *name, a, b, c, d, e, f = line.split()
            row = " ".join(name)
            for method, cell in zip(METHODS, (a, b, c, d, e, f), strict=True):
                mean, sd = cell.split("±")
                cells[metric, method, row] = Published(
                    float(mean), float(sd), _MISPRINTS.get((metric, method, row), "")
                )
    return cells


_CELLS = _parse()
assert set(TABLES) == set(get_args(Metric)) == set(_PRINTED)


def published(metric: Metric, method: str, category: str | None) -> Published | None:
    """What the study printed for a method ("patchcore") and a category ("tank_screw"; None for the Mean row).

    None where it printed nothing. Training time is printed as a mean over all categories only.
    """
    row = "Mean" if category is None else CATEGORIES.get(category, category)
    return _CELLS.get((metric, method, row))


def short_name(category: str) -> str:
    """What the study's tables call a category; its own name for any other."""
    return CATEGORIES.get(category, category)
