"""Tables 11, 12 and 13 of the study: AUROCs with augmentation, other window sizes, and EfficientAD's normalisation."""

from __future__ import annotations

from dataclasses import dataclass

from andon.benchmark.published.cells import CATEGORIES, METHODS, Published, published

__all__ = ["WINDOWS", "Augmented", "published_augmented", "published_extra_normalisation", "published_window"]

# As in ``cells``: one line a row, one "mean±sd" a method.
_AUGMENTED = """
    Wiring    46.6±6.1   70.6±2.4  65.4±6.8   79.2±0.9  75.9±1.2  76.5±0.6
    Clip      54.6±14.3  75.5±6.0  70.6±7.4   77.8±1.2  62.3±3.2  68.4±0.8
    Staple    53.5±8.5   98.1±1.7  85.5±11.3  94.6±0.7  56.4±3.3  92.1±1.0
    T. screw  45.7±7.9   64.8±6.1  64.7±10.3  50.2±3.0  46.9±0.9  86.6±1.3
    Pipes     82.7±7.3   86.8±4.6  56.9±7.2   88.1±2.9  97.9±0.8  99.8±0.0
    U. screw  60.3±18.5  98.7±1.0  97.4±6.6   91.3±0.3  79.4±2.0  98.2±0.6
"""

_WINDOWS = """
    Wiring 400x400  46.1±8.6   71.8±2.3   75.9±2.4  79.7±0.8  79.2±1.3  77.2±0.3
    Wiring 400x480  51.4±8.5   69.4±1.1   75.5±1.7  80.7±0.6  79.8±0.4  77.7±0.4
    Wiring 640x480  37.8±10.2  68.4±3.0   72.1±2.9  80.6±0.7  80.0±1.2  76.3±0.4
    Clip 200x200    61.8±8.7   76.3±6.8   76.1±3.3  83.5±1.0  70.5±2.9  79.5±0.4
    Clip 400x400    49.3±12.7  76.6±3.6   81.1±6.8  76.8±1.2  62.6±2.0  73.3±0.9
    Clip 600x600    50.9±6.0   66.6±9.8   71.5±3.9  58.8±1.0  53.5±2.1  58.2±0.9
    Staple 200x200  48.7±7.8   88.1±6.7   98.7±2.9  82.6±2.4  57.5±2.0  97.0±0.3
    Staple 400x400  51.2±6.7   74.2±12.1  96.2±3.1  84.3±1.5  54.6±3.0  92.3±0.6
    Staple 600x600  37.4±5.6   82.7±12.8  60.9±9.1  73.5±5.4  30.0±2.0  52.9±1.4
"""

# With and without the extra normalisation.
_NORMALISED = """
    Wiring    80.6±0.6  79.7±0.8
    Clip      79.5±1.5  76.8±1.2
    Staple    87.0±0.7  84.3±1.5
    T. screw  63.8±2.5  62.4±2.7
    Pipes     88.4±4.3  91.2±1.2
    U. screw  90.5±0.4  91.0±0.2
"""

_NAMES = {short: category for category, short in CATEGORIES.items()}


@dataclass(frozen=True)
class Augmented:
    """A cell of Table 11.

    Attributes:
        auroc: %; what the ± is of is not stated: the area is that of one averaged curve.
        gain: of the printed mean on Table 6's, points: what the table underlines where it is positive.
    """

    auroc: Published
    gain: float

    @property
    def improved(self) -> bool:
        return self.gain > 0


def _cell(text: str) -> Published:
    mean, sd = text.split("±")
    return Published(float(mean), float(sd))


def _augmented() -> dict[tuple[str, str], Augmented]:
    cells = {}
    for line in _AUGMENTED.strip().splitlines():
        *name, a, b, c, d, e, f = line.split()
        category = _NAMES[" ".join(name)]
        for method, text in zip(METHODS, (a, b, c, d, e, f), strict=True):
            found, plain = _cell(text), published("auroc", method, category)
            assert plain is not None
            cells[method, category] = Augmented(found, round(found.mean - plain.mean, 1))
    return cells


def _windows() -> dict[tuple[str, str, tuple[int, int]], Published]:
    cells = {}
    for line in _WINDOWS.strip().splitlines():
        name, size, *figures = line.split()
        width, height = size.split("x")
        for method, text in zip(METHODS, figures, strict=True):
            cells[method, _NAMES[name], (int(width), int(height))] = _cell(text)
    return cells


def _normalised() -> dict[tuple[str, bool], Published]:
    cells = {}
    for line in _NORMALISED.strip().splitlines():
        *name, extra, plain = line.split()
        category = _NAMES[" ".join(name)]
        cells[category, True], cells[category, False] = _cell(extra), _cell(plain)
    return cells


_AUGMENTED_CELLS, _WINDOW_CELLS, _NORMALISED_CELLS = _augmented(), _windows(), _normalised()

WINDOWS: dict[str, tuple[tuple[int, int], ...]] = {
    category: tuple(dict.fromkeys(size for _, c, size in _WINDOW_CELLS if c == category))
    for category in dict.fromkeys(c for _, c, _ in _WINDOW_CELLS)
}
"""Category → (width, height) of Table 12's windows, in pixels of the image they are cut from, in its order."""


def published_augmented(method: str, category: str) -> Augmented | None:
    """Table 11: the AUROC when trained with augmentation; None where it has no such cell."""
    return _AUGMENTED_CELLS.get((method, category))


def published_window(method: str, category: str, size: tuple[int, int]) -> Published | None:
    """Table 12: the AUROC with windows of (width, height); None where it has no such cell."""
    return _WINDOW_CELLS.get((method, category, size))


def published_extra_normalisation(category: str, *, extra: bool) -> Published | None:
    """Table 13: EfficientAD's AUROC, maps normalised on all training images (``extra``) or 5 % of them."""
    return _NORMALISED_CELLS.get((category, extra))
