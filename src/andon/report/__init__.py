"""Tables, figures and the HTML report, from the store alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from andon._tools.faces import lazy_face

if TYPE_CHECKING:
    from andon.report.renderers import to_rich, to_text
    from andon.report.tables import make_tables
    from andon.report.write import write_report, write_tables

__all__ = [
    "make_tables",
    "to_rich",
    "to_text",
    "write_report",
    "write_tables",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "andon.report.renderers": "to_rich to_text",
        "andon.report.tables": "make_tables",
        "andon.report.write": "write_report write_tables",
    },
)
