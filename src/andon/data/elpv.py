"""ELPV: cells of solar modules by electroluminescence, as the package ``elpv-dataset`` of the index brings them.

Buerhop-Lutz et al., A benchmark for visual identification of defective solar cells in electroluminescence imagery, EU
PVSEC 2018: 2,624 grey images of 300 × 300 pixels, each with the module's kind (mono- or polycrystalline) and a
probability of being defective by experts (0, 1/3, 2/3, 1). No masks. CC BY-NC-SA 4.0: not for commercial use.

The package holds ``elpv_dataset/data/labels.csv`` and ``elpv_dataset/data/images/*.png``. Its code is never imported.
As a data set that folder is two categories, ``elpv_mono`` and ``elpv_poly``: good is probability 0, defective 1, what
the experts were unsure of is left out.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from andon._tools.files import read_regular
from andon._tools.packages import packaged_path
from andon._tools.spacing import evenly_spaced
from andon.core import GOOD, Category, DataError, Note
from andon.data.files import WholeMaskReader, make_samples
from andon.data.layout import Layout, ReadOptions, checked_fraction

__all__ = ["ELPV_LICENCE", "ELPV_PACKAGE", "LAYOUT", "ElpvCell", "elpv_cells", "elpv_folder", "write_elpv"]

ELPV_PACKAGE = "elpv-dataset"
ELPV_LICENCE = "CC BY-NC-SA 4.0 (not for commercial use)"
_TRAIN_SHARE = 0.8
_MAX_LABELS_BYTES = 2**24


class ElpvCell(NamedTuple):
    """One image.

    Attributes:
        path: its file.
        probability: of being defective, 0 to 1.
        kind: "mono" or "poly".
    """

    path: Path
    probability: float
    kind: str


def elpv_folder() -> Path | None:
    """The folder with ``labels.csv`` of the installed package; None where it is not installed."""
    folder = packaged_path(ELPV_PACKAGE, "elpv_dataset/data")
    return folder if folder is not None and (folder / "labels.csv").is_file() else None


def elpv_cells(folder: Path) -> list[ElpvCell]:
    """All images of the data set, in the order of ``labels.csv``.

    Raises:
        DataError: a line that is not "file probability kind", or an image that is not there.
    """
    labels, real = folder / "labels.csv", folder.resolve()
    cells = []
    for number, line in enumerate(_lines(labels), start=1):
        words = line.split()
        if not words:
            continue
        try:
            name, probability, kind = words[0], float(words[1]), words[2]
        except (IndexError, ValueError):
            raise DataError(f"{labels}, line {number}: expected 'file probability kind', not {line!r}") from None
        path = folder / name
        if kind not in ("mono", "poly") or not 0 <= probability <= 1:
            raise DataError(f"{labels}, line {number}: expected mono or poly and a probability, not {line!r}")
        if not path.is_file() or not path.resolve().is_relative_to(real):
            raise DataError(f"{labels}, line {number}: there is no image {name} in {folder}")
        cells.append(ElpvCell(path, probability, kind))
    return cells


def write_elpv(
    source: Path, target: Path, *, train: int | None = None, test: int | None = None, seed: int = 0
) -> dict[str, tuple[int, int, int]]:
    """Writes the data set as two categories, ``elpv_mono`` and ``elpv_poly``, in MVTec AD's layout.

    Good is probability 0, defective probability 1; what the experts were unsure of is left out. A seeded draw of four
    fifths of the good images is for training, the rest for testing.

    Args:
        source: the folder with ``labels.csv``.
        target: the data set's new folder; it appears whole or not at all.
        train: at most so many training images a category, evenly spaced; None for all.
        test: at most so many good and so many defective test images a category.
        seed: of the draw.

    Returns:
        (training, good test, defective test) images by category.

    Raises:
        DataError: as ``elpv_cells``, or the folder cannot be written.
    """
    cells = elpv_cells(source)
    scratch = target.with_name(f"{target.name}.part")
    counts = {}
    try:
        shutil.rmtree(scratch, ignore_errors=True)  # what a killed call left behind
        for kind in ("mono", "poly"):
            parts = _parts([cell for cell in cells if cell.kind == kind], train, test, seed)
            _copy(parts, scratch / f"elpv_{kind}")
            counts[f"elpv_{kind}"] = (len(parts["train/good"]), len(parts["test/good"]), len(parts["test/defective"]))
        scratch.rename(target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror or error}); nothing was kept") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return counts


def _parts(
    cells: list[ElpvCell], train: int | None, test: int | None, seed: int, share: float = _TRAIN_SHARE
) -> dict[str, list[Path]]:
    """The images of one kind by the folder that they go to."""
    good = [cell.path for cell in cells if cell.probability == 0]
    bad = [cell.path for cell in cells if cell.probability == 1]
    order = np.random.default_rng(seed).permutation(len(good))
    n_train = round(share * len(good))
    return {
        "train/good": _spread([good[i] for i in sorted(order[:n_train])], train),
        "test/good": _spread([good[i] for i in sorted(order[n_train:])], test),
        "test/defective": _spread(bad, test),
    }


def _copy(parts: dict[str, list[Path]], folder: Path) -> None:
    for part, paths in parts.items():
        (folder / part).mkdir(parents=True)
        for path in paths:
            shutil.copyfile(path, folder / part / path.name)


def _spread(paths: list[Path], at_most: int | None) -> list[Path]:
    """At most so many, evenly spaced."""
    if at_most is None or len(paths) <= at_most:
        return paths
    return [paths[i] for i in evenly_spaced(len(paths), at_most)]


def _recognise(folder: Path) -> bool:
    labels = folder / "labels.csv"
    if not labels.is_file() or not (folder / "images").is_dir():
        return False
    # Other data sets have a table of this name too.
    words = next((line.split() for line in _lines(labels) if line.strip()), [])
    return len(words) == 3 and words[2] in ("mono", "poly")


def _lines(labels: Path) -> list[str]:
    """The lines of the table; none where it is no text."""
    try:
        return read_regular(labels, _MAX_LABELS_BYTES, what="a table").decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return []


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(f"elpv_{kind}" for kind in sorted({cell.kind for cell in elpv_cells(folder)}))


def _read(folder: Path, name: str, dataset: str, options: ReadOptions) -> Category:
    fraction = checked_fraction(options.train_fraction)
    cells = [cell for cell in elpv_cells(folder) if f"elpv_{cell.kind}" == name]
    parts = _parts(cells, None, None, 0, fraction)
    reader, samples = WholeMaskReader(), []
    for split, kind, part in (
        ("train", GOOD, "train/good"),
        ("test", GOOD, "test/good"),
        ("test", "defective", "test/defective"),
    ):
        for path in parts[part]:
            samples += make_samples(path.parent, [path.name], "train" if split == "train" else "test", kind, reader)
    table = folder / "labels.csv"
    unsure = len(cells) - len(samples)
    text = f"{table}: {unsure} images of {name} that the experts were unsure of are left out"
    notes = (Note("info", "left-out", table, text),) if unsure else ()
    return Category(name, dataset, folder, tuple(samples), notes=notes, whole=True)


LAYOUT = Layout(
    name="elpv",
    expects="labels.csv and images/*.png",
    recognise=_recognise,
    read=_read,
    rule=(
        "the owner has no split: of the cells with probability 0, four fifths, drawn with seed 0, are for training, "
        "the rest and those with probability 1 for testing; there are no masks"
    ),
    published=True,
    parts=_names,
)
