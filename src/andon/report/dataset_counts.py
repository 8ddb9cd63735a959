"""Counts of a published data set as it is here, beside those that the study prints and those of its owner or archive.

The study's Tables 1 and 3 are about data sets that a reader may have: where what is here is counted differently, it is
said, and nothing is made to fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from andon.benchmark import published
from andon.data import DatasetInfo, PublishedSet, SplitCounts, recognised_set

__all__ = ["CountComparison", "compare_counts"]

_TABLE_1 = {
    "autovi": "AutoVI",
    "dagm": "DAGM",
    "ksdd": "KolektorSDD",
    "ksdd2": "KolektorSDD2",
    "mvtec-ad": "MVTec AD",
    "mvtec-loco": "MVTec LOCO",
    "neu": "NEU",
    "severstal": "Severstal Steel",
    "visa": "VisA",
}
"""What Table 1 calls them."""


@dataclass(frozen=True)
class CountComparison:
    """A table and what is to be said about it.

    Attributes:
        name: of the published data set.
        title: of the table.
        columns, rows: the first column names what is counted.
        notes: one line each.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {"name": self.name, "columns": self.columns, "rows": self.rows, "notes": self.notes}


def compare_counts(found: DatasetInfo) -> CountComparison | None:
    """What is here beside what is printed; None where it is no published data set, or nothing is known."""
    entry = recognised_set(found.layout, tuple(category.name for category in found.categories))
    if entry is None:
        return None
    if entry.archive:
        return _by_category(found, entry)
    return _of_all(found, entry) if entry.images is not None else None


def _sum(counts: tuple[SplitCounts, ...]) -> SplitCounts:
    return SplitCounts(*(sum(column) for column in zip(*counts, strict=True)))


def _shown(counts: SplitCounts) -> str:
    return f"{counts.train:,} + {counts.good:,} + {counts.defective:,}"


def _by_category(found: DatasetInfo, entry: PublishedSet) -> CountComparison:
    table = {e.category: SplitCounts(e.train, e.good, e.defective) for e in published.AUTOVI_CATEGORIES}
    here = {c.name: SplitCounts(c.train, c.test_good, c.test_defective) for c in found.categories}
    rows = [(name, _shown(counts), _shown(table[name]), _shown(entry.archive[name])) for name, counts in here.items()]
    notes = []
    printed, held = _sum(tuple(table.values())), _sum(tuple(entry.archive.values()))
    if {*here} == {*table}:
        rows.append(("Total", _shown(_sum(tuple(here.values()))), _shown(printed), _shown(held)))
    notes.append(
        f"The published archive holds {_shown(held)} images ({entry.archive_source}), the study's Table 3 prints "
        f"{_shown(printed)}: training, good and defective test images."
    )
    for name, counts in here.items():
        if table[name] != entry.archive[name]:
            which = "the archive's" if counts == entry.archive[name] else "neither's"
            which = "the study's" if counts == table[name] else which
            notes.append(
                f"{name}: the study prints {_shown(table[name])}, the archive holds {_shown(entry.archive[name])}; "
                f"what is here is {which}."
            )
        elif counts != table[name]:
            notes.append(
                f"{name}: here are {_shown(counts)} images, the study and the archive have {_shown(table[name])}."
            )
    columns = ("Category", "Here", "The study's Table 3", "The archive")
    return CountComparison(entry.name, entry.title, columns, tuple(rows), tuple(notes))


def _of_all(found: DatasetInfo, entry: PublishedSet) -> CountComparison:
    printed = next((e for e in published.PUBLIC_DATASETS if e.name == _TABLE_1.get(entry.name)), None)
    names = [category.name for category in found.categories]
    whole = len(entry.categories) or (printed.classes if printed is not None else len(names))
    images = sum(category.total for category in found.categories)
    defective = sum(category.test_defective + category.train_defective for category in found.categories)
    table = (None, None, None) if printed is None else (printed.images, printed.defects, printed.classes)
    owner = (entry.images, entry.defective, len(entry.categories) or None)
    titles = ("Images", "Defective", "Categories")
    here = (images, defective, len(names))
    rows = [
        (title, *(f"{n:,}" if n is not None else "–" for n in numbers))
        for title, *numbers in zip(titles, here, table, owner, strict=True)
    ]
    notes = []
    if len(names) != whole:
        notes.append(f"{len(names)} of {whole} categories are here: the counts are those of a part.")
    else:
        for title, counted, by_study, by_owner in zip(titles, here, table, owner, strict=True):
            if by_owner is not None and counted != by_owner:
                notes.append(f"{title}: here are {counted:,}, its owner has {by_owner:,}.")
            elif by_study is not None and counted != by_study:
                notes.append(f"{title}: here are {counted:,}, the study's Table 1 prints {by_study:,}.")
    columns = ("Count", "Here", "The study's Table 1", "Its owner")
    return CountComparison(entry.name, entry.title, columns, tuple(rows), tuple(notes))
