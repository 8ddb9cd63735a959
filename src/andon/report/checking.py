"""The page of a data check: one HTML file with everything in it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from andon.core import AndonError, ConfigError
from andon.inspection import CheckedImage, DataCheck
from andon.report._page import page_environment, page_style
from andon.report.svg import Plot
from andon.report.write import write_bytes

__all__ = ["write_check"]

_THUMBNAIL = 240
_MOST = 24
"""Images of each kind on the page."""
_SIZE = (560.0, 190.0)


@dataclass(frozen=True)
class _Tile:
    uri: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Section:
    """What the template shows of one category."""

    check: DataCheck
    counts: tuple[tuple[str, int], ...]
    sizes: tuple[tuple[str, int], ...]
    charts: tuple[tuple[str, Markup, str], ...]
    outliers: tuple[_Tile, ...]
    blurred: tuple[_Tile, ...]
    pairs: tuple[tuple[_Tile, _Tile, bool], ...]
    modes: tuple[_Tile, ...]


def write_check(checks: Sequence[DataCheck], name: str, path: Path) -> Path:
    """Writes the page of a data set's categories; it needs no network and can use none.

    Raises:
        ConfigError: it cannot be written.
    """
    if path.is_dir():
        path = path / "check.html"
    if path.suffix.casefold() not in (".html", ".htm"):
        raise ConfigError(f"{path}: the page must be called *.html")
    page = (
        page_environment()
        .get_template("check.html.j2")
        .render(
            name=name,
            sections=[_section(check) for check in checks],
            style=page_style("report.css", "check.css"),
            most=_MOST,
        )
    )
    return write_bytes(path, page.encode("utf-8"))


def _section(check: DataCheck) -> _Section:
    images = check.images
    return _Section(
        check,
        tuple(check.counts.items()),
        tuple((f"{width} × {height}", count) for (height, width), count in check.sizes.most_common(6)),
        tuple(_charts(check)),
        tuple(
            _tile(images[i], f"{images[i].outlier or 0:.1f} deviations, place {place}")
            for place, i in enumerate(check.outliers[:_MOST], start=1)
        ),
        tuple(_tile(images[i], f"sharpness {images[i].appearance.sharpness:.3g}") for i in check.blurred[:_MOST]),
        tuple(_pairs(check)),
        tuple(_tile(images[mode.example], f"{len(mode.images)} images") for mode in check.modes),
    )


def _pairs(check: DataCheck) -> list[tuple[_Tile, _Tile, bool]]:
    leaks = set(check.leaks)
    ranked = sorted(check.duplicates, key=lambda pair: (pair not in leaks, -pair.correlation))[:_MOST]
    return [
        (
            _tile(check.images[pair.first], f"correlation {pair.correlation:.3f}"),
            _tile(check.images[pair.second], "between training and test" if pair in leaks else "in one split"),
            pair in leaks,
        )
        for pair in ranked
    ]


def _tile(image: CheckedImage, said: str) -> _Tile:
    try:
        small = Image.fromarray(image.sample.image())
    except AndonError:  # it was there when it was checked
        return _Tile("", (image.sample.id, "cannot be read any more"))
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=82)
    uri = "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
    return _Tile(uri, (image.sample.id, said))


def _charts(check: DataCheck) -> list[tuple[str, Markup, str]]:
    """(title, SVG, sentence) of exposure and sharpness in the category's order."""
    if not check.images:
        return []
    exposure = [image.appearance.exposure for image in check.images]
    sharpness = [image.appearance.sharpness for image in check.images]
    said = {figure.name: figure.sentence for figure in check.drifts}
    return [
        ("Exposure", _chart(check, exposure, "mean grey value", None), said.get("exposure", "")),
        ("Sharpness", _chart(check, sharpness, "sharpness", check.blur.least or None), said.get("sharpness", "")),
    ]


def _chart(check: DataCheck, values: Sequence[float], label: str, limit: float | None) -> Markup:
    """One dot an image, training images first; a dashed line at the limit."""
    low, high = min(*values, limit or values[0]), max(*values, limit or values[0])
    room = 0.06 * (high - low) or 1.0
    last = max(1, len(values) - 1)
    plot = Plot(_SIZE, (0, last), (low - room, high + room), "image, in shooting order", label, integer_x=True)
    good = [not image.sample.is_defective for image in check.images]
    if limit is not None:
        plot.line((0, last), (limit, limit), "var(--muted)", "4 3", 1.2)
    n_train = sum(image.sample.split == "train" for image in check.images)
    if 0 < n_train < len(values):
        plot.vertical(n_train - 0.5, "2 3")
    width = max(1.2, min(3.0, 600 / len(values)))
    for number, value in enumerate(values):
        colour = "var(--good)" if good[number] else "var(--defective)"
        half = 0.5 * width * last / _SIZE[0]
        plot.line((number - half, number + half), (value, value), colour, width=width)
    return Markup(plot.to_svg())
