from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core import AndonError
from andon.data import load_dataset
from andon.data.files import by_stem, list_folder, natural_key, without_suffix

from .images import save


def test_people_count_so() -> None:
    names = ["img10.png", "img2.png", "Img1.png", "a.png", "img2b.png", "0003.png", "0012.png", "1.png"]
    expected = ["1.png", "0003.png", "0012.png", "a.png", "Img1.png", "img2.png", "img2b.png", "img10.png"]
    assert sorted(names, key=natural_key) == expected


def test_zero_padded_names_keep_their_plain_order() -> None:
    names = [f"{i:04}.png" for i in range(0, 3000, 7)]
    shuffled = random.Random(0).sample(names, len(names))
    assert sorted(shuffled, key=natural_key) == names


@settings(deadline=None)
@given(st.lists(st.text(max_size=12), unique=True), st.randoms(use_true_random=False))
def test_any_names_have_one_order(names: list[str], randomness: random.Random) -> None:
    shuffled = randomness.sample(names, len(names))
    assert sorted(names, key=natural_key) == sorted(shuffled, key=natural_key)


@settings(deadline=None)
@given(st.from_regex(r"[a-z0-9.]{1,12}", fullmatch=True).filter(lambda name: name.strip(".") != ""))
def test_without_suffix_is_splitext(name: str) -> None:
    expected = os.path.splitext(name)[0]
    if not name.startswith(".."):  # splitext counts all leading dots as the name; hidden files are not listed
        assert without_suffix(name) == expected


def test_listing(tmp_path: Path) -> None:
    for name in ("b10.PNG", "b9.jpeg", "notes.txt", ".hidden.png", "Thumbs.db", "._b9.jpeg", "c.TIF"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    listing = list_folder(tmp_path)
    assert listing.images == ("b9.jpeg", "b10.PNG", "c.TIF", "dangling.png")
    assert listing.folders == ("folder.png",)
    assert listing.others == ("notes.txt",)
    assert list_folder(tmp_path / "none").images == ()
    assert list_folder(tmp_path / "notes.txt").images == ()


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    try:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.png"))).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(AndonError, match=r"bad\\udcff\.png' is not valid UTF-8"):
        list_folder(tmp_path)


def test_a_folder_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(AndonError, match="cannot be listed"):
        list_folder(tmp_path)


def test_two_files_with_one_name(tmp_path: Path) -> None:
    with pytest.raises(AndonError, match=r"a\.png: a\.jpg has the same name"):
        by_stem(tmp_path, ["a.jpg", "a.png"])


def test_masks_by_the_name_of_their_image(tmp_path: Path) -> None:
    assert set(by_stem(save(tmp_path / "x.png").parent, ["a_mask.png", "b.png"], ending="_mask")) == {"a", "b"}


def test_a_folder_is_listed_once_while_a_data_set_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("good/1.png", "good/2.png", "dent/1.png"):
        save(tmp_path / name)
    listed, scandir = [], os.scandir

    def counted(path: Path) -> object:
        listed.append(Path(path).relative_to(tmp_path).as_posix())
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    assert len(load_dataset(tmp_path).categories) == 1
    assert sorted(listed) == [".", "dent", "good"]
    list_folder(tmp_path)
    list_folder(tmp_path)
    assert listed[3:] == [".", "."]  # what is there may have changed meanwhile
