"""The study's Tables 1 and 3 beside what the readers count."""

from __future__ import annotations

from pathlib import Path

import pytest

from andon.benchmark import published
from andon.data import dataset_info, load_dataset, published_set, published_sets
from andon.data.info import CategoryInfo, DatasetInfo
from andon.report import compare_counts
from tests.data.sets import miniatures as mini
from tests.data.sets.miniatures import written


def info(layout: str, *rows: tuple[str, int, int, int]) -> DatasetInfo:
    categories = tuple(CategoryInfo(name, (8, 8), (8, 8), *counts) for name, *counts in rows)  # type: ignore[arg-type]
    return DatasetInfo("x", layout, Path(), categories, ())


ARCHIVE = {name: tuple(counts) for name, counts in published_set("autovi").archive.items()}


def test_the_archive_of_autovi_is_not_what_table_3_prints() -> None:
    sums = [sum(column) for column in zip(*ARCHIVE.values(), strict=True)]
    assert sums == [1523, 1521, 878]
    assert ARCHIVE["pipe_staple"] == (191, 188, 117)
    printed = [sum(getattr(e, n) for e in published.AUTOVI_CATEGORIES) for n in ("train", "good", "defective")]
    assert printed == [1530, 1533, 887]


def test_both_are_shown_and_said() -> None:
    found = compare_counts(info("autovi", *((name, *counts) for name, counts in ARCHIVE.items())))  # type: ignore[arg-type]
    assert found is not None
    rows = {row[0]: row[1:] for row in found.rows}
    assert rows["pipe_staple"] == ("191 + 188 + 117", "198 + 199 + 127", "191 + 188 + 117")
    assert rows["Total"] == ("1,523 + 1,521 + 878", "1,530 + 1,533 + 887", "1,523 + 1,521 + 878")
    assert [note.partition(":")[0] for note in found.notes[1:]] == ["pipe_clip", "pipe_staple"]
    assert "what is here is the archive's" in found.notes[2]
    assert "a public report" in found.notes[0]


def test_counts_of_neither_and_of_the_study() -> None:
    found = compare_counts(
        info("autovi", ("pipe_staple", 198, 199, 127), ("pipe_clip", 1, 2, 3), ("tank_screw", 1, 1, 1))
    )
    assert found is not None
    assert "Total" not in {row[0] for row in found.rows}
    notes = " ".join(found.notes)
    assert (
        "pipe_staple: the study prints 198 + 199 + 127, the archive holds 191 + 188 + 117; what is here is the" in notes
    )
    assert "what is here is the study's" in notes
    assert "what is here is neither's" in notes
    assert "tank_screw: here are 1 + 1 + 1 images, the study and the archive have 318 + 318 + 95" in notes


def test_table_1_is_what_the_readers_would_count_of_whole_sets() -> None:
    """Its figures and those of the owners, as the catalogue has them: they differ where docs/data.md says so."""
    names = {
        "DAGM": "dagm",
        "NEU": "neu",
        "Severstal Steel": "severstal",
        "MVTec AD": "mvtec-ad",
        "KolektorSDD": "ksdd",
        "KolektorSDD2": "ksdd2",
        "MVTec LOCO": "mvtec-loco",
        "VisA": "visa",
    }
    differ = {}
    for entry in published.PUBLIC_DATASETS:
        if entry.name in names:
            owner = published_set(names[entry.name])
            if (owner.images, owner.defective) != (entry.images, entry.defects):
                differ[entry.name] = (entry.images, owner.images)
    assert differ == {"Severstal Steel": (12572, 12568)}
    assert {e.name for e in published.PUBLIC_DATASETS} == {*names, "AutoVI"}


@pytest.mark.parametrize(
    ("make", "images", "defective", "categories"),
    [
        (mini.dagm, "16", "4", "2"),
        (mini.neu_mirror, "6", "6", "2"),
        (mini.ksdd2, "8", "2", "1"),
        (mini.mvtec_loco, "10", "2", "1"),
        (mini.visa, "18", "6", "2"),
    ],
)
def test_what_a_reader_counts(make: object, images: str, defective: str, categories: str, tmp_path: Path) -> None:
    found = dataset_info(load_dataset(written(tmp_path / "set", make())), threads=1)  # type: ignore[operator]
    compared = compare_counts(found)
    assert compared is not None
    assert [row[1] for row in compared.rows] == [images, defective, categories]
    assert compared.notes  # a miniature is not the whole
    assert compared.as_dict()["rows"] == compared.rows


def test_a_whole_set_of_the_owners_counts() -> None:
    found = compare_counts(info("severstal", ("steel", 4722, 1180, 6666)))
    assert found is not None
    assert found.rows[0] == ("Images", "12,568", "12,572", "12,568")
    assert found.notes == ("Images: here are 12,568, the study's Table 1 prints 12,572.",)
    assert compare_counts(info("mvtec", ("mine", 1, 1, 1))) is None
    assert compare_counts(info("elpv", ("elpv_mono", 1, 1, 1))) is None
    assert {e.name for e in published_sets()} >= {"autovi", "visa"}
