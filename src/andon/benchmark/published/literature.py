"""Table 2 of the study: AUROCs that others had reported; Table 6 repeats those of the six methods."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LITERATURE", "LITERATURE_DATASETS", "LiteratureFigure", "literature_figure"]

LITERATURE_DATASETS = ("MVTec AD", "MVTec LOCO", "VisA")
"""Data sets of Table 2, and of the last three rows of Table 6, in their order."""

_ORIGINAL = "the method's paper, as quoted in Table 2 of the study"
_BENCHMARK = "Papers with Code, as quoted in Table 2 of the study (marked * there)"


@dataclass(frozen=True)
class LiteratureFigure:
    """A figure that the study quotes.

    Attributes:
        auroc: mean image-level AUROC over the data set's categories, %.
        asterisk: quoted from the Papers with Code benchmark, not from the method's paper.
    """

    auroc: float
    asterisk: bool = False

    @property
    def source(self) -> str:
        return _BENCHMARK if self.asterisk else _ORIGINAL


_PRINTED = """
    CFlow        98.2  -      91.5*
    CS-Flow      98.7  -      -
    f-AnoGAN     -     64.2*  -
    GANomaly     -     -      -
    RIAD         91.7  -      -
    DRAEM        98.0  73.6*  -
    DSR          98.2  82.6*  -
    Patchcore    99.0  80.3*  -
    PaDiM        97.9  -      -
    US           86.0  -      -
    GCAD         93.1  83.3   89.1*
    EfficientAD  99.1  90.7   98.1
"""


def _parse() -> dict[str, dict[str, LiteratureFigure]]:
    table: dict[str, dict[str, LiteratureFigure]] = {}
    for line in _PRINTED.strip().splitlines():
        method, *cells = line.split()
        table[method] = {
            dataset: LiteratureFigure(float(cell.rstrip("*")), cell.endswith("*"))
            for dataset, cell in zip(LITERATURE_DATASETS, cells, strict=True)
            if cell != "-"
        }
    return table


LITERATURE: dict[str, dict[str, LiteratureFigure]] = _parse()
"""Table 2: method as printed → data set → figure; a pair that the study has no figure for is not there."""


def literature_figure(method: str, dataset: str) -> LiteratureFigure | None:
    """The figure of one of Andon's methods ("efficientad") on one of ``LITERATURE_DATASETS``; None where none is."""
    return next((row.get(dataset) for name, row in LITERATURE.items() if name.casefold() == method), None)
