"""Writing tables and the report to disk: whole files or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from andon._tools.files import write_file
from andon.benchmark import Store
from andon.core import ConfigError
from andon.report.renderers import long_csv, to_csv, to_latex, to_markdown, to_text
from andon.report.results import collect
from andon.report.tables import Table, build_tables

__all__ = ["FORMATS", "write_bytes", "write_report", "write_tables"]

FORMATS = ("text", "markdown", "latex", "csv")


def write_report(store: Store, out_path: str | Path, *, title: str | None = None) -> Path:
    """Writes the self-contained HTML report.

    Args:
        store: the benchmark's.
        out_path: the file, or a folder that gets a ``report.html``.
        title: of the page; otherwise that of the plan.

    Returns:
        The file.

    Raises:
        ConfigError: nothing has finished in the store, or the file cannot be written (an older one is untouched then).
    """
    from andon.report.html import render_report

    path = Path(out_path)
    if path.is_dir():
        path = path / "report.html"
    _write(path, render_report(store, title=title))
    return path


def write_tables(store: Store, out_dir: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Writes the tables of a store.

    Args:
        store: the benchmark's.
        out_dir: gets ``tables.txt``, ``tables.md``, ``tables.tex``, one ``<table>.csv`` a table, and ``results.csv``
            with every figure of every run on a line of its own.
        formats: of ``FORMATS``.

    Returns:
        The files.

    Raises:
        ConfigError: unknown format, nothing has finished in the store, or a file cannot be written.
    """
    unknown = [f for f in formats if f not in FORMATS]
    if unknown:
        raise ConfigError(f"unknown table format {unknown[0]!r}; known: {', '.join(FORMATS)}")
    results = collect(store)
    tables = build_tables(results)
    folder = Path(out_dir)
    contents: dict[str, str] = {}
    joined: dict[str, tuple[str, str, Callable[[Table], str]]] = {
        "text": ("tables.txt", "\n", to_text),
        "markdown": ("tables.md", "\n", to_markdown),
        "latex": ("tables.tex", "\n", to_latex),
    }
    for name in dict.fromkeys(formats):
        if name == "csv":
            contents |= {f"{table.name}.csv": to_csv(table) for table in tables}
            contents["results.csv"] = long_csv(results)
        else:
            file_name, separator, render = joined[name]
            contents[file_name] = separator.join(render(table) for table in tables)
    return [_write(folder / file_name, text) for file_name, text in contents.items()]


def _write(path: Path, text: str) -> Path:
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> Path:
    """Writes a file whole or not at all; ConfigError if that cannot be done, the old file is untouched then."""
    write_file(path, content, ConfigError, "; name another place")
    return path
