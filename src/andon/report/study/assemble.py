"""All parts of the results section, in its order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from andon.core import ProgressCallback
from andon.report.study.beyond import beyond_tables, ranking_table
from andon.report.study.claims import Claim, claims_of, claims_table
from andon.report.study.drawings import drawn_figures
from andon.report.study.main_tables import main_tables
from andon.report.study.model import Figure, StudyTable
from andon.report.study.parts import Study
from andon.report.study.reference_tables import reference_tables
from andon.report.study.samples import Sheet, sample_sheets
from andon.report.study.variant_tables import variant_tables

__all__ = ["Section", "assemble"]


@dataclass(frozen=True)
class Section:
    """The results section's content.

    Attributes:
        tables: all, in the order of the page; the claims, which the page shows in its own way, last.
        figures: drawn ones.
        sheets: of images.
        claims: what the study's text says.
    """

    tables: tuple[StudyTable, ...]
    figures: tuple[Figure, ...]
    sheets: tuple[Sheet, ...]
    claims: tuple[Claim, ...]

    def table(self, key: str) -> StudyTable:
        """A table by key; KeyError for an unknown one."""
        return {table.key: table for table in self.tables}[key]

    def figures_of(self, start: str) -> list[Figure]:
        """The drawn figures whose keys start so."""
        return [figure for figure in self.figures if figure.key.startswith(start)]

    def sheet(self, key: str) -> Sheet:
        """A sheet by key; KeyError for an unknown one."""
        return {sheet.key: sheet for sheet in self.sheets}[key]


def assemble(study: Study, public_datasets: Mapping[str, str | Path], progress: ProgressCallback) -> Section:
    """Makes all tables and figures."""
    dataset = study.dataset(study.main) if study.has_main else None
    claims = claims_of(study)
    tables = (
        *reference_tables(study, dataset),
        *main_tables(study),
        *variant_tables(study),
        *beyond_tables(study, progress),
        ranking_table(study),
        claims_table(claims, study.missing("study")),
    )
    progress("figures", 0, 1)
    figures = tuple(drawn_figures(study))
    sheets = tuple(sample_sheets(study, dataset, public_datasets))
    progress("figures", 1, 1)
    return Section(tables, figures, sheets, tuple(claims))
