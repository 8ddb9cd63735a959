"""Tables, figures and the HTML report, from the store alone."""

from andon.report.tables import make_tables
from andon.report.write import write_report, write_tables

__all__ = ["make_tables", "write_report", "write_tables"]
