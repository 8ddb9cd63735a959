"""What the AutoVI study printed: figures to stand beside measured ones, claims to check, and where either differs.

Source: Carvalho, Lafou, Durupt, Leblanc, Grandvalet: *Detecting visual anomalies in an industrial environment:
Unsupervised methods put to the test on the AutoVI dataset*, Computers in Industry 163 (2024), 104151 (open access,
CC BY 4.0). ``cells``: Tables 6–10; ``variants``: 11–13; ``suitability``: 14; ``datasets``: 1, 3, 4, 5; ``literature``:
2; ``claims``: what its text says of the results; ``differences``: where a printed figure is another quantity than
Andon's, or contradicts another.

>>> published("auroc", "patchcore", "tank_screw")
Published(mean=89.3, sd=0.7, misprint='')
"""

from __future__ import annotations

from andon.benchmark.published.cells import (
    CATEGORIES,
    METHODS,
    RUNS,
    SOURCE,
    TABLES,
    Metric,
    Published,
    published,
    short_name,
)
from andon.benchmark.published.claims import CLAIMS, StudyClaim
from andon.benchmark.published.datasets import (
    AUTOVI_CATEGORIES,
    CONFUSION_MATRIX,
    PUBLIC_DATASETS,
    AutoviCategory,
    PublicDataset,
)
from andon.benchmark.published.differences import CONTRADICTIONS, Contradiction, quantity_differences
from andon.benchmark.published.literature import LITERATURE, LITERATURE_DATASETS, LiteratureFigure, literature_figure
from andon.benchmark.published.suitability import CHARACTERISTICS, published_suitability
from andon.benchmark.published.variants import (
    WINDOWS,
    Augmented,
    published_augmented,
    published_extra_normalisation,
    published_window,
)

__all__ = [
    "AUTOVI_CATEGORIES",
    "CATEGORIES",
    "CHARACTERISTICS",
    "CLAIMS",
    "CONFUSION_MATRIX",
    "CONTRADICTIONS",
    "LITERATURE",
    "LITERATURE_DATASETS",
    "METHODS",
    "PUBLIC_DATASETS",
    "RUNS",
    "SOURCE",
    "TABLES",
    "WINDOWS",
    "Augmented",
    "AutoviCategory",
    "Contradiction",
    "LiteratureFigure",
    "Metric",
    "PublicDataset",
    "Published",
    "StudyClaim",
    "literature_figure",
    "published",
    "published_augmented",
    "published_extra_normalisation",
    "published_suitability",
    "published_window",
    "quantity_differences",
    "short_name",
]
