"""What several published data sets need: splits where the owner has none, tables of files, what nobody reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from andon._tools.files import read_regular
from andon.core import DataError, Note, listed
from andon.data.files import list_folder, without_suffix
from andon.data.layout import checked_fraction
from andon.data.truth import walk

__all__ = [
    "LABEL",
    "csv_rows",
    "file_named",
    "first_share",
    "inside",
    "label_images",
    "lines_of",
    "seeded_share",
    "unread",
]

_MAX_TABLE_BYTES = 2**28
LABEL = "_label"
"""What the names of masks beside their images end in."""


def first_share(count: int, fraction: float) -> int:
    """How many of ``count`` are for training, rounded; of two or more one at least is left for testing."""
    wanted = max(1, round(checked_fraction(fraction) * count)) if count else 0
    return min(wanted, count - 1) if fraction < 1 and count > 1 else wanted


def seeded_share(count: int, fraction: float) -> set[int]:
    """The numbers below ``count`` that are for training: a draw with seed 0, the same on every machine."""
    order = np.random.default_rng(0).permutation(count)
    return {int(number) for number in order[: first_share(count, fraction)]}


def lines_of(path: Path) -> list[str]:
    """The lines of a text file, with or without a byte order mark; DataError where it is none."""
    try:
        return read_regular(path, _MAX_TABLE_BYTES, what="a table").decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text in UTF-8 ({error.reason})") from error


def csv_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of a CSV file, header left out; DataError where it has other columns or is damaged."""
    reader = csv.reader(io.StringIO("\n".join(lines_of(path))))
    try:
        header = next(reader, [])
        if [name.strip() for name in header] != list(columns):
            raise DataError(f"{path}: the columns must be {','.join(columns)}, not {','.join(header)[:80] or 'none'}")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(columns):
                raise DataError(f"{path}, line {reader.line_num}: {len(cells)} cells, not {len(columns)}")
            yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def inside(root: Path, relative: str, where: str) -> Path:
    """A file that a table names; DataError where the name leads out of the data set's folder."""
    path = PurePosixPath(relative.strip().replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise DataError(f"{where}: {relative!r} is no path inside {root}")
    return root.joinpath(*path.parts)


def unread(folder: Path, known: Collection[Path]) -> tuple[Note, ...]:
    """A note on each folder with images that a reader has no use for."""
    notes = []
    known = set(known)
    for listing in walk(folder):
        names = [name for name in listing.images if listing.folder / name not in known]
        if names:
            many = f"{len(names)} image{'s' * (len(names) != 1)}"
            text = f"{listing.folder}: {many} not read, the layout has no place for them: {listed(names)}"
            notes.append(Note("warning", "unread-image", listing.folder, text))
    return tuple(notes)


def file_named(folder: Path, name: str) -> Path | None:
    """The file of this name, no image, in any case; None where there is none."""
    names = [other for other in list_folder(folder).others if other.casefold() == name]
    return folder / names[0] if names else None


def label_images(folder: Path) -> dict[str, Path]:
    """Images of a folder that are called "<image>_label", by their image's name without suffix, casefolded."""
    stems = ((without_suffix(name).casefold(), folder / name) for name in list_folder(folder).images)
    return {stem.removesuffix(LABEL): path for stem, path in stems if stem.endswith(LABEL)}
