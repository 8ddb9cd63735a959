"""Printed tables: every name and figure whole, however narrow the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from andon.cli import _show
from andon.cli._show import duration, say, show_table

FIGURES = ("AUROC", "AP", "AUsPRO 0.05", "AUsPRO 0.01", "AUsPRO 0.1", "AUsPRO 0.3", "AUsPRO 1", "pixel AUROC")
NAMES = ("underbody_screw", "a_category_with_a_very_long_name_indeed_" + "x" * 60)
ROWS = [[name, *("100.00" for _ in FIGURES)] for name in NAMES]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> io.StringIO:
    """What a terminal of so many characters shows; 0: a pipe."""
    file = io.StringIO()
    width = request.param
    monkeypatch.setattr(
        _show,
        "out",
        Console(file=file, width=width or 80, force_terminal=width > 0, color_system=None, highlight=False),
    )
    return file


def letters(text: str) -> str:
    """Without what a fold puts between the parts of a name."""
    return "".join(text.split())


@pytest.mark.parametrize("shown", [200, 120, 100, 80, 60, 40, 20], indirect=True)
def test_a_terminal_of_any_width_shows_all_of_it(shown: io.StringIO, request: pytest.FixtureRequest) -> None:
    show_table(("category", *FIGURES), ROWS, figures=FIGURES, title="maps")
    text = shown.getvalue()
    assert "…" not in text
    assert text.count("100.00") == 2 * len(FIGURES)
    assert text.startswith("maps\n")
    assert all(letters(header) in letters(text) or header.split()[0] in text for header in FIGURES)


@pytest.mark.parametrize("shown", [80], indirect=True)
def test_at_80_columns_a_long_name_is_folded_and_figures_are_not(shown: io.StringIO) -> None:
    show_table(("category", *FIGURES), ROWS, figures=FIGURES)
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("100.00" in line and line.count("100.00") == len(FIGURES) for line in lines) == 2, "still a table"
    assert "".join(line.split()[0] for line in lines if line.strip() and "x" in line[:14]).endswith("x" * 60)


@pytest.mark.parametrize("shown", [40], indirect=True)
def test_where_no_table_fits_rows_become_blocks(shown: io.StringIO) -> None:
    show_table(("category", *FIGURES), ROWS, figures=FIGURES)
    assert "category     underbody_screw\nAUROC        100.00\n" in shown.getvalue()


@pytest.mark.parametrize("shown", [0], indirect=True)
def test_a_pipe_gets_plain_lines_as_wide_as_they_are(shown: io.StringIO) -> None:
    show_table(
        ("category", *FIGURES), [*ROWS, [Text("styled", style="red"), *("9.00" for _ in FIGURES)]], figures=FIGURES
    )
    lines = shown.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[2].split() == [NAMES[1], *(["100.00"] * 8)]
    assert len({len(line) for line in lines}) == 1, "figures stand to the right"
    assert not any(ord(c) > 127 for c in shown.getvalue())


@pytest.mark.parametrize("shown", [80, 0], indirect=True)
def test_names_are_no_markup_and_cannot_move_the_cursor(shown: io.StringIO) -> None:
    show_table(("name",), [("[bold]x[/bold]",), ("\x1b[2Jred\x9b",)])
    say("[red]", "\x1b[31m")
    text = shown.getvalue()
    assert "[bold]x[/bold]" in text
    assert "\ufffd[2Jred\ufffd" in text
    assert "[red]\ufffd[31m" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("shown", [80, 20, 0], indirect=True)
def test_a_table_without_rows_is_its_headers(shown: io.StringIO) -> None:
    show_table(("plan", "what it is"), [])
    assert "Error" not in shown.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (59.99, "60.0 s"), (185, "3 min 05 s"), (7200, "2 h 00 min")]
)
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert duration(seconds) == text
