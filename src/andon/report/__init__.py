"""Tables, figures and the HTML report, from the store alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from andon._tools.faces import lazy_face

if TYPE_CHECKING:
    from andon.report.checking import write_check
    from andon.report.dataset_counts import CountComparison, compare_counts
    from andon.report.literature import LITERATURE_COLUMNS, literature_notes, literature_rows, literature_text
    from andon.report.renderers import to_rich, to_text
    from andon.report.study.write import write_study
    from andon.report.tables import make_tables
    from andon.report.write import write_report, write_tables

__all__ = [
    "LITERATURE_COLUMNS",
    "CountComparison",
    "compare_counts",
    "literature_notes",
    "literature_rows",
    "literature_text",
    "make_tables",
    "to_rich",
    "to_text",
    "write_check",
    "write_report",
    "write_study",
    "write_tables",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "andon.report.checking": "write_check",
        "andon.report.dataset_counts": "CountComparison compare_counts",
        "andon.report.literature": "LITERATURE_COLUMNS literature_notes literature_rows literature_text",
        "andon.report.renderers": "to_rich to_text",
        "andon.report.study.write": "write_study",
        "andon.report.tables": "make_tables",
        "andon.report.write": "write_report write_tables",
    },
)
